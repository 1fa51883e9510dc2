//! Calls to processors that misbehave: what is known of a call, and what is not.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::rc::Rc;
use std::time::Duration;

use api::engine::{Call, CallKind, CallOutcome, Engine, EngineConfig};
use api::processor::{ANSWER_BYTES_MAX, CallLimits, ProcessorClient};
use api::router::RouterConfig;
use ledger::clock::Monotonic;
use ledger::journal::Position;
use ledger::protocol::PurgeNotice;
use ledger::{Cents, TimestampMs};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const RECORDED: &str =
    "HTTP/1.1 200 OK\r\ncontent-length: 44\r\n\r\n{\"message\":\"payment processed successfully\"}";
const FAILED: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";

fn run(test: impl Future<Output = ()>) {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("the test hangs") });
}

/// A call that an engine has asked for.
fn call() -> Call {
    let router =
        RouterConfig { fees_bp: [500, 1500], patience_ms: 1000, in_flight_max: 8, slow_ms: 1300 };
    let config = EngineConfig { backlog_max: 10, recent_max: 10, claim_delay_ms: 0, router };
    let now = TimestampMs::clamped(1_752_580_800_000);
    let mut engine = Engine::new(config, &[], Position::START, 0, now);
    engine.connected(PurgeNotice { purge: 0, cut: Position::START });
    let id = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3".parse().unwrap();
    engine.accept(id, Cents::new(1990), 0);
    let mut end = Position::START;
    for _ in 0..2 {
        engine.pump(0, now);
        let batch = engine.take_batch(now).unwrap();
        let count = batch.records.len();
        engine.written(batch, end, count, None, 0);
        end = end.next();
        if let Some(through) = engine.take_claim(0) {
            engine.decided(through, &[]);
        }
    }
    engine.take_calls()[0]
}

/// A processor whose connections are served by the test, and a client of it.
struct Site {
    listener: TcpListener,
    client: Rc<ProcessorClient>,
    outcomes: UnboundedReceiver<CallOutcome>,
    /// A connection whose call was answered.
    kept: Option<TcpStream>,
}

impl Site {
    /// A client whose calls outlast the test, so that no time-out stands for an answer.
    async fn start() -> Self {
        Self::with_call_timeout(2 * PATIENCE).await
    }

    async fn with_call_timeout(call_timeout: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let (sender, outcomes) = unbounded_channel();
        let limits = CallLimits { call_timeout, connect_timeout: PATIENCE };
        let finished = Rc::new(move |_, outcome, _| sender.send(outcome).unwrap());
        let client = ProcessorClient::new(target, limits, Monotonic::start(), finished);
        Self { listener, client, outcomes, kept: None }
    }

    async fn accept(&self) -> TcpStream {
        self.listener.accept().await.unwrap().0
    }

    async fn outcome(&mut self) -> CallOutcome {
        self.outcomes.recv().await.unwrap()
    }

    /// Makes a call that is answered with these bytes and then, if told so, the connection's end.
    async fn answered(&mut self, bytes: &str, close: bool) -> CallOutcome {
        self.client.start(call());
        let mut stream = self.accept().await;
        read_request(&mut stream).await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        if close {
            drop(stream);
            return self.outcome().await;
        }
        self.outcome().await
    }
}

impl Site {
    /// Makes a call that is answered with these bytes over a connection that stays open.
    async fn answered_open(&mut self, bytes: &str) -> CallOutcome {
        self.client.start(call());
        let mut stream = self.accept().await;
        read_request(&mut stream).await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        self.kept = Some(stream);
        self.outcome().await
    }
}

/// Reads one whole request.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut bytes = [0; 4096];
    while !text.ends_with('}') {
        let count = stream.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the request ends too early: {text}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    text
}

#[test]
fn a_connection_is_kept_for_the_next_call() {
    run(async {
        let mut site = Site::start().await;
        site.client.start(call());
        let mut stream = site.accept().await;
        for _ in 0..3 {
            let request = read_request(&mut stream).await;
            assert!(request.starts_with("POST /payments HTTP/1.1\r\n"), "{request}");
            stream.write_all(RECORDED.as_bytes()).await.unwrap();
            assert_eq!(site.outcome().await, CallOutcome::Recorded);
            site.client.start(call());
        }
        read_request(&mut stream).await;
        stream.write_all(FAILED.as_bytes()).await.unwrap();
        assert_eq!(site.outcome().await, CallOutcome::NotRecorded { status: 500 });
    });
}

#[test]
fn calls_at_the_same_time_have_a_connection_each() {
    run(async {
        let mut site = Site::start().await;
        site.client.start(call());
        site.client.start(call());
        let (mut one, mut two) = (site.accept().await, site.accept().await);
        for stream in [&mut two, &mut one] {
            read_request(stream).await;
            stream.write_all(RECORDED.as_bytes()).await.unwrap();
            assert_eq!(site.outcome().await, CallOutcome::Recorded);
        }
    });
}

#[test]
fn nobody_there_means_that_nothing_was_sent() {
    run(async {
        let Site { listener, client, mut outcomes, .. } = Site::start().await;
        drop(listener);
        client.start(call());
        let outcome = outcomes.recv().await.unwrap();
        assert_eq!(outcome, CallOutcome::NotRecorded { status: 0 });
    });
}

#[test]
fn once_something_was_sent_no_answer_or_a_broken_one_leaves_a_doubt() {
    run(async {
        for (bytes, close) in [
            ("", true),
            ("HTTP/1.1 200 OK\r\ncontent-", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"message\":", true),
            ("hello, I am no HTTP\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", false),
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", false),
        ] {
            let mut site = Site::start().await;
            assert_eq!(site.answered(bytes, close).await, CallOutcome::Unknown, "{bytes:?}");
        }
    });
}

#[test]
fn an_answer_that_takes_too_long_leaves_a_doubt() {
    run(async {
        let mut site = Site::with_call_timeout(Duration::from_millis(300)).await;
        site.client.start(call());
        let mut stream = site.accept().await;
        read_request(&mut stream).await;
        assert_eq!(site.outcome().await, CallOutcome::Unknown);
        // The connection is given up, so that a late answer is nobody's.
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
    });
}

#[test]
fn an_endless_answer_leaves_a_doubt() {
    run(async {
        let mut site = Site::start().await;
        site.client.start(call());
        let mut stream = site.accept().await;
        read_request(&mut stream).await;
        let flood = spawn_local(async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n").await?;
            loop {
                stream.write_all(&[b'x'; 4096]).await?;
            }
            #[allow(unreachable_code, reason = "the type of what goes wrong")]
            std::io::Result::Ok(())
        });
        assert_eq!(site.outcome().await, CallOutcome::Unknown);
        assert!(flood.await.unwrap().is_err());
    });
}

#[test]
fn an_answer_of_just_the_limit_is_read_and_a_longer_one_leaves_a_doubt() {
    run(async {
        for (bytes, expected) in [
            (ANSWER_BYTES_MAX, CallOutcome::Recorded),
            (ANSWER_BYTES_MAX + 1, CallOutcome::Unknown),
        ] {
            let mut site = Site::start().await;
            let body = r#"{"message":"payment processed successfully"}"#;
            let padded = format!("{body}{}", " ".repeat(bytes - body.len()));
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n{padded}");
            assert_eq!(site.answered(&answer, false).await, expected, "{bytes}");
        }
    });
}

#[test]
fn an_answer_with_an_endless_head_leaves_a_doubt() {
    run(async {
        let mut site = Site::start().await;
        let padding = "x".repeat(20 << 10);
        let head = format!("HTTP/1.1 200 OK\r\nx-padding: {padding}\r\n");
        let answer = RECORDED.replacen("HTTP/1.1 200 OK\r\n", &head, 1);
        assert_eq!(site.answered(&answer, false).await, CallOutcome::Unknown);
    });
}

#[test]
fn a_connection_that_the_processor_closed_is_not_used_again() {
    run(async {
        let mut site = Site::start().await;
        site.client.start(call());
        let mut stream = site.accept().await;
        read_request(&mut stream).await;
        stream.write_all(RECORDED.as_bytes()).await.unwrap();
        assert_eq!(site.outcome().await, CallOutcome::Recorded);
        // The client has seen the end once it closes its own side.
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
        site.client.start(call());
        let mut stream = site.accept().await;
        read_request(&mut stream).await;
        stream.write_all(RECORDED.as_bytes()).await.unwrap();
        assert_eq!(site.outcome().await, CallOutcome::Recorded);
    });
}

/// A call may be given to a connection in the very moment in which its end, or an answer that nobody
/// asked for, becomes known. It must not be sent there, and still less have that for its answer.
#[test]
fn a_call_that_meets_the_end_of_its_connection_goes_out_on_a_fresh_one() {
    run(async {
        for stray in
            [&b""[..], FAILED.as_bytes(), b"HTTP/1.1 408 Timeout\r\ncontent-length: 0\r\n\r\n"]
        {
            let mut site = Site::start().await;
            assert_eq!(site.answered_open(RECORDED).await, CallOutcome::Recorded);
            let stream = site.kept.take().unwrap();
            // Both become known in one turn of the runtime, and the test is told first.
            let (mut told, mut tell) = UnixStream::pair().unwrap();
            tell.write_all(b"x").await.unwrap();
            if !stray.is_empty() {
                assert_eq!(stream.try_write(stray).unwrap(), stray.len());
            }
            drop(stream);
            assert_eq!(told.read(&mut [0; 1]).await.unwrap(), 1);
            site.client.start(call());
            let mut stream = site.accept().await;
            read_request(&mut stream).await;
            stream.write_all(RECORDED.as_bytes()).await.unwrap();
            assert_eq!(site.outcome().await, CallOutcome::Recorded);
        }
    });
}

#[test]
fn a_look_up_asks_for_the_payment() {
    run(async {
        let mut site = Site::start().await;
        site.client.start(Call { kind: CallKind::Lookup, ..call() });
        let mut stream = site.accept().await;
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).await.unwrap();
        let expected = b"GET /payments/4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3 HTTP/1.1\r\n";
        assert!(bytes[..count].starts_with(expected));
        stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        assert_eq!(site.outcome().await, CallOutcome::Absent);
    });
}
