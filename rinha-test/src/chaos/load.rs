//! The load of a run: clients that post new payments, old ones again, the same one to both APIs at
//! the same moment, and an old one with another amount; a bounded number of them in a second.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, mem};

use ledger::{Cents, CorrelationId};

use super::client::Client;
use super::posted::{Attempt, Posted, Told};
use crate::faults::random::Random;
use crate::load::payments::Payments;

/// Clients at a time.
pub const CLIENTS_COUNT: u64 = 8;

/// The pause of a client between two requests, in milliseconds, at least and at most.
const PAUSE_MS: (u64, u64) = (10, 35);

/// Where the router takes payments.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// The balancer.
    pub balancer: u16,
    /// The APIs themselves.
    pub apis: [u16; 2],
}

/// The record of everything that was posted, which all clients share.
pub type SharedPosted = Arc<Mutex<Posted>>;

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts the clients. What they do follows from `seed`, as far as what they meet allows.
    ///
    /// # Errors
    /// There is no thread for one.
    pub fn start(
        ports: Ports,
        seed: u64,
        payments: Payments,
        next: &Arc<AtomicU32>,
        posted: &SharedPosted,
    ) -> io::Result<Self> {
        let mut load = Self { stop: Arc::default(), clients: Vec::new() };
        for number in 0..CLIENTS_COUNT {
            let mut worker = Worker {
                random: Random::new(seed ^ number.rotate_left(32)),
                balancer: Client::new(ports.balancer),
                apis: ports.apis.map(Client::new),
                payments,
                next: Arc::clone(next),
                posted: Arc::clone(posted),
            };
            let stop = Arc::clone(&load.stop);
            let client = std::thread::Builder::new().name(format!("client {number}"));
            load.clients.push(client.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    worker.act();
                }
            })?);
        }
        Ok(load)
    }

    /// Ends the clients; each waits for its last answer.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in mem::take(&mut self.clients) {
            // A client that panicked has said so; what it posted is in the shared record.
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

struct Worker {
    random: Random,
    balancer: Client,
    apis: [Client; 2],
    payments: Payments,
    next: Arc<AtomicU32>,
    posted: SharedPosted,
}

impl Worker {
    fn act(&mut self) {
        let (start, end) = PAUSE_MS;
        std::thread::sleep(Duration::from_millis(self.random.between(start, end)));
        match self.random.below(20) {
            0..=1 => self.post_earlier(),
            2 => self.post_with_another_amount(),
            3 => {
                let (id, amount) = self.new_payment();
                self.post_to_both(id, [amount, amount]);
            }
            4 => {
                let (id, amount) = self.new_payment();
                self.post_to_both(id, [amount, another(amount)]);
            }
            _ => {
                let (id, amount) = self.new_payment();
                let told = self.balancer.post(id, amount);
                self.note(id, amount, told);
            }
        }
    }

    fn new_payment(&mut self) -> (CorrelationId, Cents) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (id, amount) = (self.payments.id(number), self.payments.amount(number));
        self.lock().announce(id, amount);
        (id, amount)
    }

    fn post_earlier(&mut self) {
        let choice = self.random.draw();
        let Some((id, amount)) = self.lock().earlier(choice) else { return };
        let told = self.balancer.post(id, amount);
        self.note(id, amount, told);
    }

    fn post_with_another_amount(&mut self) {
        let choice = self.random.draw();
        let Some((id, amount)) = self.lock().earlier(choice) else { return };
        let amount = another(amount);
        let told = self.balancer.post(id, amount);
        self.note(id, amount, told);
    }

    /// Sends a payment to both APIs before either has answered.
    fn post_to_both(&mut self, id: CorrelationId, amounts: [Cents; 2]) {
        let sent: Vec<_> = self
            .apis
            .iter_mut()
            .zip(amounts)
            .map(|(api, amount)| api.send_payment(id, amount).is_ok())
            .collect();
        for place in [0, 1] {
            let told = if sent[place] { self.apis[place].told() } else { Told::Nothing };
            self.note(id, amounts[place], told);
        }
    }

    fn note(&self, id: CorrelationId, amount: Cents, told: Told) {
        self.lock().add(id, Attempt { amount, told });
    }

    fn lock(&self) -> MutexGuard<'_, Posted> {
        lock(&self.posted)
    }
}

/// An amount that is another one, and a valid one.
fn another(amount: Cents) -> Cents {
    Cents::new(amount.get() + 1)
}

/// Looks at what was posted. A client that panicked has left it whole.
pub fn lock(posted: &SharedPosted) -> MutexGuard<'_, Posted> {
    posted.lock().unwrap_or_else(PoisonError::into_inner)
}
