//! Pid files, and the lock that keeps two runners from using the same folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::clock::Monotonic;

use super::log::RUNNER_NAME;

/// Bytes of a process's name that the kernel keeps.
const KERNEL_NAME_BYTES: usize = 15;

/// How long the lock is waited for: a runner that was killed keeps it until the kernel has taken
/// it apart.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// How often the lock is tried.
const LOCK_POLL: Duration = Duration::from_millis(10);

/// Why a pid file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum PidError {
    /// Another runner uses the folder.
    #[error(
        "another `rinha-test up` (pid {pid}) uses {folder}; end it, or choose another folder with --data"
    )]
    AnotherRunner {
        /// Its pid, as far as its file tells.
        pid: String,
        /// The folder for sockets and pid files.
        folder: PathBuf,
    },
    /// The file cannot be read or written.
    #[error("cannot use the pid file {path}: {cause}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        cause: io::Error,
    },
}

/// Only the owner may read who runs.
const FILE_MODE: u32 = 0o600;

/// The pid file of a process in the folder for sockets and pid files.
#[must_use]
pub fn pid_path(run_folder: &Path, name: &str) -> PathBuf {
    run_folder.join(format!("{name}.pid"))
}

/// Writes a pid file, so that a reader sees either all of it or nothing.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, pid: u32) -> Result<(), PidError> {
    let unfinished = path.with_extension("pid.new");
    let mut options = OpenOptions::new();
    options.create(true).write(true).truncate(true).mode(FILE_MODE);
    options
        .open(&unfinished)
        .and_then(|mut file| writeln!(file, "{pid}"))
        .and_then(|()| std::fs::rename(&unfinished, path))
        .map_err(|cause| failed(path, cause))
}

/// Removes a pid file. It is fine if there is none.
///
/// # Errors
/// The file cannot be removed.
pub fn remove(path: &Path) -> Result<(), PidError> {
    match std::fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(failed(path, cause)),
        _ => Ok(()),
    }
}

/// The pid in a pid file, if there is one.
#[must_use]
pub fn read(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The pid in a pid file, if a process of this program still has it. A file outlives its process
/// where the runner was killed, and its number may then belong to anyone.
#[must_use]
pub fn alive(path: &Path, program: &Path) -> Option<u32> {
    let pid = read(path)?;
    let name = std::fs::read(format!("/proc/{pid}/comm")).ok()?;
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    let program = program.file_name()?.as_encoded_bytes();
    let kept = &program[..program.len().min(KERNEL_NAME_BYTES)];
    (name == kept && !is_zombie(pid)).then_some(pid)
}

/// Whether the process has ended and only waits for its parent to take notice.
fn is_zombie(pid: u32) -> bool {
    // The name may hold any character, so the state is what follows its last parenthesis.
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(") ").map(|(_, rest)| rest.starts_with('Z')))
        .unwrap_or(true)
}

/// The lock of a runner on its folder: its own pid file, kept locked as long as it lives. The
/// kernel releases it however the runner ends.
#[derive(Debug)]
pub struct RunnerLock {
    path: PathBuf,
    _file: File,
}

impl RunnerLock {
    /// Takes the lock and writes this process's pid.
    ///
    /// # Errors
    /// Another runner has it, or the file cannot be used.
    pub fn take(run_folder: &Path) -> Result<Self, PidError> {
        let path = pid_path(run_folder, RUNNER_NAME);
        let clock = Monotonic::start();
        loop {
            let mut file = OpenOptions::new()
                .create(true)
                .read(true)
                .write(true)
                .truncate(false)
                .mode(FILE_MODE)
                .open(&path)
                .map_err(|cause| failed(&path, cause))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) if clock.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_POLL);
                    continue;
                }
                Err(TryLockError::WouldBlock) => return Err(another(&mut file, run_folder)),
                Err(TryLockError::Error(cause)) => return Err(failed(&path, cause)),
            }
            // A runner that ended in between has removed the file that was opened here.
            let locked = file.metadata().map_err(|cause| failed(&path, cause))?;
            let at_path = std::fs::metadata(&path).ok();
            if at_path.is_none_or(|found| found.ino() != locked.ino()) {
                continue;
            }
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| writeln!(file, "{}", std::process::id()))
                .map_err(|cause| failed(&path, cause))?;
            return Ok(Self { path, _file: file });
        }
    }
}

impl Drop for RunnerLock {
    fn drop(&mut self) {
        // A file left behind does no harm: the lock is what counts.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn another(file: &mut File, run_folder: &Path) -> PidError {
    let mut pid = String::new();
    // The file is empty for a moment while its owner writes it.
    let known = file.read_to_string(&mut pid).is_ok() && !pid.trim().is_empty();
    PidError::AnotherRunner {
        pid: if known { pid.trim().to_owned() } else { "unknown".to_owned() },
        folder: run_folder.to_owned(),
    }
}

fn failed(path: &Path, cause: io::Error) -> PidError {
    PidError::File { path: path.to_owned(), cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_is_written_read_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = pid_path(folder.path(), "lb");
        assert_eq!(read(&path), None);
        write(&path, 1234).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1234\n");
        assert_eq!(read(&path), Some(1234));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path), None);
    }

    #[test]
    fn a_second_runner_is_told_who_has_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let lock = RunnerLock::take(folder.path()).unwrap();
        let error = RunnerLock::take(folder.path()).unwrap_err().to_string();
        let pid = std::process::id();
        assert!(error.contains(&format!("(pid {pid})")), "{error}");
        assert_eq!(read(&pid_path(folder.path(), "up")), Some(pid));
        drop(lock);
        assert_eq!(read(&pid_path(folder.path(), "up")), None);
        RunnerLock::take(folder.path()).unwrap();
    }

    #[test]
    fn what_a_killed_runner_left_behind_is_taken_over() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(pid_path(folder.path(), "up"), "99999999 and more\n").unwrap();
        let _lock = RunnerLock::take(folder.path()).unwrap();
        assert_eq!(read(&pid_path(folder.path(), "up")), Some(std::process::id()));
    }

    #[test]
    fn a_pid_counts_only_while_its_program_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = pid_path(folder.path(), "sleeper");
        let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        write(&path, sleeper.id()).unwrap();
        let sleep = Path::new("/usr/bin/sleep");
        // Between `fork` and `exec` the process still has the name of the test.
        while alive(&path, sleep).is_none() {
            std::thread::yield_now();
        }
        assert_eq!(alive(&path, Path::new("/usr/bin/store")), None);
        sleeper.kill().unwrap();
        while alive(&path, sleep).is_some() {
            std::thread::yield_now();
        }
        sleeper.wait().unwrap();
        assert_eq!(alive(&path, sleep), None);
    }
}
