//! One connection to a processor, from its first call to its end. The same task drives the
//! connection and waits for its answers, so that an answer costs one wake-up.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::messages::{RequestBody, outcome, request};
use super::{Mailbox, ProcessorClient};
use crate::engine::{Call, CallOutcome};

/// An answer of a processor is far shorter.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What is read ahead of an answer, and with it the longest head of one.
const ANSWER_BUFFER_BYTES: usize = 16 << 10;

/// A connection that is open.
struct Open {
    sender: SendRequest<RequestBody>,
    driven: Driven,
}

/// The part of a connection that moves bytes.
struct Driven {
    connection: Connection<TokioIo<TcpStream>, RequestBody>,
    ended: bool,
}

impl Driven {
    /// Moves the connection on. That it has ended shows in what is waited for.
    fn drive(&mut self, context: &mut Context<'_>) {
        if !self.ended {
            self.ended = Pin::new(&mut self.connection).poll(context).is_ready();
        }
    }
}

/// What became of a request.
enum Exchange {
    /// It was not sent.
    NotSent,
    /// It was, and this is what the answer says. The connection can be used again.
    Answered(CallOutcome),
    /// It may have been sent, and there will be no answer that says more.
    Broken(CallOutcome),
}

/// Opens a connection, makes the call, and then one call after the other until the connection ends.
pub async fn serve(client: Rc<ProcessorClient>, first: Call) {
    let mut next = Some((first, client.clock.elapsed_ms()));
    // A call is given a second connection only if it was not sent on a kept one.
    while let Some((call, started_ms)) = next.take() {
        match connect(&client).await {
            Ok(open) => next = serve_open(&client, open, call, started_ms).await,
            Err(error) => {
                tracing::debug!("cannot connect to {}: {error}", client.target);
                client.finish(call, CallOutcome::NotRecorded { status: 0 }, started_ms);
            }
        }
    }
}

/// Opens a connection, within the time that resolving the name and connecting may take together.
async fn connect(client: &ProcessorClient) -> io::Result<Open> {
    let mut tried = None;
    let connecting = async {
        let addresses = client.addresses.get().await?;
        tried = Some(Rc::clone(&addresses));
        TcpStream::connect(&addresses[..]).await
    };
    let connected = timeout(client.limits.connect_timeout, connecting).await;
    let stream = match connected.map_err(io::Error::from).flatten() {
        Ok(stream) => stream,
        Err(error) => {
            if let Some(addresses) = tried {
                client.addresses.forget(&addresses);
            }
            return Err(error);
        }
    };
    stream.set_nodelay(true)?;
    let (sender, connection) = Builder::new()
        .max_buf_size(ANSWER_BUFFER_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    Ok(Open { sender, driven: Driven { connection, ended: false } })
}

/// Serves calls on an open connection. Gives back one that was not sent and is to be made on a fresh
/// connection, with the time at which it began.
async fn serve_open(
    client: &Rc<ProcessorClient>,
    mut open: Open,
    first: Call,
    started_ms: u64,
) -> Option<(Call, u64)> {
    let mailbox = Rc::new(Mailbox::default());
    let mut is_fresh = true;
    let (mut call, mut started_ms) = (first, started_ms);
    loop {
        match open.exchange(client, &call).await {
            Exchange::NotSent if !is_fresh => return Some((call, started_ms)),
            Exchange::NotSent => {
                client.finish(call, CallOutcome::NotRecorded { status: 0 }, started_ms);
                return None;
            }
            Exchange::Broken(outcome) => {
                client.finish(call, outcome, started_ms);
                return None;
            }
            Exchange::Answered(outcome) => client.finish(call, outcome, started_ms),
        }
        is_fresh = false;
        client.idle.borrow_mut().push(Rc::clone(&mailbox));
        call = open.next_call(client, &mailbox).await?;
        started_ms = client.clock.elapsed_ms();
    }
}

impl Open {
    /// Sends the request of a call and judges the answer.
    async fn exchange(&mut self, client: &ProcessorClient, call: &Call) -> Exchange {
        match timeout(client.limits.call_timeout, self.converse(client, call)).await {
            Ok(exchange) => exchange,
            Err(_) => Exchange::Broken(CallOutcome::Unknown),
        }
    }

    async fn converse(&mut self, client: &ProcessorClient, call: &Call) -> Exchange {
        let mut answer = pin!(self.sender.try_send_request(request(call, &client.target)));
        let driven = &mut self.driven;
        let answered = poll_fn(|context| {
            driven.drive(context);
            answer.as_mut().poll(context)
        })
        .await;
        let response = match answered {
            Ok(response) => response,
            Err(mut error) => {
                // The request comes back if not a byte of it was written.
                if error.take_message().is_some() {
                    return Exchange::NotSent;
                }
                tracing::debug!("no answer from {}: {}", client.target, error.error());
                return Exchange::Broken(CallOutcome::Unknown);
            }
        };
        let (status, body) = match self.read(response).await {
            Ok(whole) => whole,
            Err(why) => {
                tracing::debug!("no whole answer from {}: {why}", client.target);
                return Exchange::Broken(CallOutcome::Unknown);
            }
        };
        let outcome = outcome(call, status, &body);
        if self.is_reusable().await {
            Exchange::Answered(outcome)
        } else {
            Exchange::Broken(outcome)
        }
    }

    /// Reads the whole answer.
    async fn read(
        &mut self,
        response: Response<Incoming>,
    ) -> Result<(StatusCode, Vec<u8>), String> {
        let status = response.status();
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while !body.is_end_stream() {
            let mut frame = pin!(body.frame());
            let driven = &mut self.driven;
            let frame = poll_fn(|context| {
                driven.drive(context);
                frame.as_mut().poll(context)
            })
            .await;
            let Some(frame) = frame else { break };
            let frame = frame.map_err(|error| error.to_string())?;
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(data);
            }
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(format!("it is longer than {ANSWER_BYTES_MAX} bytes"));
            }
        }
        Ok((status, bytes))
    }

    /// Whether another call can be made on the connection.
    async fn is_reusable(&mut self) -> bool {
        let (sender, driven) = (&mut self.sender, &mut self.driven);
        poll_fn(|context| {
            driven.drive(context);
            sender.poll_ready(context)
        })
        .await
        .is_ok()
    }

    /// Waits for the next call. `None` when the connection ended first.
    async fn next_call(&mut self, client: &ProcessorClient, mailbox: &Rc<Mailbox>) -> Option<Call> {
        let driven = &mut self.driven;
        poll_fn(|context| {
            if let Some(call) = mailbox.call.take() {
                return Poll::Ready(Some(call));
            }
            driven.drive(context);
            if driven.ended {
                client.idle.borrow_mut().retain(|other| !Rc::ptr_eq(other, mailbox));
                return Poll::Ready(None);
            }
            mailbox.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }
}
