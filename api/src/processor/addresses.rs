//! The addresses behind a processor's name. The operating system resolves names on threads that cannot
//! be stopped, so there is one resolution at a time, and its result serves many connections.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;

use ledger::clock::Monotonic;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use super::target::Target;

/// How long addresses are used before the name is resolved again.
const FRESH_MS: u64 = 30_000;

/// A resolution that is under way.
type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>>>>;

/// The addresses of one processor.
pub struct Addresses {
    clock: Monotonic,
    resolve: Box<dyn Fn() -> Resolving>,
    /// The addresses, and when they are no longer used.
    known: RefCell<Option<(Rc<[SocketAddr]>, u64)>>,
    resolving: Cell<bool>,
    /// Why the last resolution failed.
    failure: RefCell<Option<(io::ErrorKind, String)>>,
    resolved: Notify,
}

impl Addresses {
    /// The addresses of this target, as the operating system knows them.
    pub fn of(target: &Target, clock: Monotonic) -> Rc<Self> {
        let (host, port) = (target.host.clone(), target.port);
        let addresses = Self::new(clock, move || {
            let host = host.clone();
            Box::pin(
                async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) },
            )
        });
        if let Ok(address) = target.host.parse::<IpAddr>() {
            let only = Rc::new([SocketAddr::new(address, target.port)]);
            *addresses.known.borrow_mut() = Some((only, u64::MAX));
        }
        Rc::new(addresses)
    }

    fn new(clock: Monotonic, resolve: impl Fn() -> Resolving + 'static) -> Self {
        Self {
            clock,
            resolve: Box::new(resolve),
            known: RefCell::new(None),
            resolving: Cell::new(false),
            failure: RefCell::new(None),
            resolved: Notify::new(),
        }
    }

    /// The addresses. A caller that does not wait to the end leaves the resolution to the next one.
    ///
    /// # Errors
    /// The name cannot be resolved.
    pub async fn get(self: &Rc<Self>) -> io::Result<Rc<[SocketAddr]>> {
        if let Some((addresses, until_ms)) = &*self.known.borrow()
            && self.clock.elapsed_ms() < *until_ms
        {
            return Ok(Rc::clone(addresses));
        }
        let resolved = self.resolved.notified();
        if !self.resolving.replace(true) {
            let addresses = Rc::clone(self);
            spawn_local(async move { addresses.resolve().await });
        }
        resolved.await;
        if let Some((kind, why)) = &*self.failure.borrow() {
            return Err(io::Error::new(*kind, why.clone()));
        }
        let known = self.known.borrow();
        known.as_ref().map(|(addresses, _)| Rc::clone(addresses)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the processor's address was just forgotten")
        })
    }

    async fn resolve(&self) {
        let result = (self.resolve)().await;
        self.resolving.set(false);
        match result {
            Ok(addresses) => {
                let until_ms = self.clock.elapsed_ms() + FRESH_MS;
                *self.known.borrow_mut() = Some((addresses.into(), until_ms));
                *self.failure.borrow_mut() = None;
            }
            Err(error) => *self.failure.borrow_mut() = Some((error.kind(), error.to_string())),
        }
        self.resolved.notify_waiters();
    }

    /// Takes in that nobody could be reached at these addresses: the name may mean others by now.
    pub fn forget(&self, failed: &Rc<[SocketAddr]>) {
        let mut known = self.known.borrow_mut();
        let is_known = known.as_ref().is_some_and(|(addresses, until_ms)| {
            Rc::ptr_eq(addresses, failed) && *until_ms != u64::MAX
        });
        if is_known {
            *known = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::{Builder, LocalOptions};
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;

    fn run(test: impl Future<Output = ()>) {
        let options = LocalOptions::default();
        let runtime = Builder::new_current_thread().enable_all().build_local(options).unwrap();
        runtime.block_on(test);
    }

    /// Addresses whose resolutions are counted, and end when the test says so.
    fn counted() -> (Rc<Addresses>, Rc<Cell<usize>>, Rc<Semaphore>) {
        let (count, answers) = (Rc::new(Cell::new(0)), Rc::new(Semaphore::new(0)));
        let (counter, gate) = (Rc::clone(&count), Rc::clone(&answers));
        let addresses = Addresses::new(Monotonic::start(), move || {
            counter.update(|count| count + 1);
            let gate = Rc::clone(&gate);
            Box::pin(async move {
                gate.acquire().await.map_err(io::Error::other)?.forget();
                Ok(vec![SocketAddr::from(([127, 0, 0, 1], 8001))])
            })
        });
        (Rc::new(addresses), count, answers)
    }

    #[test]
    fn many_connections_wait_for_one_resolution() {
        run(async {
            let (addresses, count, answers) = counted();
            let asking: Vec<_> = (0..384)
                .map(|_| {
                    let addresses = Rc::clone(&addresses);
                    spawn_local(async move { addresses.get().await.map(|found| found.len()) })
                })
                .collect();
            tokio::task::yield_now().await;
            answers.add_permits(1);
            for asked in asking {
                assert_eq!(asked.await.unwrap().unwrap(), 1);
            }
            addresses.get().await.unwrap();
            assert_eq!(count.get(), 1);
        });
    }

    #[test]
    fn a_resolution_that_hangs_is_not_begun_again() {
        run(async {
            let (addresses, count, answers) = counted();
            for _ in 0..3 {
                let asked = timeout(Duration::from_millis(5), addresses.get()).await;
                assert!(asked.is_err());
            }
            answers.add_permits(1);
            addresses.get().await.unwrap();
            assert_eq!(count.get(), 1);
        });
    }

    #[test]
    fn addresses_at_which_nobody_is_are_resolved_again_once() {
        run(async {
            let (addresses, count, answers) = counted();
            answers.add_permits(10);
            let failed = addresses.get().await.unwrap();
            addresses.forget(&failed);
            addresses.get().await.unwrap();
            addresses.forget(&failed);
            addresses.get().await.unwrap();
            assert_eq!(count.get(), 2);
        });
    }

    #[test]
    fn an_address_in_digits_is_never_resolved() {
        run(async {
            for text in ["http://127.0.0.1:8001", "http://[::1]:8001"] {
                let addresses = Addresses::of(&text.parse().unwrap(), Monotonic::start());
                let found = addresses.get().await.unwrap();
                addresses.forget(&found);
                assert!(Rc::ptr_eq(&found, &addresses.get().await.unwrap()));
                assert_eq!(found[0].port(), 8001);
            }
        });
    }
}
