//! `monitor serve`: the metrics of all daemons over HTTP, and a page that shows them as they are.
//!
//! A request asks all daemons, or gets what another one has just got ([`crate::shared`]); between
//! requests, and with nobody who watches, nothing is done.

mod answers;
mod guard;
mod routes;

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use answers::Answer;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ledger::daemon::{
    EXIT_SOFTWARE, abort_on_panic, create_files_privately, exit_code, shutdown_signal,
    start_logging,
};
use ledger::notify;
use ledger::volume::Volume;
use routes::{QUESTIONS_MAX, READERS_MAX, Routes, Standing};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::page::live::WATCHERS_MAX;
use crate::settings::ServeSettings;

/// Connections at a time; more are closed. Those who watch or wait for an answer may have half of them
/// ([`WATCHERS_MAX`], [`READERS_MAX`], [`QUESTIONS_MAX`]): the others are there for who asks next.
const CONNECTIONS_MAX: u32 = 64;

const _: () = assert!(2 * (WATCHERS_MAX + READERS_MAX + QUESTIONS_MAX) <= CONNECTIONS_MAX as usize);

/// How long a request may take to arrive.
const HEAD_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection may take, from its request to the end of its answer. Each has one
/// request. That of somebody who watches lasts for as long as events are read.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The pause after the operating system refused a connection, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the monitor ended.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address with --listen")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The operating system refuses a runtime, or to tell of signals.
    #[error("cannot start: {0}")]
    Start(io::Error),
}

/// Runs `monitor serve` as a process.
pub fn main(settings: &ServeSettings) -> ExitCode {
    start_logging(settings.log);
    create_files_privately();
    abort_on_panic();
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(ServeError::Start)
        .and_then(|runtime| {
            // Listening for signals begins before anything else.
            runtime.block_on(async { run(settings, shutdown_signal()).await })
        });
    exit_code(result.map_err(|error| (EXIT_SOFTWARE, error.to_string())))
}

/// Serves until `shutdown` is done. Must run on a [`tokio::runtime::LocalRuntime`].
///
/// # Errors
/// The address cannot be listened on, or it cannot be told to end.
pub async fn run(
    settings: &ServeSettings,
    shutdown: impl Future<Output = io::Result<()>>,
) -> Result<(), ServeError> {
    let address = settings.listen;
    let listen = |source| ServeError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let address = listener.local_addr().map_err(listen)?;
    tracing::info!("listening on {address}");
    notify::ready(&format!("listening on {address}"));
    let volume = Volume::new(&settings.data);
    tokio::select! {
        () = serve(listener, &volume, &settings.allow_host) => {}
        told = shutdown => told.map_err(ServeError::Start)?,
    }
    notify::stopping();
    tracing::info!("ended");
    Ok(())
}

/// Answers on the listener, for ever, about the router on this volume, by an address or one of these
/// names. Must be called on a [`tokio::runtime::LocalRuntime`].
pub async fn serve(listener: TcpListener, volume: &Volume, allowed_hosts: &[String]) {
    let routes = Rc::new(Routes::new(volume, allowed_hosts));
    let count = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok((stream, _)) if count.get() < CONNECTIONS_MAX => {
                let (routes, count) = (Rc::clone(&routes), Rc::clone(&count));
                count.set(count.get() + 1);
                spawn_local(async move {
                    let standing = Standing::default();
                    tokio::select! {
                        () = converse(stream, &routes, &standing) => {}
                        // A client that is too slow or gone gets nothing more.
                        () = time_out(&standing) => {}
                    }
                    count.set(count.get() - 1);
                });
            }
            Ok(_) => tracing::debug!("more than {CONNECTIONS_MAX} connections: one is closed"),
            Err(error) => {
                tracing::warn!("a connection is refused: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits until a connection has taken too long, or its watcher reads too slowly.
async fn time_out(standing: &Standing) {
    if timeout(HEAD_TIMEOUT, standing.asked.notified()).await.is_err() {
        return;
    }
    if timeout(CONNECTION_TIMEOUT, standing.watches.notified()).await.is_ok() {
        standing.given_up.notified().await;
    }
}

async fn converse(stream: TcpStream, routes: &Routes, standing: &Standing) {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<Answer, Infallible>(routes.answer(&request, standing).await)
    });
    let served = Builder::new()
        .keep_alive(false)
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!("a connection ends: {error}");
    }
}

#[cfg(test)]
mod tests {
    use ledger::clock::Monotonic;
    use ledger::metrics::publish;
    use ledger::volume::metrics_socket;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn block_on(test: impl Future<Output = ()>) {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build_local(LocalOptions::default()).unwrap().block_on(test);
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        ask_with(address, &format!("{request} HTTP/1.1\r\nhost: localhost")).await
    }

    async fn ask_with(address: std::net::SocketAddr, head: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{head}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn metrics_the_page_and_errors_are_answered_as_http_wants_it() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let volume = Volume::new(folder.path());
            let run = volume.run();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            spawn_local(async move { serve(listener, &volume, &[]).await });
            let answer = ask(address, "GET /metrics").await;
            assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("--data"), "{answer}");

            std::fs::create_dir(&run).unwrap();
            publish(&metrics_socket(&run, "api-1"), |page| {
                page.counter("router_asked", "Asked.", 7_u64);
            });
            std::fs::write(run.join("store.metrics.lock"), "").unwrap();
            let answer = ask(address, "GET /metrics").await;
            for part in [
                "HTTP/1.1 200 OK\r\n",
                "content-type: text/plain; version=0.0.4; charset=utf-8\r\n",
                "\nrouter_up{daemon=\"api-1\"} 1\nrouter_up{daemon=\"store\"} 0\n",
                "\n# HELP router_asked_total Asked.\n# TYPE router_asked_total counter\n\
                 router_asked_total{daemon=\"api-1\"} 7\n",
            ] {
                assert!(answer.contains(part), "{part} is missing: {answer}");
            }
            let answer = ask(address, "GET /").await;
            for part in [
                "HTTP/1.1 200 OK\r\n",
                "content-type: text/html; charset=utf-8\r\n",
                "content-security-policy: default-src 'none'; ",
                "x-content-type-options: nosniff\r\n",
                "cache-control: no-store\r\n",
                "<!doctype html>",
            ] {
                assert!(answer.contains(part), "{part} is missing: {answer}");
            }
            let answer = ask(address, "POST /metrics").await;
            assert!(
                answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET"),
                "{answer}"
            );
            for (request, status, sentence) in [
                ("GET /summary?from=now", 400, "from: \\\"now\\\" is not an ISO-8601 moment"),
                ("GET /summary", 503, "the store cannot be asked"),
                ("GET /payments/1", 400, "correlationId"),
                ("GET /payments/4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3", 503, "the store cannot"),
                ("POST /summary", 405, "GET only"),
            ] {
                let answer = ask(address, request).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
                assert!(answer.contains(sentence), "{request}: {answer}");
            }
            for (head, status) in [
                ("GET / HTTP/1.1\r\nhost: evil.example", 421),
                ("GET /metrics HTTP/1.1\r\nhost: evil.example", 421),
                ("GET / HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site", 200),
                ("GET /events HTTP/1.1\r\nhost: localhost\r\nsec-fetch-site: cross-site", 403),
            ] {
                let answer = ask_with(address, head).await;
                assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
            }
            let answer = ask(address, "GET /other").await;
            assert!(
                answer.starts_with("HTTP/1.1 404 ") && answer.contains("{\"error\":"),
                "{answer}"
            );
        });
    }

    #[test]
    fn more_connections_than_allowed_are_closed_and_a_place_is_given_again() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let volume = Volume::new(folder.path());
            spawn_local(async move { serve(listener, &volume, &[]).await });
            let mut held = Vec::new();
            for _ in 0..CONNECTIONS_MAX {
                held.push(TcpStream::connect(address).await.unwrap());
            }
            let mut closed = TcpStream::connect(address).await.unwrap();
            assert_eq!(closed.read(&mut [0]).await.unwrap(), 0);
            drop(held);
            loop {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // It may be closed before it is written to, as long as places are not given back.
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
                let mut answer = String::new();
                if stream.read_to_string(&mut answer).await.is_ok_and(|count| count > 0) {
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    break;
                }
            }
        });
    }

    #[test]
    fn who_watches_is_told_of_every_look_and_another_connection_is_not_kept_open() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let volume = Volume::new(folder.path());
            volume.create().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            spawn_local(async move { serve(listener, &volume, &[]).await });
            let clock = Monotonic::start();
            let mut silent = TcpStream::connect(address).await.unwrap();
            silent.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
            assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
            assert!(clock.elapsed() >= HEAD_TIMEOUT);
            let mut watcher = TcpStream::connect(address).await.unwrap();
            watcher.write_all(b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
            let clock = Monotonic::start();
            let mut told = String::new();
            while clock.elapsed() <= CONNECTION_TIMEOUT {
                let mut bytes = [0; 4096];
                let count = watcher.read(&mut bytes).await.unwrap();
                assert!(count > 0, "it is closed: {told}");
                told += std::str::from_utf8(&bytes[..count]).unwrap();
            }
            assert!(told.contains("content-type: text/event-stream\r\n"), "{told}");
            assert!(told.matches("event: facts\n").count() > 1, "{told}");
        });
    }

    #[test]
    fn who_watches_and_who_waits_for_a_store_that_hangs_keeps_nobody_from_the_metrics() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let volume = Volume::new(folder.path());
            volume.create().unwrap();
            // Its connections are never taken.
            let _store = std::os::unix::net::UnixListener::bind(volume.store_socket()).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            spawn_local(async move { serve(listener, &volume, &[]).await });
            let mut watchers = Vec::new();
            for _ in 0..WATCHERS_MAX {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let request = b"GET /events HTTP/1.1\r\nhost: localhost\r\n\r\n";
                stream.write_all(request).await.unwrap();
                assert!(stream.read(&mut [0; 64]).await.unwrap() > 0);
                watchers.push(stream);
            }
            let answer = ask(address, "GET /events").await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            let questions: Vec<_> = (0..3 * QUESTIONS_MAX)
                .map(|number| {
                    let id = "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3";
                    let path =
                        if number % 2 == 0 { "/summary" } else { &format!("/payments/{id}") };
                    let request = format!("GET {path}");
                    spawn_local(async move { ask(address, &request).await })
                })
                .collect();
            let answer = ask(address, "GET /metrics").await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            let mut turned_away_count = 0;
            for question in questions {
                let answer = question.await.unwrap();
                assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
                if answer.contains("as many wait for such an answer as may") {
                    turned_away_count += 1;
                } else {
                    assert!(answer.contains("the store does not answer within 1s"), "{answer}");
                }
            }
            assert!(turned_away_count > 0);
        });
    }
}
