//! The plain payment: the one request that nearly all are, read and answered without hyper.
//!
//! It has come whole, in one piece, and nothing in its head is out of the ordinary. httparse, which is
//! hyper's parser too, reads the head. Whatever is not plain is for hyper, from its first byte on, so
//! every other case of HTTP has one judge.

use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;

use httparse::Status;
use ledger::clock;

use super::answers::{Answer, accepted};
use super::routes::is_json;
use crate::processor::parse_length;

/// Bytes of a plain request, at most, and of what is read at a time. Few while fuzzing, so that requests
/// are cut there as well.
pub const PLAIN_BYTES_MAX: usize = if cfg!(fuzzing) { 512 } else { 8 << 10 };
/// Fields of its head, at most.
const FIELDS_MAX: usize = 16;
/// Digits of its length, at most.
const LENGTH_DIGITS_MAX: usize = 5;
const MS_PER_SECOND: i64 = 1_000;

/// What a plain request may take.
#[derive(Clone, Copy, Debug)]
pub struct PlainLimits {
    /// Bytes of a head.
    pub head_bytes_max: usize,
    /// Bytes of a body.
    pub body_bytes_max: usize,
}

/// A plain request at the front of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Plain<'a> {
    /// The payment, in JSON.
    pub body: &'a [u8],
    /// What comes after the request, and after empty lines, which mean nothing there (RFC 9112,
    /// section 2.2).
    pub rest: &'a [u8],
}

/// Reads plain requests.
pub struct Reader {
    limits: PlainLimits,
    last: RefCell<Head>,
}

/// A head that was plain.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    body_length: usize,
}

impl Reader {
    /// A reader with these limits.
    #[must_use]
    pub fn new(limits: PlainLimits) -> Self {
        Self { limits, last: RefCell::default() }
    }

    /// The plain request that these bytes begin with, if they do.
    ///
    /// Clients send the same head with each payment, often all of them the same: what was judged of one is
    /// true of those that are equal to it, byte for byte.
    pub fn read<'a>(&self, bytes: &'a [u8]) -> Option<Plain<'a>> {
        let mut last = self.last.borrow_mut();
        if last.bytes.is_empty() || !bytes.starts_with(&last.bytes) {
            let (head_length, body_length) = read_head(bytes, self.limits)?;
            last.bytes.clear();
            last.bytes.extend_from_slice(&bytes[..head_length]);
            last.body_length = body_length;
        }
        let (body, mut rest) = bytes[last.bytes.len()..].split_at_checked(last.body_length)?;
        while let Some(behind) = rest.strip_prefix(b"\r\n") {
            rest = behind;
        }
        Some(Plain { body, rest })
    }
}

/// The length of the head of a plain request that these bytes begin with, and that of its body.
fn read_head(bytes: &[u8], limits: PlainLimits) -> Option<(usize, usize)> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut []);
    let Ok(Status::Complete(head_length)) = head.parse_with_uninit_headers(bytes, &mut fields)
    else {
        return None;
    };
    let is_payment =
        head.method == Some("POST") && head.path == Some("/payments") && head.version == Some(1);
    if !is_payment || head_length > limits.head_bytes_max {
        return None;
    }
    let mut body_length = None;
    for field in &*head.headers {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        let is_ordinary = match field.name.len() {
            14 if is("content-length") => {
                let is_first = body_length.is_none() && field.value.len() <= LENGTH_DIGITS_MAX;
                body_length = parse_length(field.value).filter(|_| is_first);
                body_length.is_some()
            }
            12 if is("content-type") => is_json(field.value),
            10 if is("connection") => field.value.eq_ignore_ascii_case(b"keep-alive"),
            17 => !is("transfer-encoding"),
            7 => !is("upgrade"),
            6 => !is("expect"),
            _ => true,
        };
        if !is_ordinary {
            return None;
        }
    }
    let body_length = body_length.filter(|length| *length <= limits.body_bytes_max)?;
    Some((head_length, body_length))
}

/// The bytes of answers, with the date of this second.
#[derive(Default)]
pub struct Writer {
    second: Cell<Option<i64>>,
    date: RefCell<String>,
    /// The answer to a payment that was taken in.
    accepted: RefCell<Vec<u8>>,
}

impl Writer {
    /// The bytes of an answer.
    pub fn bytes(&self, answer: &Answer) -> Vec<u8> {
        let now = clock::now();
        let second = now.get().div_euclid(MS_PER_SECOND);
        if self.second.replace(Some(second)) != Some(second) {
            let date = now.to_http_date();
            *self.accepted.borrow_mut() = accepted().to_bytes(Some(&date));
            *self.date.borrow_mut() = date;
        }
        if *answer == accepted() {
            return self.accepted.borrow().clone();
        }
        answer.to_bytes(Some(&self.date.borrow()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PlainLimits = PlainLimits { head_bytes_max: 200, body_bytes_max: 20 };

    fn body_and_rest(request: &(impl AsRef<[u8]> + ?Sized)) -> Option<(&str, &str)> {
        let request = request.as_ref();
        let reader = Reader::new(LIMITS);
        let plain = reader.read(request)?;
        assert_eq!(reader.read(request), Some(plain), "the head is known now");
        Some((str::from_utf8(plain.body).unwrap(), str::from_utf8(plain.rest).unwrap()))
    }

    #[test]
    fn a_payment_in_one_piece_is_plain() {
        for fields in [
            "",
            "Host: x\r\n",
            "content-TYPE: application/json; charset=utf-8\r\nConnection: Keep-Alive\r\n",
            // A parameter means nothing to us, whatever its bytes.
            "content-type:Application/JSON;x=\u{e9}\r\n",
            "accept: */*\r\nuser-agent: k6\r\nx: Transfer-Encoding\r\n",
        ] {
            let request =
                format!("POST /payments HTTP/1.1\r\n{fields}Content-Length: 2\r\n\r\n{{}}");
            assert_eq!(body_and_rest(&request), Some(("{}", "")), "{fields}");
            assert_eq!(body_and_rest(&format!("{request}POST")), Some(("{}", "POST")), "{fields}");
            assert_eq!(body_and_rest(&format!("{request}\r\n\r\n")), Some(("{}", "")), "{fields}");
            assert_eq!(body_and_rest(&format!("{request}\r\nPO")), Some(("{}", "PO")), "{fields}");
            for length in 0..request.len() {
                let part = &request.as_bytes()[..length];
                assert_eq!(body_and_rest(part), None, "{length} bytes of {request}");
            }
        }
    }

    #[test]
    fn what_is_known_of_a_head_is_true_of_no_other() {
        let reader = Reader::new(LIMITS);
        let head = "POST /payments HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n";
        let read = |request: &str| {
            let request = request.to_owned();
            reader.read(request.as_bytes()).map(|plain| plain.body.to_vec())
        };
        for _ in 0..2 {
            assert_eq!(read(&format!("{head}{{}}")).as_deref(), Some(&b"{}"[..]));
            assert_eq!(read(&format!("{head}{{")), None, "a part of the body is missing");
            let longer = head.replace("Length: 2", "Length: 3") + "{ }";
            assert_eq!(read(&longer).as_deref(), Some(&b"{ }"[..]));
            for (from, to) in [
                ("POST", "PUT "),
                ("Host: a", "Expect: 100-continue"),
                ("Length: 2", "Length: 2\r\nContent-Length: 2"),
                ("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n"),
            ] {
                assert_eq!(read(&(head.replace(from, to) + "{}")), None, "{to}");
            }
            for length in 0..head.len() {
                assert_eq!(read(&head[..length]), None, "{length} bytes");
            }
        }
    }

    #[test]
    fn whatever_is_out_of_the_ordinary_is_for_hyper() {
        let long = "x".repeat(200);
        let many = "x: y\r\n".repeat(FIELDS_MAX);
        for (line, fields) in [
            ("GET /payments HTTP/1.1", ""),
            ("POST /payments HTTP/1.0", ""),
            ("POST /payments? HTTP/1.1", ""),
            ("POST /payments/ HTTP/1.1", ""),
            ("POST http://x/payments HTTP/1.1", ""),
            ("POST /payments-summary HTTP/1.1", ""),
            ("POST /payments HTTP/1.1", "Transfer-Encoding: chunked\r\n"),
            ("POST /payments HTTP/1.1", "Expect: 100-continue\r\n"),
            ("POST /payments HTTP/1.1", "Upgrade: h2c\r\n"),
            ("POST /payments HTTP/1.1", "Connection: close\r\n"),
            ("POST /payments HTTP/1.1", "Connection: keep-alive, upgrade\r\n"),
            ("POST /payments HTTP/1.1", "Content-Type: text/plain\r\n"),
            ("POST /payments HTTP/1.1", "Content-Length: 2\r\n"),
            ("POST /payments HTTP/1.1", "no field\r\n"),
            ("POST /payments HTTP/1.1", &format!("x: {long}\r\n")),
            ("POST /payments HTTP/1.1", &many),
        ] {
            let request = format!("{line}\r\n{fields}Content-Length: 2\r\n\r\n{{}}");
            assert_eq!(body_and_rest(&request), None, "{request}");
        }
        for length in ["", "+2", "-2", "0x2", "2 ", "2, 2", "21", "99999", "000002", "1e1"] {
            let request = format!("POST /payments HTTP/1.1\r\nContent-Length:{length}\r\n\r\n");
            let whole = request + &" ".repeat(100_000);
            let plain = body_and_rest(&whole);
            // Spaces around a value are not a part of it.
            assert_eq!(plain.is_some(), length == "2 ", "{length}");
        }
        assert_eq!(body_and_rest("POST /payments HTTP/1.1\r\n\r\n"), None);
    }

    #[test]
    fn an_answer_has_the_date() {
        let writer = Writer::default();
        for answer in [accepted(), accepted(), accepted().and_close()] {
            let before = clock::now().to_http_date();
            let text = String::from_utf8(writer.bytes(&answer)).unwrap();
            let after = clock::now().to_http_date();
            let expected = [before, after]
                .map(|date| String::from_utf8(answer.to_bytes(Some(&date))).unwrap());
            assert!(expected.contains(&text), "{text}");
        }
    }
}
