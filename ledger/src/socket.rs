//! Unix sockets that only processes of the same user can use, and TCP connections that end well.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use tokio::time::timeout;

/// Only the owner may connect.
const SOCKET_MODE: u32 = 0o600;

/// Connections that wait to be accepted.
const LISTEN_BACKLOG: i32 = 64;

/// Listens for streams at the path. A socket that an earlier process left there is replaced, so the
/// caller must hold the lock of whatever makes it the only one.
///
/// # Errors
/// The path is too long for a socket, or cannot be bound.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind_privately(&socket, path)?;
    rustix::net::listen(&socket, LISTEN_BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// Binds a socket to the path, in place of one that an earlier process left there.
pub(crate) fn bind_privately(socket: impl AsFd, path: &Path) -> io::Result<()> {
    let address = socket_address(path)?;
    remove_stale_socket(path)?;
    rustix::net::bind(socket, &address)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(SOCKET_MODE))
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
pub fn check_peer(socket: BorrowedFd<'_>) -> io::Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(socket)?;
    let own = rustix::process::geteuid();
    if peer.uid == own || peer.uid.is_root() {
        return Ok(());
    }
    let what = format!("a process of user {} may not use this socket", peer.uid.as_raw());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
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
}
