//! A line to the database that is cut at the worst moments: around a COMMIT.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::postgres::wait_for;

/// How the statements of a batch and of a purge begin, and how both end.
const COPY: &[u8] = b"COPY payments";
const TRUNCATE: &[u8] = b"TRUNCATE payments";
const COMMIT: &[u8] = b"COMMIT\0";

/// What becomes of a commit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is lost on its way to the database.
    Lost,
    /// It is carried out, and its answer lost.
    AnswerLost,
    /// The line is lost, and the database gets it when the test says so.
    Late,
    /// It goes well.
    Well,
}

/// The line.
pub struct Proxy {
    pub port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    batches: AtomicUsize,
    purges: AtomicUsize,
    /// Whether the database gets what is late.
    is_released: AtomicBool,
}

/// What becomes of one commit after the other, and then from the first again.
#[derive(Clone, Copy)]
pub struct Fates {
    pub batches: &'static [Fate],
    pub purges: &'static [Fate],
}

impl Proxy {
    /// A line to a database on this port, for as long as the test runs.
    pub fn to(port: u16, fates: Fates) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Self { port: listener.local_addr().unwrap().port(), shared: Arc::default() };
        let shared = Arc::clone(&proxy.shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                connect(&client.unwrap(), &server, fates, &shared);
            }
        });
        proxy
    }

    /// How many commits of batches came by.
    pub fn batches_count(&self) -> usize {
        self.shared.batches.load(Ordering::Relaxed)
    }

    /// How many commits of purges came by.
    pub fn purges_count(&self) -> usize {
        self.shared.purges.load(Ordering::Relaxed)
    }

    /// Lets the database have what is late.
    pub fn release(&self) {
        self.shared.is_released.store(true, Ordering::Relaxed);
    }
}

fn connect(client: &TcpStream, server: &TcpStream, fates: Fates, shared: &Arc<Shared>) {
    let is_mute = Arc::new(AtomicBool::new(false));
    let (mut from_client, mut to_server) =
        (client.try_clone().unwrap(), server.try_clone().unwrap());
    let (shared, mute) = (Arc::clone(shared), Arc::clone(&is_mute));
    std::thread::spawn(move || {
        let (mut copied, mut truncated) = (false, false);
        let client = from_client.try_clone().unwrap();
        pump(&mut from_client, &mut to_server, |bytes| {
            copied |= contains(bytes, COPY);
            truncated |= contains(bytes, TRUNCATE);
            if !(copied || truncated) || !contains(bytes, COMMIT) {
                return true;
            }
            let (fates, count) = if copied {
                (fates.batches, &shared.batches)
            } else {
                (fates.purges, &shared.purges)
            };
            (copied, truncated) = (false, false);
            match fates[count.fetch_add(1, Ordering::Relaxed) % fates.len()] {
                Fate::Lost => return false,
                Fate::AnswerLost => mute.store(true, Ordering::Relaxed),
                Fate::Late => {
                    client.shutdown(Shutdown::Both).unwrap();
                    wait_for("a release", || {
                        shared.is_released.load(Ordering::Relaxed).then_some(())
                    });
                }
                Fate::Well => {}
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
        if !passes(&chunk[..count]) {
            break;
        }
        // Who does not listen any more is missed by the other direction.
        let _ = to.write_all(&chunk[..count]);
    }
    // The other direction may have done so before.
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}
