//! A client of the router: one connection, one request at a time.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use ledger::{Cents, CorrelationId};

use super::posted::Told;
use crate::faults::message;

/// How long an answer may take. Longer than any process stands still.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Bytes that are read at a time.
const READ_BYTES: usize = 4 << 10;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: Vec<u8>,
}

/// A client of whoever listens on a port of this machine. It connects when it must.
pub struct Client {
    port: u16,
    stream: Option<TcpStream>,
}

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(port: u16) -> Self {
        Self { port, stream: None }
    }

    /// Sends the request that posts a payment.
    ///
    /// # Errors
    /// It could not be sent as a whole. A first part of it may have been.
    pub fn send_payment(&mut self, id: CorrelationId, amount: Cents) -> io::Result<()> {
        let body = format!(r#"{{"correlationId":"{id}","amount":{amount}}}"#);
        let length = body.len();
        self.send(&format!(
            "POST /payments HTTP/1.1\r\nhost: router\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        ))
    }

    /// What the router says to the payment that was sent.
    pub fn told(&mut self) -> Told {
        match self.answer() {
            Ok(Answer { status: 202, .. }) => Told::Accepted,
            Ok(Answer { status, .. }) => Told::Refused(status),
            Err(_) => Told::Nothing,
        }
    }

    /// Posts a payment.
    pub fn post(&mut self, id: CorrelationId, amount: Cents) -> Told {
        match self.send_payment(id, amount) {
            Ok(()) => self.told(),
            Err(_) => Told::Nothing,
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    /// There is no answer.
    pub fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: router\r\n\r\n"))?;
        self.answer()
    }

    fn send(&mut self, request: &str) -> io::Result<()> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => connect(self.port)?,
        };
        stream.write_all(request.as_bytes())?;
        self.stream = Some(stream);
        Ok(())
    }

    fn answer(&mut self) -> io::Result<Answer> {
        let mut stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        let mut arrived = Vec::new();
        let mut buffer = [0; READ_BYTES];
        loop {
            if let Some(whole) = message::response(&arrived).map_err(io::Error::other)? {
                if !whole.closes {
                    self.stream = Some(stream);
                }
                let body = arrived[whole.head_bytes..whole.bytes].to_vec();
                return Ok(Answer { status: whole.status, body });
            }
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => arrived.extend_from_slice(&buffer[..count]),
            }
        }
    }
}

fn connect(port: u16) -> io::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
