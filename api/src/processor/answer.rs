//! Reading a processor's answer as its bytes arrive: head, framing and body (RFC 9112).
//!
//! What an answer says decides whether a payment is settled, so nothing is guessed: an answer that is
//! not framed as HTTP says, or has two lengths, is none. `httparse` reads heads and the sizes of chunks.

use std::mem::MaybeUninit;

use httparse::{ParserConfig, Status};

/// Bytes of an answer's body, at most. An answer of a processor is far shorter.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Room for what an answer nearly always is; no more is kept between two of them.
pub const ANSWER_BYTES_USUAL: usize = 1024;

/// Bytes of an answer's head, those of interim answers before it included.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Fields of a head.
const FIELDS_MAX: usize = 64;

/// Bytes of the line with the size of a chunk, and of the trailer after the last one.
const CHUNK_LINE_BYTES_MAX: usize = 1 << 10;

/// Bytes of chunked framing at most: sizes and line ends beside what they carry.
const CHUNKED_BYTES_MAX: usize = 4 * ANSWER_BYTES_MAX;

/// Why bytes are not an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// They do not begin as an answer does, or a field in them is none.
    #[error("it is no HTTP")]
    NoHttp,
    /// Its head is longer than [`HEAD_BYTES_MAX`], or has more fields than [`FIELDS_MAX`].
    #[error("its head is too long")]
    HeadTooLong,
    /// It does not say in one way where its body ends.
    #[error("it does not say where it ends")]
    Framing,
    /// Its body is longer than [`ANSWER_BYTES_MAX`].
    #[error("it is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    /// The connection ended before it did.
    #[error("it ends too early")]
    Incomplete,
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    /// Its status.
    pub status: u16,
    /// Its body.
    pub body: &'a [u8],
    /// Whether another request can be sent over its connection.
    pub keeps_connection: bool,
}

/// Where an answer's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// After this many bytes.
    Length(usize),
    /// After the last chunk.
    Chunked,
    /// With the connection.
    UntilClose,
}

/// What a head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    framing: Framing,
    keeps_connection: bool,
}

/// The bytes of one answer, as far as they have arrived.
#[derive(Debug, Default)]
pub struct AnswerReader {
    /// What has arrived.
    bytes: Vec<u8>,
    /// The head, once it is there.
    head: Option<Head>,
    /// Where in `bytes` that which is not read yet begins.
    next: usize,
    /// Bytes of the chunks that were read, framing included.
    chunks_bytes: usize,
    /// What the chunks that were read carry.
    body: Vec<u8>,
    /// The last chunk was read; the trailer follows.
    in_trailer: bool,
}

impl AnswerReader {
    /// Forgets the answer before, to read the next one.
    pub fn begin(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(ANSWER_BYTES_USUAL);
        self.head = None;
        self.next = 0;
        self.chunks_bytes = 0;
        self.body.clear();
        self.body.shrink_to(ANSWER_BYTES_USUAL);
        self.in_trailer = false;
    }

    /// Where arriving bytes are to be appended.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// The answer, if it is whole with what has arrived; `None` if more must arrive first. `is_ended`
    /// says that nothing more will.
    ///
    /// # Errors
    /// These bytes are no answer, or will never be a whole one.
    pub fn whole(&mut self, is_ended: bool) -> Result<Option<Answer<'_>>, AnswerError> {
        let incomplete = if is_ended { Err(AnswerError::Incomplete) } else { Ok(None) };
        let Some(head) = self.read_head()? else { return incomplete };
        let arrived = self.bytes.len() - self.next;
        match head.framing {
            Framing::Length(count) if arrived < count => incomplete,
            Framing::Length(count) => {
                let body = &self.bytes[self.next..self.next + count];
                // What follows an answer that nobody asked for is nobody's answer.
                let keeps_connection = head.keeps_connection && arrived == count;
                Ok(Some(Answer { status: head.status, body, keeps_connection }))
            }
            Framing::UntilClose if arrived > ANSWER_BYTES_MAX => Err(AnswerError::TooLong),
            Framing::UntilClose if !is_ended => Ok(None),
            Framing::UntilClose => {
                let body = &self.bytes[self.next..];
                Ok(Some(Answer { status: head.status, body, keeps_connection: false }))
            }
            Framing::Chunked if !self.read_chunks()? => {
                // What was read of it is in `body`.
                self.bytes.drain(..self.next);
                self.next = 0;
                incomplete
            }
            Framing::Chunked => {
                let keeps_connection = head.keeps_connection && self.next == self.bytes.len();
                Ok(Some(Answer { status: head.status, body: &self.body, keeps_connection }))
            }
        }
    }

    /// The head, if it is there. Interim answers before it are passed over.
    fn read_head(&mut self) -> Result<Option<Head>, AnswerError> {
        while self.head.is_none() {
            let Some((head, count)) = parse_head(&self.bytes[self.next..])? else {
                return if self.bytes.len() > HEAD_BYTES_MAX {
                    Err(AnswerError::HeadTooLong)
                } else {
                    Ok(None)
                };
            };
            self.next += count;
            if self.next > HEAD_BYTES_MAX {
                return Err(AnswerError::HeadTooLong);
            }
            match head.status {
                // Nobody has asked for another protocol.
                101 => return Err(AnswerError::NoHttp),
                100..200 => {}
                _ => self.head = Some(head),
            }
        }
        Ok(self.head)
    }

    /// Reads chunks as far as they have arrived. True once the last one and the trailer were read.
    fn read_chunks(&mut self) -> Result<bool, AnswerError> {
        while !self.in_trailer {
            let rest = &self.bytes[self.next..];
            // A line without a digit would be read as that of the last chunk.
            if rest.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
                return Err(AnswerError::Framing);
            }
            let (line, size) = match httparse::parse_chunk_size(rest) {
                Ok(Status::Complete(parsed)) => parsed,
                Ok(Status::Partial) if rest.len() > CHUNK_LINE_BYTES_MAX => {
                    return Err(AnswerError::Framing);
                }
                Ok(Status::Partial) => return Ok(false),
                Err(_) => return Err(AnswerError::Framing),
            };
            if size == 0 {
                self.next += line;
                self.in_trailer = true;
                break;
            }
            let room = ANSWER_BYTES_MAX - self.body.len();
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            if size > room || self.chunks_bytes > CHUNKED_BYTES_MAX {
                return Err(AnswerError::TooLong);
            }
            let Some((data, end)) = rest[line..].split_at_checked(size) else { return Ok(false) };
            match end {
                [b'\r', b'\n', ..] => {
                    self.body.extend_from_slice(data);
                    self.next += line + size + 2;
                    self.chunks_bytes += line + size + 2;
                }
                [] | [b'\r'] => return Ok(false),
                _ => return Err(AnswerError::Framing),
            }
        }
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        match httparse::parse_headers(&self.bytes[self.next..], &mut fields) {
            Ok(Status::Complete((count, _))) => {
                self.next += count;
                Ok(true)
            }
            Ok(Status::Partial) if self.bytes.len() - self.next > CHUNK_LINE_BYTES_MAX => {
                Err(AnswerError::Framing)
            }
            Ok(Status::Partial) => Ok(false),
            Err(_) => Err(AnswerError::Framing),
        }
    }
}

/// A head and its bytes, if they are all there.
fn parse_head(bytes: &[u8]) -> Result<Option<(Head, usize)>, AnswerError> {
    let mut fields = [MaybeUninit::uninit(); FIELDS_MAX];
    let mut response = httparse::Response::new(&mut []);
    let parsed = ParserConfig::default().parse_response_with_uninit_headers(
        &mut response,
        bytes,
        &mut fields,
    );
    let count = match parsed {
        Ok(Status::Complete(count)) => count,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(AnswerError::HeadTooLong),
        Err(_) => return Err(AnswerError::NoHttp),
    };
    let (Some(status), Some(version)) = (response.code, response.version) else {
        return Err(AnswerError::NoHttp);
    };
    let mut length = None;
    let mut is_chunked = false;
    let mut keeps_connection = version == 1;
    for field in response.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("content-length") {
            let value = parse_length(field.value).ok_or(AnswerError::Framing)?;
            if length.replace(value).is_some_and(|other| other != value) {
                return Err(AnswerError::Framing);
            }
        } else if is("transfer-encoding") {
            if is_chunked || !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(AnswerError::Framing);
            }
            is_chunked = true;
        } else if is("connection") {
            for word in field.value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                if word.eq_ignore_ascii_case(b"close") {
                    keeps_connection = false;
                } else if version == 0 && word.eq_ignore_ascii_case(b"keep-alive") {
                    keeps_connection = true;
                }
            }
        }
    }
    let framing = match (status, length, is_chunked) {
        (100..200 | 204 | 304, _, _) => Framing::Length(0),
        (_, Some(_), true) => return Err(AnswerError::Framing),
        (_, Some(count), false) if count > ANSWER_BYTES_MAX => return Err(AnswerError::TooLong),
        (_, Some(count), false) => Framing::Length(count),
        (_, None, true) => Framing::Chunked,
        (_, None, false) => Framing::UntilClose,
    };
    Ok(Some((Head { status, framing, keeps_connection }, count)))
}

/// A length as a head has it: digits and nothing else.
pub fn parse_length(value: &[u8]) -> Option<usize> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of an answer whose bytes arrive in pieces of this size, and then the end.
    fn read(bytes: &[u8], piece_bytes: usize) -> Result<(u16, Vec<u8>, bool), AnswerError> {
        let mut reader = AnswerReader::default();
        reader.begin();
        for piece in bytes.chunks(piece_bytes) {
            reader.buffer().extend_from_slice(piece);
            if let Some(answer) = reader.whole(false)? {
                return Ok((answer.status, answer.body.to_vec(), answer.keeps_connection));
            }
        }
        let answer = reader.whole(true)?.expect("at the end it is whole or an error");
        Ok((answer.status, answer.body.to_vec(), answer.keeps_connection))
    }

    #[test]
    fn an_answer_is_the_same_in_pieces_of_any_size() {
        for (text, status, body, keeps) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok", true),
            ("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", 500, "", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, "", true),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\nok",
                200,
                "ok",
                false,
            ),
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", 200, "ok", false),
            (
                "HTTP/1.0 200 OK\r\ncontent-length: 2\r\nconnection: x, Keep-Alive\r\n\r\nok",
                200,
                "ok",
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, "until the end", false),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\nA;x=y\r\n0123456789\r\n0\r\nx: y\r\n\r\n",
                200,
                "ok0123456789",
                true,
            ),
            (
                "HTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 422 No\r\ncontent-length: 1\r\n\r\nx",
                422,
                "x",
                true,
            ),
            ("HTTP/1.1 404 No\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\nx", 404, "x", true),
        ] {
            for piece_bytes in [1, 2, 3, 7, text.len()] {
                let expected = Ok((status, body.as_bytes().to_vec(), keeps));
                assert_eq!(read(text.as_bytes(), piece_bytes), expected, "{text:?} {piece_bytes}");
            }
        }
    }

    #[test]
    fn what_is_not_framed_as_http_says_is_no_answer() {
        let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
        let long = "x".repeat(HEAD_BYTES_MAX);
        for (text, expected) in [
            ("hello, I am no HTTP\r\n\r\n".to_owned(), AnswerError::NoHttp),
            ("HTTP/1.1 101 Switch\r\n\r\n".to_owned(), AnswerError::NoHttp),
            (head("content-length: 1\r\ncontent-length: 2\r\n"), AnswerError::Framing),
            (head("content-length: +1\r\n"), AnswerError::Framing),
            (head("content-length: \r\n"), AnswerError::Framing),
            (head("content-length: 99999999999999999999999\r\n"), AnswerError::Framing),
            (head("content-length: 65537\r\n"), AnswerError::TooLong),
            (head("transfer-encoding: gzip, chunked\r\n"), AnswerError::Framing),
            (head("content-length: 1\r\ntransfer-encoding: chunked\r\n"), AnswerError::Framing),
            (head("transfer-encoding: chunked\r\n") + "x\r\n", AnswerError::Framing),
            (head("transfer-encoding: chunked\r\n") + "1\r\nxx", AnswerError::Framing),
            (head("transfer-encoding: chunked\r\n") + "2\r\nok\r\n\r\n\r\n", AnswerError::Framing),
            (head("transfer-encoding: chunked\r\n") + ";x\r\n\r\n", AnswerError::Framing),
            (head("transfer-encoding: chunked\r\n") + " \r\n\r\n", AnswerError::Framing),
            (head("transfer-encoding: chunked\r\n") + "FFFFFFFF\r\n", AnswerError::TooLong),
            (head("transfer-encoding: chunked\r\n") + "1\r\nx\r\n", AnswerError::Incomplete),
            (head("content-length: 3\r\n") + "ok", AnswerError::Incomplete),
            ("HTTP/1.1 200 OK\r\ncontent-".to_owned(), AnswerError::Incomplete),
            (String::new(), AnswerError::Incomplete),
            (head(&format!("x: {long}\r\n")), AnswerError::HeadTooLong),
            (format!("HTTP/1.1 200 OK\r\nx: {long}"), AnswerError::HeadTooLong),
            (head(&"x: y\r\n".repeat(FIELDS_MAX + 1)), AnswerError::HeadTooLong),
            ("HTTP/1.1 100 Go\r\n\r\n".repeat(1000), AnswerError::HeadTooLong),
            (head("") + &"x".repeat(ANSWER_BYTES_MAX + 1), AnswerError::TooLong),
        ] {
            for piece_bytes in [97, text.len().max(1)] {
                let begin = &text[..text.len().min(80)];
                assert_eq!(read(text.as_bytes(), piece_bytes), Err(expected), "{begin:?}");
            }
        }
    }

    #[test]
    fn a_connection_with_more_than_was_asked_for_is_not_used_again() {
        for text in [
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nH",
        ] {
            assert_eq!(read(text.as_bytes(), text.len()), Ok((200, b"ok".to_vec(), false)));
        }
    }

    #[test]
    fn tiny_chunks_without_end_are_given_up() {
        let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
        let extension = "y".repeat(CHUNK_LINE_BYTES_MAX - 10);
        let chunk = format!("1;{extension}\r\nx\r\n");
        text.push_str(&chunk.repeat(1000));
        assert_eq!(read(text.as_bytes(), 4096), Err(AnswerError::TooLong));
    }

    #[test]
    fn one_reader_reads_one_answer_after_the_other() {
        let mut reader = AnswerReader::default();
        for body in ["first", "second"] {
            reader.begin();
            let count = body.len();
            let chunk = format!("{count:x}\r\n{body}\r\n0\r\n\r\n");
            let text = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{chunk}");
            reader.buffer().extend_from_slice(text.as_bytes());
            assert_eq!(reader.whole(false).unwrap().unwrap().body, body.as_bytes());
        }
    }

    #[test]
    fn a_long_answer_leaves_no_memory_behind_and_chunks_are_not_kept_twice() {
        let mut reader = AnswerReader::default();
        reader.begin();
        let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        reader.buffer().extend_from_slice(head);
        for _ in 0..ANSWER_BYTES_MAX / 1024 {
            let chunk = format!("400;{}\r\n{}\r\n", "x".repeat(900), "y".repeat(1024));
            reader.buffer().extend_from_slice(chunk.as_bytes());
            assert_eq!(reader.whole(false), Ok(None));
            assert!(reader.bytes.capacity() < 8192);
        }
        reader.buffer().extend_from_slice(b"0\r\n\r\n");
        assert_eq!(reader.whole(false).unwrap().unwrap().body.len(), ANSWER_BYTES_MAX);
        reader.begin();
        assert!(reader.bytes.capacity() + reader.body.capacity() <= 8192);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic_and_pieces_do_not_matter(
            start in prop::sample::select(vec![
                "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
                "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
            ]),
            rest in "[0-9a-f\r\n:; x]{0,60}",
            piece_bytes in 1usize..20,
        ) {
            let text = format!("{start}{rest}");
            let whole = read(text.as_bytes(), text.len().max(1));
            let pieces = read(text.as_bytes(), piece_bytes);
            match (whole, pieces) {
                // In one piece what follows the answer is seen with it.
                (Ok((status, body, _)), Ok((other_status, other_body, _))) => {
                    prop_assert_eq!((status, body), (other_status, other_body));
                }
                (whole, pieces) => prop_assert_eq!(whole, pieces),
            }
        }
    }
}
