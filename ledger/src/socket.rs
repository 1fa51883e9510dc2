//! Unix sockets that only processes of the same user can use, and TCP connections that end well.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Uid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;

use crate::disk::folder::{FolderLock, lock_file};

/// Only the owner may connect.
const SOCKET_MODE: u32 = 0o600;

/// Connections that wait to be accepted.
const LISTEN_BACKLOG: i32 = 64;

/// The end of the name of the file whose lock makes its holder the socket's owner.
pub const LOCK_SUFFIX: &str = ".lock";

/// A listener for streams at a path, which no other process can take over while it is there.
#[derive(Debug)]
pub struct PrivateListener {
    socket: UnixListener,
    _path: BoundPath,
}

impl PrivateListener {
    /// Waits for the next connection.
    ///
    /// # Errors
    /// The operating system refuses, for example for want of file descriptors.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }
}

/// Accepts connections without watching them, as the runtime's own listeners would: who is given one decides
/// when that begins, or hands it on.
#[derive(Debug)]
pub struct Acceptor {
    listener: AsyncFd<OwnedFd>,
}

impl Acceptor {
    /// Accepts from this listener. Must be called on a runtime.
    ///
    /// # Errors
    /// The operating system refuses.
    pub fn new(listener: TcpListener) -> io::Result<Self> {
        Self::of(listener.into_std()?.into())
    }

    /// Accepts from this socket, which listens and does not block.
    pub(crate) fn of(listener: OwnedFd) -> io::Result<Self> {
        Ok(Self { listener: watch_for_input(listener)? })
    }

    /// Waits for the next connection, which does not block whoever reads from it.
    ///
    /// # Errors
    /// The operating system refuses, for example for want of file descriptors.
    pub async fn accept(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let accept = |listener: &OwnedFd| Ok(rustix::net::accept_with(listener, flags)?);
        self.listener.async_io(Interest::READABLE, accept).await
    }
}

/// Watches a socket for something to come, and not, as tokio's own types do, for room to send as well: for that
/// the kernel would wake this process whenever the other end has read.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for types that may change their descriptor"
)]
pub(crate) fn watch_for_input(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

/// Listens for streams at the path. A socket that an ended process left there is replaced.
///
/// # Errors
/// Another process listens there, the path is too long for a socket, or cannot be bound.
pub fn listen(path: &Path) -> io::Result<PrivateListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let bound = bind_privately(&socket, path)?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    Ok(PrivateListener { socket: UnixListener::from_std(socket.into())?, _path: bound })
}

/// A path at which this process listens. Its socket is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct BoundPath {
    path: PathBuf,
    /// The device and the number of the socket's file.
    file: (u64, u64),
    /// Released last, so that the next owner finds no socket that is about to be removed.
    _lock: FolderLock,
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        // Someone may have put another file there by hand.
        if file_number(&self.path).is_ok_and(|file| file == self.file) {
            // Best effort: the next process replaces a socket that stays behind.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds a socket to the path, in place of one that an ended process left there.
pub(crate) fn bind_privately(socket: impl AsFd, path: &Path) -> io::Result<BoundPath> {
    let address = socket_address(path)?;
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(LOCK_SUFFIX);
    let lock = lock_file(Path::new(&lock_path)).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            let what = "another process that is still running listens there";
            return io::Error::new(io::ErrorKind::AddrInUse, what);
        }
        error
    })?;
    remove_stale_socket(path)?;
    rustix::net::bind(socket, &address)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE))?;
    Ok(BoundPath { path: path.to_owned(), file: file_number(path)?, _lock: lock })
}

fn file_number(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

pub(crate) fn socket_address(path: &Path) -> io::Result<SocketAddrUnix> {
    SocketAddrUnix::new(path).map_err(|_| {
        let what = format!("{} is too long for a Unix socket (107 bytes at most)", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, what)
    })
}

/// Removes a socket that is in the way of a new one, and nothing but a socket.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => {
            let what = format!("{} exists and is not a socket", path.display());
            Err(io::Error::new(io::ErrorKind::AlreadyExists, what))
        }
    }
}

/// Refuses a peer of another user; the superuser may always.
///
/// # Errors
/// The peer is of another user, or cannot be told.
pub fn check_peer(stream: &UnixStream) -> io::Result<()> {
    demand_peer_of(stream, rustix::process::geteuid())
}

/// As [`check_peer`], of any Unix socket that is connected.
///
/// # Errors
/// See [`check_peer`].
pub fn check_peer_of_socket(socket: BorrowedFd<'_>) -> io::Result<()> {
    // Not rustix' `socket_peercred`: a peer in another container has the pid 0 here, which its type
    // cannot hold, so that it gives an error made of the other fields.
    let stream = std::os::unix::net::UnixStream::from(socket.try_clone_to_owned()?);
    stream.set_nonblocking(true)?;
    check_peer(&UnixStream::from_std(stream)?)
}

/// Refuses a server at this path that is of another user than this process; for the superuser, of another one
/// than the path's folder.
///
/// # Errors
/// It is of another user, or that cannot be told.
pub fn check_server(stream: &UnixStream, path: &Path) -> io::Result<()> {
    let own = rustix::process::geteuid();
    let folder = path.parent().filter(|_| own.is_root());
    let owner = folder.map(std::fs::metadata).transpose()?;
    demand_peer_of(stream, owner.map_or(own, |owner| Uid::from_raw(owner.uid())))
}

fn demand_peer_of(stream: &UnixStream, user: Uid) -> io::Result<()> {
    let peer = Uid::from_raw(stream.peer_cred()?.uid());
    if is_trusted(peer, user) {
        return Ok(());
    }
    let what = format!("a process of user {} may not use this socket", peer.as_raw());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
}

fn is_trusted(peer: Uid, own: Uid) -> bool {
    peer == own || peer.is_root()
}

/// How long a peer may take to close its side.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a peer that are read and thrown away, at most.
const LINGER_BYTES_MAX: usize = 256 << 10;

/// Writes the last bytes of a connection and closes it such that the peer can read them: a
/// connection that is closed with bytes of the peer unread is reset, and takes the answer with it.
pub async fn close_with(mut stream: TcpStream, last_bytes: &[u8]) {
    let closing = async {
        stream.write_all(last_bytes).await?;
        stream.shutdown().await?;
        let mut bytes = vec![0; 16 << 10];
        let mut count = 0;
        while count < LINGER_BYTES_MAX {
            match stream.read(&mut bytes).await? {
                0 => break,
                more => count += more,
            }
        }
        io::Result::Ok(())
    };
    // Whatever goes wrong, the connection ends here.
    let _ = timeout(LINGER_TIMEOUT, closing).await;
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Stdio};

    use super::*;

    #[test]
    fn a_socket_is_for_its_owner_only() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.sock");
            let _listener = listen(&path).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, SOCKET_MODE);
        });
    }

    #[test]
    fn only_the_same_user_and_the_superuser_are_trusted() {
        let [root, own, other] = [0, 1000, 1001].map(Uid::from_raw);
        assert!(is_trusted(own, own) && is_trusted(root, own) && is_trusted(root, root));
        assert!(!is_trusted(other, own) && !is_trusted(own, root));
    }

    /// A process of a user that does this with the socket `s`, whose path is its argument.
    fn python_of(user: u32, does: &str, path: &Path) -> Option<Child> {
        let script = format!("import socket, sys; s = socket.socket(socket.AF_UNIX); {does}");
        let child = std::process::Command::new("python3")
            .args(["-c", &script])
            .arg(path)
            .uid(user)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        if child.is_err() {
            eprintln!("not checked: there is no python3 to run as another user");
        }
        child.ok()
    }

    /// A process of another user connects to this one's socket, as far as the file's mode lets it.
    #[test]
    fn a_process_of_another_user_is_refused() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not checked: only the superuser can start a process of another user");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.sock");
            let listener = listen(&path).unwrap();
            for (path, mode) in [(folder.path(), 0o755), (path.as_path(), 0o666)] {
                std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
            }
            for (user, is_refused) in [(65_534, true), (0, false)] {
                let connect = "s.connect(sys.argv[1]); s.recv(1)";
                let Some(mut child) = python_of(user, connect, &path) else { return };
                let stream = listener.accept().await.unwrap();
                assert_eq!(check_peer(&stream).is_err(), is_refused, "user {user}");
                drop(stream);
                child.wait().unwrap();
            }
        });
    }

    /// The superuser asks a server of the user whose the folder is, and none of anybody else.
    #[test]
    fn a_server_is_of_the_folders_owner() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not checked: only the superuser can start a process of another user");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.sock");
            std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
            let serve = "s.bind(sys.argv[1]); s.listen(); print(flush=True); sys.stdin.read()";
            let Some(mut child) = python_of(65_534, serve, &path) else { return };
            let mut ready = [0; 1];
            child.stdout.take().unwrap().read_exact(&mut ready).unwrap();
            for (owner, is_refused) in [(65_534, false), (65_533, true), (0, true)] {
                std::os::unix::fs::chown(folder.path(), Some(owner), None).unwrap();
                let stream = UnixStream::connect(&path).await.unwrap();
                let checked = check_server(&stream, &path);
                assert_eq!(checked.is_err(), is_refused, "owner {owner}");
            }
            drop(child.stdin.take());
            child.wait().unwrap();
        });
    }

    #[test]
    fn a_socket_that_is_in_use_is_not_taken_over() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.sock");
            let listener = listen(&path).unwrap();
            let error = listen(&path).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            let _connected = UnixStream::connect(&path).await.unwrap();
            listener.accept().await.unwrap();
            drop(listener);
            assert!(!path.exists());
            listen(&path).unwrap();
        });
    }

    #[test]
    fn a_file_that_took_the_sockets_place_is_not_removed() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("store.sock");
            let listener = listen(&path).unwrap();
            let other = folder.path().join("other");
            std::fs::write(&other, "of someone else").unwrap();
            std::fs::rename(&other, &path).unwrap();
            drop(listener);
            assert!(path.exists());
        });
    }
}
