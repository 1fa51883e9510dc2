//! One connection to the router, and one request after the other over it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{Builder, Connection as Driver, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::pieces::{PieceBytes, Pieces};

/// Bytes of the longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// A connection over which payments are posted.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// It is run by whoever waits for an answer, so that no other task needs to be woken for it.
    driver: Pin<Box<Driver<TokioIo<Pieces>, Full<Bytes>>>>,
    /// The driver has ended, and must not be run again.
    is_over: bool,
    piece_bytes: PieceBytes,
    host: HeaderValue,
}

/// The connection broke before there was an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection broke before there was an answer")]
pub struct Broken;

impl Connection {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// Why it cannot.
    pub async fn open(authority: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(authority).await.map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let piece_bytes: PieceBytes = Rc::new(Cell::new(None));
        let io = TokioIo::new(Pieces::new(stream, Rc::clone(&piece_bytes)));
        let (sender, driver) = Builder::new().handshake(io).await.map_err(|e| e.to_string())?;
        let host = HeaderValue::from_str(authority).map_err(|e| e.to_string())?;
        Ok(Self { sender, driver: Box::pin(driver), is_over: false, piece_bytes, host })
    }

    /// Whether a request can be sent over it; not, if the other side has closed it.
    pub async fn is_open(&mut self) -> bool {
        poll_fn(|context| {
            self.drive(context);
            if self.is_over {
                return Poll::Ready(false);
            }
            self.sender.poll_ready(context).map(|ready| ready.is_ok())
        })
        .await
    }

    fn drive(&mut self, context: &mut Context<'_>) {
        if !self.is_over {
            self.is_over = self.driver.as_mut().poll(context).is_ready();
        }
    }

    /// Posts a payment, in pieces of so many bytes if asked for, and gives the status of the answer.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn post(&mut self, body: Bytes, piece_bytes: Option<usize>) -> Result<u16, Broken> {
        self.piece_bytes.set(piece_bytes);
        let request = Request::post(Uri::from_static("/payments"))
            .header(HOST, self.host.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Full::new(body))
            .expect("all parts are valid of themselves");
        let sent = self.sender.send_request(request);
        let mut answer = std::pin::pin!(async {
            let response = sent.await.map_err(|_| Broken)?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX);
            body.collect().await.map_err(|_| Broken)?;
            Ok(status)
        });
        poll_fn(|context| {
            // First the connection: it writes what was just handed to it, and reads the answer.
            self.drive(context);
            match answer.as_mut().poll(context) {
                // The connection must learn that the answer's head was taken, to give its body.
                Poll::Pending => {
                    self.drive(context);
                    answer.as_mut().poll(context)
                }
                polled @ Poll::Ready(_) => polled,
            }
        })
        .await
    }
}
