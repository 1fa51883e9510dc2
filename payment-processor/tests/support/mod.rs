//! Raw HTTP over plain sockets, and processors to speak it to.

#![allow(dead_code, reason = "every test file uses another part of it")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Parser;
use ledger::clock::Monotonic;
use payment_processor::{Settings, run};

/// Longer than any answer takes; only a test that fails waits for so long.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// How often to look again for what is to happen.
const PAUSE: Duration = Duration::from_millis(2);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        self.headers.iter().find(found).map(|(_, value)| &**value)
    }

    /// The text of `{"message": text}`.
    pub fn message(&self) -> &str {
        self.body
            .strip_prefix(r#"{"message":""#)
            .and_then(|rest| rest.strip_suffix(r#""}"#))
            .unwrap_or_else(|| panic!("no message: {self:?}"))
    }
}

/// A keep-alive connection.
pub struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Reads one answer, and no byte beyond it.
    pub fn receive(&mut self) -> Answer {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let mut words = line.split(' ');
        assert_eq!(words.next(), Some("HTTP/1.1"), "{line:?}");
        let status = words.next().unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.reader.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.push((name.to_owned(), value.to_owned()));
        }
        let mut answer = Answer { status, headers, body: String::new() };
        let length: usize = answer.header("Content-Length").unwrap().parse().unwrap();
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        answer.body = String::from_utf8(body).unwrap();
        answer
    }

    /// Whether nothing has come so far.
    pub fn is_silent(&mut self) -> bool {
        let stream = self.reader.get_ref();
        stream.set_nonblocking(true).unwrap();
        let peeked = stream.peek(&mut [0]);
        stream.set_nonblocking(false).unwrap();
        match peeked {
            Ok(count) => {
                assert_ne!(count, 0, "the connection was closed");
                false
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                true
            }
        }
    }

    /// Whether the other side closes the connection without a byte more.
    pub fn is_closed(&mut self) -> bool {
        self.reader.read(&mut [0]).is_ok_and(|count| count == 0)
    }

    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(request);
        self.receive()
    }
}

/// A processor in this process.
pub struct Processor {
    pub address: SocketAddr,
}

impl Processor {
    /// A processor with these flags, on a free port.
    pub fn start(flags: &[&str]) -> Self {
        let arguments = ["payment-processor", "--listen", "127.0.0.1:0"];
        let settings = Settings::parse_from(arguments.iter().chain(flags));
        let running = run(&settings).unwrap();
        Self { address: running.addresses()[0] }
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    pub fn ask(&self, request: impl AsRef<[u8]>) -> Answer {
        self.connect().ask(request)
    }

    pub fn set(&self, config: &str, body: &str) -> Answer {
        self.ask(put(&format!("/admin/configurations/{config}"), body))
    }

    pub fn summary(&self, query: &str) -> String {
        let answer = self.ask(get(&format!("/admin/payments-summary{query}")));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// Asks until the answer has this status.
    pub fn ask_until(&self, request: &str, status: u16) -> Answer {
        let mut connection = self.connect();
        let clock = Monotonic::start();
        loop {
            let answer = connection.ask(request);
            if answer.status == status {
                return answer;
            }
            assert!(clock.elapsed() < PATIENCE, "not {status}: {answer:?}");
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until as many payments run and wait as may: a payload that no processor takes is
    /// refused by the limit, which is looked at first, without a trace of it.
    pub fn wait_until_full(&self) {
        let answer = self.ask_until(&post("/payments", "{}"), 429);
        assert_eq!(answer.message(), "too many payments are running and waiting");
    }
}

pub fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: x\r\nX-Rinha-Token: 123\r\n\r\n")
}

pub fn post(target: &str, body: &str) -> String {
    with_body("POST", target, body)
}

pub fn put(target: &str, body: &str) -> String {
    with_body("PUT", target, body)
}

pub fn with_body(method: &str, target: &str, body: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: x\r\nX-Rinha-Token: 123\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The id of the payment with this number.
pub fn id(number: u32) -> String {
    format!("{number:08x}-7d26-4d9d-aa19-4dc1c7cf60b3")
}

/// `POST /payments` with this number, amount and moment.
pub fn pay_at(number: u32, amount: &str, requested_at: &str) -> String {
    let id = id(number);
    post(
        "/payments",
        &format!(r#"{{"correlationId":"{id}","amount":{amount},"requestedAt":"{requested_at}"}}"#),
    )
}

/// `POST /payments` with this number.
pub fn pay(number: u32) -> String {
    pay_at(number, "19.90", "2025-07-15T12:34:56.000Z")
}

/// `GET /payments/{id}`
pub fn look_up(number: u32) -> String {
    get(&format!("/payments/{}", id(number)))
}
