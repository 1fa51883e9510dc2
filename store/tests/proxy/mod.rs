//! A line to the database that is cut at the worst moments: around a COMMIT.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// How the statements of a batch begin and end.
const COPY: &[u8] = b"COPY payments";
const COMMIT: &[u8] = b"COMMIT\0";

/// The line. Of the commits of batches the first is lost on its way there, the second carried out and its
/// answer lost, the third goes well, and so on.
pub struct Proxy {
    pub port: u16,
    commits: Arc<AtomicUsize>,
}

impl Proxy {
    /// A line to a database on this port, for as long as the test runs.
    pub fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let commits = Arc::new(AtomicUsize::new(0));
        let proxy = Self { port: listener.local_addr().unwrap().port(), commits };
        let commits = Arc::clone(&proxy.commits);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                connect(&client.unwrap(), &server, &commits);
            }
        });
        proxy
    }

    /// How many commits of batches came by.
    pub fn commits_count(&self) -> usize {
        self.commits.load(Ordering::Relaxed)
    }
}

fn connect(client: &TcpStream, server: &TcpStream, commits: &Arc<AtomicUsize>) {
    let is_mute = Arc::new(AtomicBool::new(false));
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (commits, mute) = (Arc::clone(commits), Arc::clone(&is_mute));
    std::thread::spawn(move || {
        let mut copied = false;
        pump(&mut from_client, &mut to_server, |bytes| {
            copied |= contains(bytes, COPY);
            if !copied || !contains(bytes, COMMIT) {
                return true;
            }
            copied = false;
            match commits.fetch_add(1, Ordering::Relaxed) % 3 {
                0 => return false,
                1 => mute.store(true, Ordering::Relaxed),
                _ => {}
            }
            true
        });
    });
    let (mut from_server, mut to_client) =
        (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || {
        pump(&mut from_server, &mut to_client, |_| !is_mute.load(Ordering::Relaxed));
    });
}

/// Hands on what `passes`, and cuts the line at what does not, or where one end closes.
fn pump(from: &mut TcpStream, to: &mut TcpStream, mut passes: impl FnMut(&[u8]) -> bool) {
    let mut chunk = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if !passes(&chunk[..count]) || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    // The other direction may have done so before.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
