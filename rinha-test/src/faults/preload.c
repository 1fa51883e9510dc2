/*
 * Disk and clock faults for a program that knows nothing of them.
 *
 * Loaded into a process with LD_PRELOAD. What it does is said by a small file that whoever injects
 * faults writes to while the process runs; FAULTS_CONTROL has its path. `preload.rs` has the other
 * end of it, with the same fields in the same order.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

struct control {
    _Atomic int64_t disk_full;           /* 1: writes to regular files beyond bytes_left fail */
    _Atomic int64_t bytes_left;          /* what still fits; the last write may fit in part */
    _Atomic int64_t sync_fails;          /* 1: fsync and fdatasync fail with EIO */
    _Atomic int64_t clock_offset_ms;     /* added to the time of day */
    _Atomic int64_t writes_refused;      /* counted here: writes cut short or refused */
    _Atomic int64_t syncs_refused;       /* counted here */
    _Atomic int64_t clock_reads_shifted; /* counted here */
};

static struct control nothing;
static struct control *control = &nothing;
static int (*real_clock_gettime)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("FAULTS_CONTROL");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *mapped = MAP_FAILED;
    if (fd >= 0) {
        mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
    }
    /* A run whose faults have no effect must not pass for one that survived them. */
    if (mapped == MAP_FAILED) {
        perror("faults: cannot use the file that FAULTS_CONTROL names");
        _exit(70);
    }
    control = mapped;
}

static int is_regular(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

/* How many of these bytes fit on the disk. */
static size_t room(int fd, size_t count) {
    if (count == 0 || !atomic_load(&control->disk_full) || !is_regular(fd)) {
        return count;
    }
    int64_t left = atomic_load(&control->bytes_left);
    for (;;) {
        int64_t taken = left < (int64_t)count ? left : (int64_t)count;
        if (taken < 0) {
            taken = 0;
        }
        if (atomic_compare_exchange_weak(&control->bytes_left, &left, left - taken)) {
            if ((size_t)taken < count) {
                atomic_fetch_add(&control->writes_refused, 1);
            }
            return (size_t)taken;
        }
    }
}

static ssize_t no_room(void) {
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    size_t fits = room(fd, count);
    return fits == 0 && count > 0 ? no_room() : syscall(SYS_pwrite64, fd, bytes, fits, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return pwrite64(fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    size_t fits = room(fd, count);
    return fits == 0 && count > 0 ? no_room() : syscall(SYS_write, fd, bytes, fits);
}

/* A vector is written up to its first part where less than all of it fits, as a kernel may do. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (count <= 0 || !atomic_load(&control->disk_full) || !is_regular(fd)) {
        return syscall(SYS_writev, fd, parts, count);
    }
    return write(fd, parts[0].iov_base, parts[0].iov_len);
}

static int sync_fails(void) {
    if (!atomic_load(&control->sync_fails)) {
        return 0;
    }
    atomic_fetch_add(&control->syncs_refused, 1);
    errno = EIO;
    return 1;
}

int fdatasync(int fd) {
    return sync_fails() ? -1 : (int)syscall(SYS_fdatasync, fd);
}

int fsync(int fd) {
    return sync_fails() ? -1 : (int)syscall(SYS_fsync, fd);
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = real_clock_gettime == NULL ? (int)syscall(SYS_clock_gettime, clock, time)
                                            : real_clock_gettime(clock, time);
    int64_t offset_ms = atomic_load(&control->clock_offset_ms);
    if (result != 0 || clock != CLOCK_REALTIME || offset_ms == 0) {
        return result;
    }
    int64_t nanoseconds = time->tv_nsec + offset_ms % 1000 * 1000000;
    time->tv_sec += offset_ms / 1000 + (nanoseconds < 0 ? -1 : nanoseconds / 1000000000);
    time->tv_nsec = nanoseconds < 0 ? nanoseconds + 1000000000 : nanoseconds % 1000000000;
    atomic_fetch_add(&control->clock_reads_shifted, 1);
    return result;
}
