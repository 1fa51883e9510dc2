//! Whether the ports that the system needs are free.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};

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

#[cfg(test)]
mod tests {
    use super::*;

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
