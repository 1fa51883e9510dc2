//! `monitor serve`: the metrics of all daemons over HTTP. A request asks all daemons, or gets what
//! another one has just got ([`SharedGathering`]); between requests nothing is done.

use std::cell::Cell;
use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use ledger::clock::Monotonic;
use ledger::daemon::{
    EXIT_SOFTWARE, abort_on_panic, create_files_privately, exit_code, shutdown_signal,
    start_logging,
};
use ledger::volume::Volume;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::LocalOptions;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use crate::merge::merge;
use crate::settings::ServeSettings;
use crate::shared::SharedGathering;
use crate::text;

/// Connections at a time; more are closed.
const CONNECTIONS_MAX: u32 = 32;

/// How long a connection may take, from its beginning to the end of its answer. Each has one
/// request.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a head.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The pause after the operating system refused a connection, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const PLAIN: &str = "text/plain; charset=utf-8";

type Answer = Response<Full<Bytes>>;

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
    tracing::info!("listening on {}", listener.local_addr().map_err(listen)?);
    tokio::select! {
        () = serve(listener, Volume::new(&settings.data).run()) => {}
        told = shutdown => told.map_err(ServeError::Start)?,
    }
    tracing::info!("ended");
    Ok(())
}

/// Answers on the listener, for ever, about the daemons in this folder of sockets. Must run on a
/// [`tokio::runtime::LocalRuntime`].
pub async fn serve(listener: TcpListener, run: PathBuf) {
    let clock = Monotonic::start();
    let shared = Rc::new(SharedGathering::new(run, move || clock.elapsed()));
    let count = Rc::new(Cell::new(0));
    loop {
        match listener.accept().await {
            Ok((stream, _)) if count.get() < CONNECTIONS_MAX => {
                let (shared, count) = (Rc::clone(&shared), Rc::clone(&count));
                count.set(count.get() + 1);
                spawn_local(async move {
                    // A client that is too slow or gone gets nothing more.
                    let _ = timeout(CONNECTION_TIMEOUT, converse(stream, &shared)).await;
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

async fn converse(stream: TcpStream, shared: &SharedGathering) {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<Answer, Infallible>(answer(request.method(), request.uri().path(), shared).await)
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

async fn answer(method: &Method, path: &str, shared: &SharedGathering) -> Answer {
    if !matches!(path, "/" | "/metrics") {
        return error(StatusCode::NOT_FOUND, "there is nothing at this path");
    }
    if method != Method::GET {
        let mut answer = error(StatusCode::METHOD_NOT_ALLOWED, "this path takes GET only");
        answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return answer;
    }
    let readings = match shared.readings().await {
        Ok(readings) => readings,
        Err(why) => {
            tracing::warn!("{why}");
            return error(StatusCode::SERVICE_UNAVAILABLE, &why.to_string());
        }
    };
    if path == "/metrics" {
        return of_text(text::CONTENT_TYPE, text::write(&merge(&readings)));
    }
    let mut list =
        "/metrics   the metrics of all daemons, in Prometheus' text format\n\n".to_owned();
    for reading in readings.iter() {
        let state = match &reading.families {
            Ok(_) => "up".to_owned(),
            Err(down) => format!("down: {down}"),
        };
        writeln!(list, "{:<10} {state}", reading.daemon).expect("a string takes any text");
    }
    of_text(PLAIN, list)
}

fn of_text(content_type: &'static str, text: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

fn error(status: StatusCode, sentence: &str) -> Answer {
    let sentence = sonic_rs::to_string(sentence).expect("a text can be written as JSON");
    let mut answer = of_text("application/json", format!("{{\"error\":{sentence}}}"));
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use ledger::metrics::publish;
    use ledger::volume::metrics_socket;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn block_on(test: impl Future<Output = ()>) {
        let builder = &mut tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build_local(LocalOptions::default()).unwrap().block_on(test);
    }

    async fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[test]
    fn metrics_a_list_and_errors_are_answered_as_http_wants_it() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let run = folder.path().join("run");
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            spawn_local(serve(listener, run.clone()));
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
            assert!(answer.contains("\napi-1      up\nstore      down: it has ended"), "{answer}");
            let answer = ask(address, "POST /metrics").await;
            assert!(
                answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET"),
                "{answer}"
            );
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
            spawn_local(serve(listener, folder.path().to_owned()));
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
                let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
                let mut answer = String::new();
                if stream.read_to_string(&mut answer).await.is_ok_and(|count| count > 0) {
                    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                    break;
                }
            }
        });
    }
}
