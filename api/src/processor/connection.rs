//! One connection to a processor, from its first call to its end. The same task writes requests and
//! reads answers, so that an answer costs one wake-up.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::{ANSWER_BYTES_USUAL, AnswerReader};
use super::messages::outcome;
use super::{Mailbox, ProcessorClient};
use crate::engine::{Call, CallOutcome};

/// A connection that is open.
struct Open {
    stream: TcpStream,
    request: Vec<u8>,
    reader: AnswerReader,
}

/// What became of a request.
enum Exchange {
    /// Not a byte of it was sent.
    NotSent,
    /// It was, and this is what the answer says. The connection can be used again.
    Answered(CallOutcome),
    /// It may have been sent, and there will be no answer that says more.
    Broken(CallOutcome),
}

/// What becomes of a connection without a call.
enum Next {
    /// It makes this call.
    Call(Call),
    /// It has ended when it was to make this call, of which nothing was sent.
    Unsent(Call),
    /// It has ended.
    Over,
}

/// Opens a connection, makes the call, and then one call after the other until the connection ends.
pub async fn serve(client: Rc<ProcessorClient>, first: Call) {
    let mut next = Some((first, client.clock.elapsed_us()));
    // A call is given a second connection only if it was not sent on a kept one.
    while let Some((call, started_us)) = next.take() {
        match connect(&client).await {
            Ok(open) => next = serve_open(&client, open, call, started_us).await,
            Err(error) => {
                tracing::debug!("cannot connect to {}: {error}", client.target);
                client.finish(call, CallOutcome::NotRecorded { status: 0 }, started_us);
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
    Ok(Open { stream, request: Vec::new(), reader: AnswerReader::default() })
}

/// Serves calls on an open connection. Gives back one that was not sent and is to be made on a fresh
/// connection, with the time at which it began.
async fn serve_open(
    client: &Rc<ProcessorClient>,
    mut open: Open,
    first: Call,
    started_us: u64,
) -> Option<(Call, u64)> {
    let mailbox = Rc::new(Mailbox::default());
    let mut is_fresh = true;
    let (mut call, mut started_us) = (first, started_us);
    loop {
        match open.exchange(client, &call).await {
            Exchange::NotSent if !is_fresh => return Some((call, started_us)),
            Exchange::NotSent => {
                client.finish(call, CallOutcome::NotRecorded { status: 0 }, started_us);
                return None;
            }
            Exchange::Broken(outcome) => {
                client.finish(call, outcome, started_us);
                return None;
            }
            Exchange::Answered(outcome) => client.finish(call, outcome, started_us),
        }
        is_fresh = false;
        client.idle.borrow_mut().push(Rc::clone(&mailbox));
        let next = open.next_call(client, &mailbox).await;
        started_us = client.clock.elapsed_us();
        call = match next {
            Next::Call(call) => call,
            Next::Unsent(call) => return Some((call, started_us)),
            Next::Over => return None,
        };
    }
}

impl Open {
    /// Sends the request of a call and judges the answer.
    async fn exchange(&mut self, client: &ProcessorClient, call: &Call) -> Exchange {
        client.requests.write(call, &mut self.request);
        self.reader.begin();
        match timeout(client.limits.call_timeout, self.converse(client, call)).await {
            Ok(exchange) => exchange,
            Err(_) => Exchange::Broken(CallOutcome::Unknown),
        }
    }

    async fn converse(&mut self, client: &ProcessorClient, call: &Call) -> Exchange {
        let mut unsent = &self.request[..];
        while !unsent.is_empty() {
            let sent = match self.stream.write(unsent).await {
                Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
                sent => sent,
            };
            match sent {
                Ok(count) => unsent = &unsent[count..],
                Err(error) => {
                    tracing::debug!("cannot send to {}: {error}", client.target);
                    // The operating system has taken what it says, and nothing of the rest.
                    return if unsent.len() == self.request.len() {
                        Exchange::NotSent
                    } else {
                        Exchange::Broken(CallOutcome::Unknown)
                    };
                }
            }
        }
        match self.read(call).await {
            Ok((outcome, true)) => Exchange::Answered(outcome),
            Ok((outcome, false)) => Exchange::Broken(outcome),
            Err(error) => {
                tracing::debug!("no whole answer from {}: {error}", client.target);
                Exchange::Broken(CallOutcome::Unknown)
            }
        }
    }

    /// Reads the whole answer. Gives what it says, and whether the connection can be used again.
    async fn read(&mut self, call: &Call) -> io::Result<(CallOutcome, bool)> {
        loop {
            let buffer = self.reader.buffer();
            buffer.reserve(ANSWER_BYTES_USUAL);
            let is_ended = self.stream.read_buf(buffer).await? == 0;
            let answer = self.reader.whole(is_ended).map_err(io::Error::other)?;
            if let Some(answer) = answer {
                let outcome = outcome(call, answer.status, answer.body);
                return Ok((outcome, answer.keeps_connection));
            }
        }
    }

    /// Waits for the next call. Nothing is sent over a connection that is known to have ended, or to have
    /// brought what nobody asked for: that would be taken for the answer.
    async fn next_call(&mut self, client: &ProcessorClient, mailbox: &Rc<Mailbox>) -> Next {
        poll_fn(|context| {
            if self.poll_over(context) {
                client.idle.borrow_mut().retain(|other| !Rc::ptr_eq(other, mailbox));
                return Poll::Ready(mailbox.call.take().map_or(Next::Over, Next::Unsent));
            }
            if let Some(call) = mailbox.call.take() {
                return Poll::Ready(Next::Call(call));
            }
            mailbox.waker.set(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Whether the connection has ended, or brings what nobody has asked for. Whoever asks is woken
    /// when that changes.
    fn poll_over(&self, context: &mut Context<'_>) -> bool {
        while let Poll::Ready(ready) = self.stream.poll_read_ready(context) {
            match ready.and_then(|()| self.stream.try_read(&mut [0])) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => return true,
            }
        }
        false
    }
}
