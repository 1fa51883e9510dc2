//! The balancer over real sockets: who gets a connection, and what a client sees when nobody does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use lb::LbSettings;
use ledger::handover::{HandoverListener, HandoverReceiver, Standing};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_local};
use tokio::time::{sleep, timeout};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const ROOM: Standing = Standing { draining: false, connections_count: 0, connections_max: 100 };

fn run(test: impl Future<Output = ()>) {
    let runtime =
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async { timeout(PATIENCE, test).await.expect("the test hangs") });
}

struct Site {
    folder: TempDir,
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    balancer: JoinHandle<()>,
}

impl Site {
    /// A balancer for two APIs that are not there yet.
    fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let api = |number| format!("--api={}", socket(folder.path(), number).display());
        let (first, second) = (api(1), api(2));
        let arguments = ["lb", "--listen=127.0.0.1:0", &first, &second];
        let settings = LbSettings::parse_from(arguments.iter().chain(more));
        let listener = lb::listen(&settings).unwrap();
        let address = listener.local_addr().unwrap();
        let (shutdown, told) = oneshot::channel();
        let balancer = spawn_local(async move {
            let shutdown = async {
                let _ = told.await;
                Ok(())
            };
            lb::run(&settings, listener, shutdown).await.unwrap();
        });
        Self { folder, address, shutdown, balancer }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// An API that is connected to the balancer.
    async fn api(&self, number: u8) -> Api {
        let listener = HandoverListener::bind(&socket(self.folder.path(), number)).unwrap();
        let receiver = listener.accept().await.unwrap();
        let api = Api { receiver, _listener: listener };
        api.stand(ROOM).await;
        api
    }

    /// What the balancer itself says to a client.
    async fn answer(&self) -> String {
        let mut client = self.connect().await;
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

fn socket(folder: &Path, number: u8) -> PathBuf {
    folder.join(format!("api-{number}.sock"))
}

struct Api {
    receiver: HandoverReceiver,
    _listener: HandoverListener,
}

impl Api {
    /// Tells the balancer how the API stands, and gives it time to hear.
    async fn stand(&self, standing: Standing) {
        self.receiver.tell(standing).unwrap();
        sleep(Duration::from_millis(20)).await;
    }

    /// Takes the next connection and answers with the name.
    async fn serve(&self, name: &str) {
        let descriptor = self.receiver.receive().await.unwrap().unwrap();
        let mut stream = TcpStream::from_std(descriptor.into()).unwrap();
        assert!(stream.nodelay().unwrap(), "what is sent to clients must not wait for more");
        stream.write_all(name.as_bytes()).await.unwrap();
    }

    /// Whether a connection is waiting to be taken.
    async fn has_connection(&self) -> bool {
        sleep(Duration::from_millis(50)).await;
        self.receiver.try_receive().is_ok()
    }
}

async fn heard(mut client: TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn apis_take_turns() {
    run(async {
        let site = Site::start(&[]);
        let (one, two) = (site.api(1).await, site.api(2).await);
        for _ in 0..3 {
            let (first, second) = (site.connect().await, site.connect().await);
            tokio::join!(one.serve("one"), two.serve("two"));
            let mut names = [heard(first).await, heard(second).await];
            names.sort();
            assert_eq!(names, ["one", "two"]);
        }
    });
}

#[test]
fn with_nobody_there_the_client_is_told_so() {
    run(async {
        let site = Site::start(&[]);
        let answer = site.answer().await;
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("connection: close") && head.contains("retry-after: 1"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(body, r#"{"error":"no server takes connections at the moment"}"#);
    });
}

#[test]
fn who_comes_before_the_first_api_is_handed_over_to_it() {
    run(async {
        let site = Site::start(&[]);
        let client = site.connect().await;
        let one = site.api(1).await;
        one.serve("one").await;
        assert_eq!(heard(client).await, "one");
    });
}

#[test]
fn an_api_that_is_gone_is_passed_over_and_comes_back_by_itself() {
    run(async {
        let site = Site::start(&[]);
        let (one, two) = (site.api(1).await, site.api(2).await);
        drop(one);
        for _ in 0..4 {
            let client = site.connect().await;
            two.serve("two").await;
            assert_eq!(heard(client).await, "two");
        }
        let one = site.api(1).await;
        let clients = [site.connect().await, site.connect().await];
        tokio::join!(one.serve("one"), two.serve("two"));
        drop(clients);
    });
}

#[test]
fn an_api_that_ends_or_is_full_is_passed_over() {
    run(async {
        let site = Site::start(&[]);
        let (one, two) = (site.api(1).await, site.api(2).await);
        for standing in
            [Standing { draining: true, ..ROOM }, Standing { connections_count: 100, ..ROOM }]
        {
            one.stand(standing).await;
            let clients = [site.connect().await, site.connect().await];
            two.serve("two").await;
            two.serve("two").await;
            assert!(!one.has_connection().await);
            drop(clients);
        }
        two.stand(Standing { draining: true, ..ROOM }).await;
        assert!(site.answer().await.contains("all servers have as many connections as they may"));
        one.stand(Standing { draining: true, ..ROOM }).await;
        assert!(site.answer().await.contains("no server takes connections"));
    });
}

#[test]
fn no_more_connections_are_handed_over_than_allowed() {
    run(async {
        let site = Site::start(&["--connections-max=3"]);
        let one = site.api(1).await;
        let clients = [site.connect().await, site.connect().await, site.connect().await];
        for _ in 0..3 {
            one.receiver.receive().await.unwrap().unwrap();
        }
        assert!(site.answer().await.contains("too many connections are open"));
        // The API says that two of them have ended.
        one.stand(Standing { connections_count: 1, ..ROOM }).await;
        let client = site.connect().await;
        one.serve("one").await;
        assert_eq!(heard(client).await, "one");
        drop(clients);
    });
}

#[test]
fn an_api_that_does_not_read_is_passed_over() {
    run(async {
        let site = Site::start(&["--connections-max=100000"]);
        let stuck = site.api(1).await;
        let two = site.api(2).await;
        let room = Standing { connections_max: 100_000, ..ROOM };
        stuck.stand(room).await;
        two.stand(room).await;
        let mut clients = Vec::new();
        let mut taken = 0;
        // The socket of the one that does not read fills up; then all go to the other one.
        for _ in 0..2_000 {
            clients.push(site.connect().await);
            while two.receiver.try_receive().is_ok() {
                taken += 1;
            }
        }
        sleep(Duration::from_millis(200)).await;
        while two.receiver.try_receive().is_ok() {
            taken += 1;
        }
        assert!(taken > 1_000, "{taken}");
        let mut queued = 0;
        while stuck.receiver.try_receive().is_ok() {
            queued += 1;
        }
        assert_eq!(taken + queued, 2_000);
    });
}

#[test]
fn told_to_end_it_hands_over_what_waits_and_ends() {
    run(async {
        let site = Site::start(&[]);
        let one = site.api(1).await;
        // The client's connection is established by the kernel before the balancer accepts it.
        let socket = std::net::TcpStream::connect(site.address).unwrap();
        site.shutdown.send(()).unwrap();
        site.balancer.await.unwrap();
        one.serve("one").await;
        socket.set_nonblocking(true).unwrap();
        assert_eq!(heard(TcpStream::from_std(socket).unwrap()).await, "one");
        assert!(TcpStream::connect(site.address).await.is_err());
    });
}

#[test]
fn an_address_in_use_is_named() {
    run(async {
        let site = Site::start(&[]);
        let listen = format!("--listen={}", site.address);
        let settings = LbSettings::parse_from(["lb", &listen]);
        let error = lb::listen(&settings).map(drop).unwrap_err();
        assert!(error.to_string().contains(&site.address.to_string()), "{error}");
    });
}

#[test]
fn connections_are_counted_by_what_became_of_them() {
    run(async {
        let site = Site::start(&[]);
        site.answer().await;
        let api = site.api(2).await;
        let _clients = [site.connect().await, site.connect().await];
        api.serve("x").await;
        api.serve("x").await;
        let path = site.folder.path().join("lb.metrics");
        let mut text = String::new();
        UnixStream::connect(path).await.unwrap().read_to_string(&mut text).await.unwrap();
        for line in [
            "router_lb_connections_accepted_total 3",
            "router_lb_connections_handed_over_total{api=\"api-1\"} 0",
            "router_lb_connections_handed_over_total{api=\"api-2\"} 2",
            "router_lb_connections_refused_total{reason=\"none_alive\"} 1",
            "router_lb_connections_refused_total{reason=\"all_full\"} 0",
            "router_lb_connections_refused_total{reason=\"too_many\"} 0",
            "router_lb_api_alive{api=\"api-1\"} 0",
            "router_lb_api_alive{api=\"api-2\"} 1",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is missing: {text}");
        }
    });
}
