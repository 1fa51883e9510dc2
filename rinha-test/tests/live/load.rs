//! Clients that post one payment after the other until they are told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::connection::Connection;
use super::payment;
use crate::support::wait_for;

/// Clients at work.
pub struct Load {
    port: u16,
    next: Arc<AtomicU32>,
    accepted_count: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Posted>>,
}

/// What became of the payments of a load.
#[derive(Default, Debug)]
pub struct Posted {
    /// Payments; their numbers are those from 0.
    pub count: u32,
    /// The numbers of those that got no answer.
    pub unanswered: Vec<u32>,
    /// The numbers of those that were answered with 503.
    pub refused: Vec<u32>,
}

impl Load {
    /// Starts this many clients with a connection each.
    pub fn start(port: u16, clients: usize) -> Self {
        let next = Arc::new(AtomicU32::new(0));
        let accepted_count = Arc::new(AtomicU32::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients)
            .map(|_| {
                let (next, accepted, stop) =
                    (Arc::clone(&next), Arc::clone(&accepted_count), Arc::clone(&stop));
                std::thread::spawn(move || post_until(&stop, port, &next, &accepted))
            })
            .collect();
        Self { port, next, accepted_count, stop, clients }
    }

    /// Waits until this many more payments were accepted.
    pub fn wait_for_more(&self, count: u32) {
        let goal = self.accepted_count.load(Ordering::Relaxed) + count;
        wait_for("accepted payments", || {
            (self.accepted_count.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Ends the clients.
    pub fn stop(self) -> Posted {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Posted::default();
        for client in self.clients {
            let posted = client.join().unwrap();
            all.unanswered.extend(posted.unanswered);
            all.refused.extend(posted.refused);
        }
        all.count = self.next.load(Ordering::Relaxed);
        all
    }

    /// Ends the clients, and posts once more what was not accepted, as a client would. All payments
    /// are accepted then.
    pub fn stop_and_repeat(self) -> Posted {
        let port = self.port;
        let posted = self.stop();
        let mut connection = Connection::open(port);
        for &number in posted.unanswered.iter().chain(&posted.refused) {
            assert_eq!(connection.post("/payments", &payment(number)).status, 202);
        }
        posted
    }
}

fn post_until(
    stop: &AtomicBool,
    port: u16,
    next: &AtomicU32,
    accepted_count: &AtomicU32,
) -> Posted {
    let mut posted = Posted::default();
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let Some(open) = connection.as_mut() else {
            // While the balancer is away there is nobody to post to.
            match Connection::try_open(port) {
                Ok(opened) => connection = Some(opened),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
            continue;
        };
        let number = next.fetch_add(1, Ordering::Relaxed);
        match open.try_post("/payments", &payment(number)) {
            Ok(answer) if answer.status == 202 => {
                accepted_count.fetch_add(1, Ordering::Relaxed);
                if answer.header("connection") == Some("close") {
                    connection = None;
                }
            }
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{answer:?}");
                posted.refused.push(number);
                connection = None;
            }
            Err(_) => {
                posted.unanswered.push(number);
                connection = None;
            }
        }
    }
    posted
}
