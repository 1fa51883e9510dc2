//! The shapes of load against a server of the test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::connection::Connection;
use super::payments::Payments;
use super::*;

/// What a server of the test does with a connection and the number of its request.
type Answer = dyn Fn(usize) -> &'static [u8] + Send + Sync;

const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

struct Server {
    authority: String,
    requests: Arc<AtomicUsize>,
    /// Reads that brought a part of a request only.
    parts: Arc<AtomicUsize>,
    ids: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Serves with a thread for each connection. An empty answer hangs up.
    fn start(answer: impl Fn(usize) -> &'static [u8] + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let server = Self {
            authority,
            requests: Arc::default(),
            parts: Arc::default(),
            ids: Arc::default(),
        };
        let (requests, parts) = (Arc::clone(&server.requests), Arc::clone(&server.parts));
        let ids = Arc::clone(&server.ids);
        let answer: Arc<Answer> = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (requests, parts) = (Arc::clone(&requests), Arc::clone(&parts));
                let (ids, answer) = (Arc::clone(&ids), Arc::clone(&answer));
                std::thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    while let Some(id) = read_request(&mut stream, &parts) {
                        ids.lock().unwrap().push(id);
                        let answer = answer(requests.fetch_add(1, Ordering::Relaxed));
                        if answer.is_empty() || stream.write_all(answer).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        server
    }

    fn load(&self, shape: Shape, traffic: Traffic) -> (Result<(), LoadError>, Measured) {
        let meter = Arc::new(Meter::start());
        let result = drive(shape, traffic, &self.authority, &meter, &Arc::default());
        (result, meter.measured())
    }
}

/// Reads a request, and gives the id in it.
fn read_request(stream: &mut TcpStream, parts: &AtomicUsize) -> Option<String> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !bytes.ends_with(b"}") {
        if !bytes.is_empty() {
            parts.fetch_add(1, Ordering::Relaxed);
        }
        let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
        bytes.extend_from_slice(&buffer[..count]);
    }
    let text = String::from_utf8(bytes).unwrap();
    assert!(text.starts_with("POST /payments HTTP/1.1\r\n"), "{text}");
    Some(text.split("\"correlationId\":\"").nth(1)?.get(..36)?.to_owned())
}

fn traffic() -> Traffic {
    Traffic {
        payments: Payments::new(1, None),
        timeout: Duration::from_secs(10),
        duplicates: 0.0,
        in_pieces: 0.0,
    }
}

const fn flood(count: u32) -> Shape {
    Shape::Flood { connections: 8, until: Until::Count(count) }
}

#[test]
fn a_flood_posts_each_payment_once() {
    let server = Server::start(|_| ACCEPTED);
    let (result, measured) = server.load(flood(500), traffic());
    result.unwrap();
    assert_eq!(measured.outcomes, [Outcome::Accepted(202); 500]);
    assert_eq!((measured.counts.requested, measured.counts.failed()), (500, 0));
    let mut ids = server.ids.lock().unwrap().clone();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 500);
    assert!(ids.contains(&traffic().payments.id(499).to_string()));
}

#[test]
fn errors_hang_ups_and_closed_connections_are_told_apart() {
    let server = Server::start(|number| match number {
        100 => b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno!",
        200 => b"",
        300 => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        _ => ACCEPTED,
    });
    let (result, measured) = server.load(flood(500), traffic());
    result.unwrap();
    let counts = measured.counts;
    assert_eq!((counts.accepted, counts.refused, counts.broken), (498, 1, 1));
    assert_eq!(counts.reconnections, 2);
    assert_eq!(server.requests.load(Ordering::Relaxed), 500);
    assert!(measured.outcomes.contains(&Outcome::Refused(503)));
    assert!(measured.outcomes.contains(&Outcome::Accepted(200)));
}

#[test]
fn an_answer_that_does_not_come_is_timed_out() {
    let server = Server::start(|number| {
        if number == 5 {
            std::thread::sleep(Duration::from_secs(5));
        }
        ACCEPTED
    });
    let traffic = Traffic { timeout: Duration::from_millis(300), ..traffic() };
    let (result, measured) = server.load(flood(50), traffic);
    result.unwrap();
    assert!(measured.counts.timed_out >= 1, "{:?}", measured.counts);
    assert_eq!(measured.counts.requested, 50);
}

#[test]
fn payments_are_posted_again_and_in_pieces_as_often_as_asked_for() {
    let server = Server::start(|_| ACCEPTED);
    let traffic = Traffic { duplicates: 0.3, in_pieces: 0.2, ..traffic() };
    let (result, measured) = server.load(flood(300), traffic);
    result.unwrap();
    let counts = measured.counts;
    assert_eq!(counts.requested - counts.duplicates, 300);
    assert!((60..260).contains(&counts.duplicates), "{counts:?}");
    assert_eq!(measured.accepted(), 300);
    assert!(server.parts.load(Ordering::Relaxed) > 50);
    assert!(measured.latency_ns.len() < counts.accepted);
    let mut ids = server.ids.lock().unwrap().clone();
    assert_eq!(ids.len() as u64, counts.requested);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 300);
}

#[test]
fn users_post_as_often_as_they_are_told_to() {
    let server = Server::start(|_| ACCEPTED);
    let users = Users {
        from: 1,
        to: 20,
        ramp: Duration::from_millis(200),
        duration: Duration::from_mins(1),
        pause: Duration::from_millis(5),
        period: Duration::from_millis(10),
        each: Some(7),
    };
    let (result, measured) = server.load(Shape::Users(users), traffic());
    result.unwrap();
    assert_eq!(measured.counts.accepted, 140);
    // 200 ms until the last one comes, and six periods from its first payment to its last.
    assert!(measured.elapsed >= Duration::from_millis(260), "{:?}", measured.elapsed);
}

#[test]
fn a_system_that_stands_still_cannot_hide_it_from_an_open_rate() {
    const STILL: Duration = Duration::from_millis(600);
    let stood = Arc::new(Mutex::new(false));
    let server = Server::start(move |number| {
        // Whoever comes now waits for the lock until it is over.
        let mut stood = stood.lock().unwrap();
        if number >= 100 && !*stood {
            *stood = true;
            std::thread::sleep(STILL);
        }
        ACCEPTED
    });
    let shape = Shape::Rate { per_second: 200.0, duration: Duration::from_secs(2), connections: 2 };
    let (result, measured) = server.load(shape, traffic());
    result.unwrap();
    assert_eq!(measured.counts.accepted, 400);
    // Only two requests are under way meanwhile, but 120 are due, and 100 of them 100 ms or more
    // before it is over. (A few less, as the first of them may be the one that is answered last.)
    let waited = measured.latency_ns.count_between(100_000_000, u64::MAX);
    assert!(waited >= 90, "{waited}");
}

#[test]
fn a_rate_is_kept_and_no_moment_left_out() {
    let server = Server::start(|_| ACCEPTED);
    let shape =
        Shape::Rate { per_second: 1000.0, duration: Duration::from_millis(500), connections: 4 };
    let (result, measured) = server.load(shape, traffic());
    result.unwrap();
    assert_eq!(measured.counts.requested, 500);
    assert!(measured.elapsed >= Duration::from_millis(499), "{:?}", measured.elapsed);
}

#[test]
fn without_a_server_users_fail_and_go_on() {
    let server = Server { authority: "127.0.0.1:1".to_owned(), ..Server::start(|_| ACCEPTED) };
    let users = Users {
        from: 3,
        to: 3,
        ramp: Duration::ZERO,
        duration: Duration::from_mins(1),
        pause: Duration::ZERO,
        period: Duration::ZERO,
        each: Some(2),
    };
    let traffic = Traffic { timeout: Duration::from_millis(20), ..traffic() };
    let (result, measured) = server.load(Shape::Users(users), traffic);
    result.unwrap();
    assert_eq!((measured.counts.unsent, measured.counts.requested), (6, 6));
    assert_eq!(measured.outcomes, [Outcome::NotSent; 6]);
}

#[test]
fn a_load_that_is_told_to_stop_stops() {
    let server = Server::start(|_| ACCEPTED);
    let stop = Arc::new(AtomicBool::new(true));
    let meter = Arc::new(Meter::start());
    drive(flood(u32::MAX), traffic(), &server.authority, &meter, &stop).unwrap();
    assert!(meter.counts().requested < 1_000_000);
}

#[test]
fn a_connection_that_is_closed_while_idle_is_known_to_be() {
    let server = Server::start(|_| {
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = Connection::open(&server.authority).await.unwrap();
        assert!(connection.is_open().await);
        let body = traffic().payments.body(0).into();
        assert_eq!(connection.post(body, None).await, Ok(202));
        assert!(!connection.is_open().await);
        assert!(!connection.is_open().await);
    });
}
