//! The line to a store that stalls, and what of it a client sees.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::rc::Rc;
use std::time::Duration;

use api::store_client::{QUESTIONS_MAX, StoreAway, StoreClient, StoreEvent};
use ledger::journal::Position;
use ledger::protocol::{FrameBuffer, PurgeNotice, Request, Response};
use ledger::{RangeMs, Totals};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::timeout;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const NOTHING: [Totals; 2] = [Totals { count: 0, amount: ledger::Cents::ZERO }; 2];

fn run(test: impl Future<Output = ()>) {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("the test hangs") });
}

/// A store that does only what the test tells it to, and a line to it.
struct Site {
    client: Rc<StoreClient>,
    events: UnboundedReceiver<StoreEvent>,
    stream: UnixStream,
    frames: FrameBuffer,
    _folder: TempDir,
}

impl Site {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let client = StoreClient::new(path, 1);
        let (sender, events) = unbounded_channel();
        let line = Rc::clone(&client);
        spawn_local(async move { line.run(move |event| drop(sender.send(event))).await });
        let (stream, _) = listener.accept().await.unwrap();
        let mut site =
            Self { client, events, stream, frames: FrameBuffer::default(), _folder: folder };
        let (number, request) = site.hear().await;
        assert!(matches!(request, Request::Hello { instance: 1, .. }), "{request:?}");
        let notice = PurgeNotice { purge: 0, cut: Position::START };
        site.say(number, &Response::Welcome(notice)).await;
        assert!(matches!(site.events.recv().await, Some(StoreEvent::Connected(_))));
        site
    }

    async fn hear(&mut self) -> (u32, Request) {
        loop {
            if let Some(heard) = self.frames.next_request().unwrap() {
                return heard;
            }
            let mut bytes = [0; 4096];
            let count = self.stream.read(&mut bytes).await.unwrap();
            assert!(count > 0, "the line ends");
            self.frames.extend(&bytes[..count]);
        }
    }

    async fn say(&mut self, number: u32, response: &Response) {
        let mut bytes = Vec::new();
        response.encode(number, &mut bytes);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// Asks this many questions, and gives the answers as they come.
    fn ask(&self, count: usize) -> UnboundedReceiver<Result<[Totals; 2], StoreAway>> {
        let (sender, answers) = unbounded_channel();
        for _ in 0..count {
            let (client, sender) = (Rc::clone(&self.client), sender.clone());
            spawn_local(async move { sender.send(client.summarize(RangeMs::ALL).await) });
        }
        answers
    }
}

/// A claim is heard after no more than a few questions, however many wait.
#[test]
fn questions_do_not_hold_up_a_claim() {
    run(async {
        let mut site = Site::start().await;
        let mut answers = site.ask(QUESTIONS_MAX + 10);
        for _ in 0..10 {
            assert_eq!(answers.recv().await, Some(Err(StoreAway::Busy)));
        }
        let through = Position::START.next();
        site.client.claim(through);
        let mut questions_count = 0;
        let number = loop {
            match site.hear().await {
                (_, Request::Summarize(_)) => questions_count += 1,
                (number, Request::Claim { .. }) => break number,
                (_, other) => panic!("{other:?}"),
            }
        };
        assert!(questions_count < QUESTIONS_MAX / 4, "{questions_count}");
        site.say(number, &Response::Claimed { through, losers: vec![] }).await;
        assert!(matches!(site.events.recv().await, Some(StoreEvent::Decided { .. })));
    });
}

/// Questions that were given up while the store stalled are not asked later.
#[test]
fn a_store_that_stalled_is_asked_only_what_somebody_waits_for() {
    run(async {
        let mut site = Site::start().await;
        let mut answers = site.ask(QUESTIONS_MAX);
        for _ in 0..QUESTIONS_MAX {
            assert_eq!(answers.recv().await, Some(Err(StoreAway::Silent)));
        }
        let mut answers = site.ask(1);
        let mut questions_count = 0;
        let answer = loop {
            tokio::select! {
                answer = answers.recv() => break answer,
                (number, _) = site.hear() => {
                    questions_count += 1;
                    site.say(number, &Response::Summary(NOTHING)).await;
                }
            }
        };
        assert_eq!(answer, Some(Ok(NOTHING)));
        assert!(questions_count < QUESTIONS_MAX / 4, "{questions_count}");
    });
}

/// A store that writes a whole flood before it reads on is read from meanwhile.
#[test]
fn the_line_is_read_while_it_is_written() {
    run(async {
        let mut site = Site::start().await;
        // More than the sockets hold of it.
        let through = Position::START.next();
        for _ in 0..50_000 {
            site.client.claim(through);
        }
        let mut flood = Vec::new();
        for _ in 0..50_000 {
            Response::PurgeAborted.encode(0, &mut flood);
        }
        site.stream.write_all(&flood).await.unwrap();
        for _ in 0..50_000 {
            assert!(matches!(site.events.recv().await, Some(StoreEvent::PurgeAborted)));
            site.hear().await;
        }
    });
}

/// The store waits for the instances before it says why a purge was not carried out.
#[test]
fn a_purge_waits_for_the_stores_own_word() {
    run(async {
        let mut site = Site::start().await;
        let client = Rc::clone(&site.client);
        let purging = spawn_local(async move { client.purge().await });
        let (number, request) = site.hear().await;
        assert_eq!(request, Request::Purge);
        // A question of the same moment is given up meanwhile.
        let mut answers = site.ask(1);
        assert_eq!(answers.recv().await, Some(Err(StoreAway::Silent)));
        let why = "nothing was purged: api-2 did not answer".to_owned();
        site.say(number, &Response::Refused(why.clone())).await;
        assert_eq!(purging.await.unwrap(), Err(StoreAway::Refused(why)));
    });
}
