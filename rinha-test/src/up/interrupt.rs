//! The wish of the user, or of the machine, that the runner ends.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;

use crossbeam_channel::{Receiver, bounded};
use ledger::daemon::shutdown_signal;

/// A channel on which something arrives once the process is asked to end. From when this returns,
/// such a signal no longer ends the process by itself.
///
/// # Errors
/// The operating system refuses to tell of signals.
pub(crate) fn on_shutdown_signal() -> io::Result<Receiver<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (interrupt, interrupted) = bounded(1);
    let (armed, ready) = bounded(1);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut signal = pin!(shutdown_signal());
            let mut first = poll_fn(|context| Poll::Ready(signal.as_mut().poll(context))).await;
            let refused = match &mut first {
                Poll::Ready(Err(error)) => Some(io::Error::new(error.kind(), error.to_string())),
                _ => None,
            };
            // Both receivers are held until the runner ends.
            let _ = armed.send(refused.map_or(Ok(()), Err));
            if first.is_pending() {
                let _ = signal.await;
            }
            let _ = interrupt.send(());
        });
    })?;
    ready.recv().unwrap_or_else(|_| Err(io::Error::other("the thread for signals ended")))?;
    Ok(interrupted)
}
