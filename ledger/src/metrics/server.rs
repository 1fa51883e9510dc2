//! Sockets on which a daemon tells something of itself, its metrics above all: whoever connects gets
//! the whole text, and then the end.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::page::Page;
use super::process::{add_process, booted};
use crate::socket::{PrivateListener, check_peer, listen};

/// The end of the names of these sockets, in the folder of sockets.
pub const METRICS_SUFFIX: &str = ".metrics";

/// How long a reader may take. Readers are served one after the other.
const WRITE_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause before a socket that could not be opened is tried again.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);

/// The pause after the operating system refused a connection, for example for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Tells the metrics of this process on a socket from now on. `fill` is called for each reader, on
/// this thread. Must be called on a [`tokio::runtime::LocalRuntime`].
///
/// A process that cannot open the socket says so, works on and tries again: payments matter more,
/// and whoever reads metrics sees that there are none.
pub fn publish(path: &Path, fill: impl Fn(&mut Page) + 'static) {
    let booted = booted();
    tell(path, "metrics", move || {
        let mut page = Page::default();
        fill(&mut page);
        add_process(&mut page, booted);
        page.text()
    });
}

/// Tells a text on a socket from now on, which is made for each reader. `what` says in a word what it
/// is. For the rest it is as [`publish`].
pub fn tell(path: &Path, what: &'static str, text: impl Fn() -> String + 'static) {
    let listening = listen(path);
    if let Err(error) = &listening {
        tracing::warn!(
            "the {what} of this process cannot be read, and it works on and tries again: {}: {error}",
            path.display()
        );
    }
    let path = path.to_owned();
    spawn_local(async move {
        let listener = match listening {
            Ok(listener) => listener,
            Err(_) => listen_later(&path, what).await,
        };
        serve(listener, what, text).await;
    });
}

/// Listens as soon as that is possible, for example once the folder is there.
async fn listen_later(path: &Path, what: &str) -> PrivateListener {
    loop {
        sleep(LISTEN_PAUSE).await;
        match listen(path) {
            Ok(listener) => {
                tracing::info!("the {what} of this process can be read at {}", path.display());
                return listener;
            }
            Err(error) => tracing::debug!("no {what} yet: {}: {error}", path.display()),
        }
    }
}

async fn serve(listener: PrivateListener, what: &str, text: impl Fn() -> String) {
    loop {
        let accepted = listener.accept().await;
        match accepted.and_then(|stream| check_peer(&stream).map(|()| stream)) {
            Ok(stream) => {
                if let Err(error) = write(stream, text()).await {
                    tracing::debug!("a reader of {what} is gone: {error}");
                }
            }
            Err(error) => {
                tracing::warn!("a reader of {what} is refused: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn write(mut stream: UnixStream, text: String) -> io::Result<()> {
    let writing = async {
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await
    };
    timeout(WRITE_TIMEOUT, writing).await.map_err(io::Error::from).flatten()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::rc::Rc;

    use tokio::io::AsyncReadExt;
    use tokio::runtime::{Builder, LocalOptions};

    use super::*;
    use crate::metrics::Counter;

    fn block_on(test: impl Future<Output = ()>) {
        let builder = &mut Builder::new_current_thread();
        builder.enable_all().build_local(LocalOptions::default()).unwrap().block_on(test);
    }

    async fn read(path: &Path) -> String {
        let mut text = String::new();
        UnixStream::connect(path).await.unwrap().read_to_string(&mut text).await.unwrap();
        text
    }

    #[test]
    fn every_reader_gets_the_page_of_its_moment() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("daemon.metrics");
            let asked = Rc::new(Counter::default());
            let counter = Rc::clone(&asked);
            publish(&path, move |page| {
                counter.add_one();
                page.counter("router_asked", "Readers", &*counter);
            });
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(asked.get(), 0);
            for count in 1..=3 {
                let text = read(&path).await;
                assert!(text.contains(&format!("\nrouter_asked_total {count}\n")), "{text}");
                assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
                assert!(text.ends_with("# EOF\n"), "{text}");
            }
        });
    }

    /// The balancer was started before the folder was there, and had no metrics for life.
    #[test]
    fn a_folder_that_comes_later_gets_the_socket() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let run = folder.path().join("run");
            let path = run.join("daemon.metrics");
            publish(&path, |page| page.counter("router_late", "Late", 1_u64));
            std::fs::create_dir(&run).unwrap();
            while !path.exists() {
                sleep(Duration::from_millis(10)).await;
            }
            assert!(read(&path).await.contains("router_late_total 1"));
        });
    }

    #[test]
    fn a_path_that_cannot_be_listened_on_stops_nobody() {
        block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("daemon.metrics");
            publish(&path, |_| ());
            publish(&path, |page| page.counter("router_second", "Not this one", 1_u64));
            assert!(!read(&path).await.contains("router_second"));
        });
    }
}
