//! A connection that can be told to write in pieces, with a pause between them, so that the other
//! side reads half requests.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// The pause between two pieces.
const PAUSE: Duration = Duration::from_millis(2);

/// Bytes of the next pieces, the last of them for all that follow; none for whole writes.
pub(super) type PieceBytes = Rc<Cell<Option<usize>>>;

/// The connection.
pub(super) struct Pieces {
    stream: TcpStream,
    piece_bytes: PieceBytes,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Pieces {
    pub(super) fn new(stream: TcpStream, piece_bytes: PieceBytes) -> Self {
        Self { stream, piece_bytes, pause: None }
    }
}

impl AsyncRead for Pieces {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Pieces {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Some(piece) = self.piece_bytes.get() else {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        };
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        }
        let piece = &bytes[..piece.clamp(1, bytes.len())];
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, piece))?;
        self.pause = Some(Box::pin(sleep(PAUSE)));
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
