//! Whether the ports that the system needs are free.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::ops::Range;

/// Where free ports are looked for: below those that the system gives to outgoing connections.
const FREE_PORTS: Range<u16> = 20_000..32_000;

/// The folder of the locks that stand for ports, among temporary files.
const LOCKS_FOLDER: &str = "payment-router-test-ports";

/// A port that the system needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeededPort {
    /// The port.
    pub port: u16,
    /// What listens there.
    pub user: &'static str,
    /// The option that chooses another.
    pub option: &'static str,
}

/// Why the system cannot have its ports.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// Somebody else listens there.
    #[error(
        "port {port} is in use: {user} cannot listen on 127.0.0.1:{port}. \
         End what listens there, or choose another port with {option}"
    )]
    InUse {
        /// The port.
        port: u16,
        /// What was to listen there.
        user: &'static str,
        /// The option that chooses another.
        option: &'static str,
    },
    /// Two of the system's own processes were given the same port.
    #[error("{first} and {second} are both set to port {port}; they must differ")]
    Same {
        /// The port.
        port: u16,
        /// One option.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// The port cannot be had for another reason.
    #[error("{user} cannot listen on 127.0.0.1:{port} ({option}): {cause}")]
    Refused {
        /// The port.
        port: u16,
        /// What was to listen there.
        user: &'static str,
        /// The option that chooses another.
        option: &'static str,
        /// What the operating system says.
        cause: io::Error,
    },
}

/// Checks that every port is free and no two are the same.
///
/// # Errors
/// The first port that is not.
pub fn check(needed: &[NeededPort]) -> Result<(), PortError> {
    for (i, second) in needed.iter().enumerate() {
        if let Some(first) = needed[..i].iter().find(|first| first.port == second.port) {
            return Err(PortError::Same {
                port: first.port,
                first: first.option,
                second: second.option,
            });
        }
    }
    for &NeededPort { port, user, option } in needed {
        if let Err(cause) = TcpListener::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
            return Err(if cause.kind() == io::ErrorKind::AddrInUse {
                PortError::InUse { port, user, option }
            } else {
                PortError::Refused { port, user, option, cause }
            });
        }
    }
    Ok(())
}

/// Ports that nobody listens on, and that no one else who asks here is given meanwhile.
#[derive(Debug)]
pub struct FreePorts<const COUNT: usize> {
    /// The ports.
    pub ports: [u16; COUNT],
    _locks: Vec<File>,
}

/// Looks for free ports. A lock on a file stands for each: a port that was only looked at could be
/// taken before the process that it is for listens on it.
///
/// # Errors
/// The locks cannot be kept, or not enough ports are free.
pub fn free<const COUNT: usize>() -> io::Result<FreePorts<COUNT>> {
    let folder = std::env::temp_dir().join(LOCKS_FOLDER);
    std::fs::create_dir_all(&folder)?;
    let (mut ports, mut locks) = ([0; COUNT], Vec::new());
    let mut candidates = FREE_PORTS;
    while locks.len() < COUNT {
        let Some(port) = candidates.next() else {
            return Err(io::Error::other("there are not enough free ports"));
        };
        let lock = File::options().create(true).append(true).open(folder.join(port.to_string()))?;
        if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            ports[locks.len()] = port;
            locks.push(lock);
        }
    }
    Ok(FreePorts { ports, _locks: locks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_are_given_to_one_at_a_time() {
        let one = free::<2>().unwrap();
        let other = free::<2>().unwrap();
        assert!(one.ports.iter().all(|port| !other.ports.contains(port)), "{one:?} {other:?}");
        assert_ne!(one.ports[0], one.ports[1]);
    }

    fn needed(port: u16, option: &'static str) -> NeededPort {
        NeededPort { port, user: "the balancer", option }
    }

    #[test]
    fn a_port_in_use_is_named_with_the_option_that_changes_it() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        let error = check(&[needed(port, "--port")]).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} is in use")), "{error}");
        assert!(error.contains("--port"), "{error}");
        drop(holder);
        check(&[needed(port, "--port")]).unwrap();
    }

    #[test]
    fn two_processes_cannot_share_a_port() {
        let error = check(&[needed(9, "--port"), needed(9, "--default-port")]).unwrap_err();
        assert!(matches!(error, PortError::Same { port: 9, .. }), "{error}");
    }
}
