//! The router at the edge of its limits: what is just allowed works, and one more is told so.

#![allow(clippy::unwrap_used)]

mod live;
mod support;

use std::io::ErrorKind;
use std::time::Duration;

use ledger::Processor;
use ledger::clock::Monotonic;
use live::connection::{Connection, post};
use live::{Live, id, ids, payment};
use support::{PATIENCE, wait_for};

#[test]
fn a_head_of_just_the_limit_is_read_and_a_longer_one_is_431_without_a_body() {
    const HEAD_BYTES_MAX: usize = 10_000;
    let live = Live::with_api(&["--head-bytes-max=10000"]);
    let request = |bytes: usize| {
        let without = "GET /health HTTP/1.1\r\nhost: x\r\nx: \r\n\r\n".len();
        format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(bytes - without))
    };
    assert_eq!(live.connect().ask(request(HEAD_BYTES_MAX)).status, 200);
    // As soon as that much is there without its end, and whatever the size of the pieces.
    for bytes in
        [request(HEAD_BYTES_MAX + 1)[..HEAD_BYTES_MAX].to_owned(), request(20 * HEAD_BYTES_MAX)]
    {
        let mut connection = live.connect();
        let answer = connection.ask(bytes);
        assert_eq!((answer.status, answer.body.as_str()), (431, ""));
        assert!(connection.is_at_end());
    }
}

#[test]
fn no_more_connections_are_served_than_allowed_and_one_that_ends_makes_room() {
    let live = Live::with_api(&["--connections-max=3"]);
    // Those that asked whether the system is up may be just ending.
    let mut connections: Vec<Connection> = Vec::new();
    wait_for("six connections", || {
        let mut connection = live.connect();
        if connection.get("/health").status == 200 {
            connections.push(connection);
        }
        (connections.len() == 6).then_some(())
    });
    for _ in 0..3 {
        let mut refused = live.connect();
        let answer = refused.get("/health");
        assert_eq!(answer.status, 503);
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert!(!answer.error().is_empty());
        assert!(refused.is_at_end());
    }
    // Nobody who was there before is worse off.
    for (number, connection) in (0..).zip(&mut connections) {
        assert_eq!(connection.post("/payments", &payment(number)).status, 202);
    }
    connections.pop();
    wait_for("room", || (live.get("/health").status == 200).then_some(()));
}

#[test]
fn clients_that_send_a_byte_now_and_then_are_ended_and_hold_up_nobody() {
    const COUNT: usize = 100;
    /// Long enough for each byte to be a read of its own, and far below the limit.
    const PAUSE: Duration = Duration::from_millis(100);
    let live = Live::with_api(&["--request-timeout-ms=1000"]);
    let request = post("/payments", &payment(0)).into_bytes();
    let mut slow: Vec<_> = (0..COUNT).map(|_| live.connect()).collect();
    let mut quick = live.connect();
    let clock = Monotonic::start();
    let mut ended_count = 0;
    for (number, byte) in (1..).zip(&request) {
        slow.retain_mut(|connection| match connection.try_send([*byte]) {
            Ok(()) => true,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset));
                ended_count += 1;
                false
            }
        });
        if slow.is_empty() {
            break;
        }
        assert_eq!(quick.post("/payments", &payment(number)).status, 202);
        assert!(clock.elapsed() < PATIENCE);
        std::thread::sleep(PAUSE);
    }
    // No request was ever whole, and each byte came long before the limit.
    assert_eq!((slow.len(), ended_count), (0, COUNT));
    assert!(!live.recorded(Processor::Default).contains_key(&id(0)));
}

#[test]
fn no_more_calls_are_in_flight_than_allowed() {
    const IN_FLIGHT_MAX: usize = 3;
    const COUNT: u32 = 18;
    const DELAY_MS: i64 = 400;
    let live = Live::with_api(&["--in-flight-max=3", "--slow-ms=60000", "--patience-ms=600000"]);
    live.delay(Processor::Default, Duration::from_millis(DELAY_MS.cast_unsigned()));
    let mut connection = live.connect();
    let requests: String = (0..COUNT).map(|number| post("/payments", &payment(number))).collect();
    connection.send(requests);
    for _ in 0..COUNT {
        assert_eq!(connection.answer().status, 202);
    }
    live.wait_settled(u64::from(COUNT));
    assert_eq!(live.agreed_books(), ids(COUNT));
    // A call is in flight from its `requestedAt` on, for as long as the processor takes at least.
    let times: Vec<_> =
        live.recorded(Processor::Default).values().map(|recorded| recorded.requested_at).collect();
    let in_flight_at = |at| {
        let is_in_flight =
            |since: &&_| (0..DELAY_MS).contains(&ledger::TimestampMs::since(at, **since));
        times.iter().filter(is_in_flight).count()
    };
    let most = times.iter().map(|at| in_flight_at(*at)).max();
    assert_eq!(most, Some(IN_FLIGHT_MAX), "{times:?}");
}
