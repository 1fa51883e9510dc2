//! Binds the addresses and starts the HTTP server.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use may_minihttp::HttpServer;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};

use crate::controls::TokenError;
use crate::limit::Limit;
use crate::service::{Processor, Service};
use crate::settings::Settings;

/// The stack of a connection's coroutine, in machine words: 64 KiB. Only what is touched costs
/// memory. Measured, an ordinary request touches 6 KiB, and JSON that is nested as deeply as a body
/// may be 22 KiB in a debug build, 11 KiB in a release build.
const STACK_WORDS: usize = 8 * 1024;

/// Why a processor cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another process listens there.
    #[error("{0} is already in use; listen somewhere else with --listen")]
    AddressInUse(SocketAddr),
    /// The operating system refuses the address.
    #[error("cannot listen on {address}: {cause}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        cause: io::Error,
    },
    /// A token that no header can carry.
    #[error("--token: {0}")]
    Token(#[from] TokenError),
}

/// A processor that serves requests until the process ends: the HTTP server knows no other end.
#[derive(Debug)]
pub struct Running {
    addresses: Vec<SocketAddr>,
}

impl Running {
    /// Where it listens, with real ports in place of 0, in the order of the settings.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

/// Starts a processor with empty books.
///
/// The number of threads and the size of stacks hold for the whole process: the first processor in
/// it decides.
pub fn run(settings: &Settings) -> Result<Running, StartError> {
    may::config()
        .set_workers(usize::from(settings.threads))
        .set_stack_size(STACK_WORDS)
        // Or every processor on the machine would sit on its first core.
        .set_worker_pin(false);
    let processor = Arc::new(Processor::new(
        settings.token.parse()?,
        settings.fee,
        settings.health_window_ms,
        Limit::new(count(settings.running_max), count(settings.waiting_max)),
    ));
    let addresses = settings
        .listen
        .iter()
        .map(|address| serve(*address, Service::new(Arc::clone(&processor))))
        .collect::<Result<_, _>>()?;
    Ok(Running { addresses })
}

/// Serves on an address, and returns the one that it became.
///
/// The HTTP server binds with `SO_REUSEPORT`, by which two processors could share an address
/// without a word, and it does not tell which port it got. So the address is first taken in the
/// ordinary way, which fails where anyone listens there, and is shared with the HTTP server alone.
/// The socket that takes it does not listen itself: a client that it let in would be hung up on.
fn serve(address: SocketAddr, service: Service) -> Result<SocketAddr, StartError> {
    let failed = |cause: io::Error| match cause.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse(address),
        _ => StartError::Listen { address, cause },
    };
    let (claim, address) = claim(address).map_err(failed)?;
    HttpServer(service).start(address).map_err(failed)?;
    drop(claim);
    Ok(address)
}

/// Takes an address, and lets the HTTP server bind to it as well. Gives the address with its port.
fn claim(address: SocketAddr) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let claim = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Or connections of a processor that has just ended would keep its successor away.
    sockopt::set_socket_reuseaddr(&claim, true)?;
    net::bind(&claim, &address)?;
    let address = SocketAddr::try_from(net::getsockname(&claim)?)?;
    sockopt::set_socket_reuseport(&claim, true)?;
    Ok((claim, address))
}

fn count(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
