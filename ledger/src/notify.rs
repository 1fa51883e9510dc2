//! What a daemon tells the service manager that started it: that it is ready, and that it ends.
//!
//! It is the protocol of systemd's `sd_notify(3)`: a datagram of assignments to the socket that
//! `NOTIFY_SOCKET` names. Without that variable nobody wants to know, and nothing is done. A unit with
//! `Type=notify` counts as started once its daemon is ready, so what is ordered after it finds it
//! answering.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The variable that names the socket.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// Says that the daemon does its work from now on, and in a few words what that is.
pub fn ready(status: &str) {
    tell(&format!("READY=1\nSTATUS={status}"));
}

/// Says in a few words what the daemon does before it is ready.
pub fn starting(status: &str) {
    tell(&format!("STATUS={status}"));
}

/// Says that the daemon was told to end, and does.
pub fn stopping() {
    tell("STOPPING=1\nSTATUS=ending");
}

fn tell(message: &str) {
    let Some(socket) = std::env::var_os(SOCKET_VARIABLE) else { return };
    if let Err(error) = send(&socket, message) {
        tracing::warn!(
            "the service manager cannot be told how this process stands: {}: {error}",
            socket.display()
        );
    }
}

/// Sends a message to the socket of this name; one that begins with `@` is an abstract one.
fn send(socket: &OsStr, message: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    // A manager that does not read must not hold a daemon up.
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(manager: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let count = manager.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..count].to_vec()).unwrap()
    }

    #[test]
    fn a_message_reaches_a_socket_at_a_path_and_an_abstract_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manager");
        let manager = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        assert_eq!(heard(&manager), "READY=1");

        let name = format!("ledger-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        send(OsStr::new(&format!("@{name}")), "STOPPING=1").unwrap();
        assert_eq!(heard(&manager), "STOPPING=1");
    }

    #[test]
    fn a_manager_that_is_gone_or_does_not_read_is_an_error_and_no_wait() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("manager");
        let gone = send(path.as_os_str(), "READY=1").unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        let _manager = UnixDatagram::bind(&path).unwrap();
        let full = std::iter::repeat_with(|| send(path.as_os_str(), "READY=1"));
        let error = full.take(100_000).find_map(Result::err).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }
}
