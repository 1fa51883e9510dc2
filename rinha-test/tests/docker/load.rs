//! Load on the containers for as long as something is done to them, and the judgement of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ledger::Processor;
use ledger::clock::Monotonic;
use rinha_test::audit::compare::{Books, by_id};
use rinha_test::audit::settle::Bookkeepers;
use rinha_test::books::BooksError;
use rinha_test::load::meter::Counts;
use rinha_test::load::payments::Payments;
use rinha_test::load::{LoadError, Measured, Meter, Shape, Traffic, drive};

use super::{Containers, PATIENCE, wait_for};

/// The load is put on in slices of this length, one after the other until it may end. A slice is
/// never broken off, so that what became of each payment is known.
const SLICE: Duration = Duration::from_secs(2);

/// How long an answer may take, and a connection be tried for.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How often the books are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Payments that follow from a seed, and what became of them.
pub struct Slice {
    payments: Payments,
    measured: Measured,
}

/// A load that is over.
pub struct Loads(Vec<Slice>);

/// A load that goes on.
pub struct Going<'a>(&'a Mutex<Vec<Arc<Meter>>>);

impl Going<'_> {
    /// Waits until this many more payments were accepted.
    pub fn wait_for_more(&self, count: u64) {
        let accepted = || -> u64 { self.0.lock().unwrap().iter().map(|m| m.accepted()).sum() };
        let before = accepted();
        let come = || (accepted() >= before + count).then_some(());
        wait_for(&format!("{count} more payments to be accepted"), come);
    }
}

/// Ends the load, also where what is done meanwhile panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn traffic(seed: u64) -> Traffic {
    let payments = Payments::new(seed, None);
    Traffic { payments, timeout: TIMEOUT, duplicates: 0.0, in_pieces: 0.0 }
}

fn put_on(authority: &str, seed: u64, shape: Shape) -> Loads {
    let (traffic, meter) = (traffic(seed), Arc::new(Meter::start()));
    drive(shape, traffic, authority, &meter, &Arc::default()).unwrap();
    Loads(vec![Slice { payments: traffic.payments, measured: meter.measured() }])
}

impl Containers {
    /// Puts a load on once. The same seed is the same payments again.
    pub fn load(&self, seed: u64, shape: Shape) -> Loads {
        put_on(&self.authority(), seed, shape)
    }

    /// Puts the same load on both machines at once, and gives what became of it on each.
    pub fn load_both(&self, seed: u64, shape: Shape) -> [Loads; 2] {
        let (first, second) = (self.authority(), self.second_authority());
        std::thread::scope(|scope| {
            let first = scope.spawn(move || put_on(&first, seed, shape));
            let second = put_on(&second, seed, shape);
            [first.join().unwrap(), second]
        })
    }

    /// Puts so many payments per second on while something is done.
    pub fn load_while(&self, per_second: f64, connections: u16, act: impl FnOnce(&Going)) -> Loads {
        let (meters, is_over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
        let shape = Shape::Rate { per_second, duration: SLICE, connections };
        let put_on = || -> Result<Loads, LoadError> {
            let mut slices = Vec::new();
            for seed in 1.. {
                let meter = Arc::new(Meter::start());
                meters.lock().unwrap().push(Arc::clone(&meter));
                let traffic = traffic(seed);
                drive(shape, traffic, &self.authority(), &meter, &Arc::default())?;
                slices.push(Slice { payments: traffic.payments, measured: meter.measured() });
                if is_over.load(Ordering::Relaxed) {
                    break;
                }
            }
            Ok(Loads(slices))
        };
        std::thread::scope(|scope| {
            let load = scope.spawn(put_on);
            {
                let _end = End(&is_over);
                act(&Going(&meters));
            }
            load.join().unwrap().unwrap()
        })
    }

    /// Waits until every accepted payment is recorded and all books agree. At no moment may one be
    /// recorded twice, with another amount, or though it was refused.
    pub fn demand_right_books(&self, loads: &Loads) {
        demand_right(&self.bookkeepers(), loads);
    }

    /// The same of both machines, which must have settled so many payments together, as each of them says.
    pub fn demand_right_books_of_both(&self, loads: &[Loads; 2], settled: u64) {
        for bookkeepers in [self.bookkeepers(), self.second_bookkeepers()] {
            for load in loads {
                demand_right(&bookkeepers, load);
            }
            assert_eq!(bookkeepers.read().unwrap().settled(), settled);
        }
    }
}

fn demand_right(bookkeepers: &Bookkeepers, loads: &Loads) {
    let clock = Monotonic::start();
    let mut last = None;
    loop {
        let seen = look(bookkeepers, loads);
        match &seen {
            // Seen twice alike, or something may still be on its way.
            Ok((books, 0)) if books.are_equal() && last == Some(*books) => return,
            Ok((books, 0)) if books.are_equal() => last = Some(*books),
            _ => last = None,
        }
        assert!(clock.elapsed() < PATIENCE, "the books, and how many are lost: {seen:?}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// Reads all books, and counts the accepted payments that are recorded nowhere so far.
fn look(bookkeepers: &Bookkeepers, loads: &Loads) -> Result<(Books, u64), BooksError> {
    let books = bookkeepers.read()?;
    let [default, fallback] = Processor::ALL.map(|p| bookkeepers.processors[p.index()].books());
    let (default, fallback) = default?.zip(fallback?).expect("the simulators list their payments");
    let mut lost = 0;
    for Slice { payments, measured } in &loads.0 {
        let found = by_id(payments, &measured.outcomes, [&default, &fallback]);
        lost += found.lost;
        let wrong = found.twice + found.altered + found.unwanted;
        assert_eq!(wrong, 0, "{found:?}");
    }
    Ok((books, lost))
}

impl Loads {
    /// What became of the requests.
    pub fn counts(&self) -> Vec<Counts> {
        self.0.iter().map(|slice| slice.measured.counts).collect()
    }

    /// Payments that were accepted.
    pub fn accepted(&self) -> u64 {
        self.0.iter().map(|slice| slice.measured.accepted()).sum()
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.counts().iter().map(Counts::failed).sum()
    }

    /// Connections that had to be made again.
    pub fn reconnections(&self) -> u64 {
        self.counts().iter().map(|counts| counts.reconnections).sum()
    }
}
