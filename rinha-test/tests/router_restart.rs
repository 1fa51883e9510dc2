//! A rolling restart: one API after the other is told to end and started again while payments flow,
//! and no client notices.

#![allow(clippy::unwrap_used)]

mod live;
mod support;

use std::sync::Arc;
use std::time::Duration;

use live::Live;
use rinha_test::load::payments::Payments;
use rinha_test::load::{LoadError, Measured, Meter, Shape, Traffic, Users, drive};
use support::wait_for;

/// Puts a load on while both APIs are restarted, and gives what it saw.
fn load_while_restarting(live: &Live, shape: Shape) -> Measured {
    let meter = Arc::new(Meter::start());
    let traffic = Traffic {
        payments: Payments::new(7, None),
        timeout: Duration::from_secs(10),
        duplicates: 0.0,
        in_pieces: 0.0,
    };
    let authority = format!("127.0.0.1:{}", live.port());
    let stop = Arc::default();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<(), LoadError> {
            drive(shape, traffic, &authority, &meter, &stop)
        });
        for api in ["api-1", "api-2"] {
            let before = meter.counts().accepted;
            wait_for("a hundred payments more", || {
                (meter.counts().accepted > before + 100).then_some(())
            });
            live.system().restart(api).unwrap();
            live.wait_until_it_answers();
        }
        assert!(!load.is_finished(), "the load was over before the restarts were");
        load.join().unwrap().unwrap();
    });
    meter.measured()
}

fn check(measured: &Measured, live: &Live) {
    let counts = measured.counts;
    assert_eq!(counts.failed(), 0, "{counts:?}");
    assert!(counts.reconnections > 0, "nobody was told to connect again");
    live.wait_settled(measured.accepted());
    assert_eq!(live.agreed_books().len() as u64, measured.accepted());
}

#[test]
fn no_request_of_a_busy_client_fails() {
    let live = Live::start();
    let shape =
        Shape::Rate { per_second: 1000.0, duration: Duration::from_secs(10), connections: 32 };
    check(&load_while_restarting(&live, shape), &live);
}

#[test]
fn no_request_of_a_user_who_pauses_fails() {
    let live = Live::start();
    let shape = Shape::Users(Users {
        from: 200,
        to: 200,
        ramp: Duration::ZERO,
        duration: Duration::from_secs(10),
        pause: Duration::from_secs(1),
        period: Duration::ZERO,
        each: None,
    });
    check(&load_while_restarting(&live, shape), &live);
}
