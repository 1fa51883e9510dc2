//! Where an HTTP message ends. Only what our programs and the processors send is understood: a
//! body has a length, or there is none.

/// Headers of a message, at most.
const HEADERS_MAX: usize = 32;

/// Bytes of a message, at most.
pub const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// Bytes that are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// It is no HTTP.
    #[error("it is no HTTP: {0}")]
    NoHttp(#[from] httparse::Error),
    /// Its end cannot be told.
    #[error("its length is not told by a Content-Length that can be read")]
    Length,
    /// It is too long.
    #[error("it has more than {MESSAGE_BYTES_MAX} bytes")]
    TooLong,
}

/// A request that is there as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeRequest {
    /// Its bytes, with its body.
    pub bytes: usize,
}

/// An answer that is there as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeResponse {
    /// Its status.
    pub status: u16,
    /// The bytes of its head.
    pub head_bytes: usize,
    /// Its bytes, with its body.
    pub bytes: usize,
    /// Whether it says that it is the last one on its connection.
    pub closes: bool,
}

/// The request that these bytes begin with, if all of it is there.
///
/// # Errors
/// They begin with something else.
pub fn request(bytes: &[u8]) -> Result<Option<WholeRequest>, MessageError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = request.parse(bytes)? else {
        return not_yet(bytes);
    };
    let length = head_bytes + body_bytes(request.headers, true)?;
    whole(bytes, length).map(|is| is.then_some(WholeRequest { bytes: length }))
}

/// The answer that these bytes begin with, if all of it is there.
///
/// # Errors
/// They begin with something else.
pub fn response(bytes: &[u8]) -> Result<Option<WholeResponse>, MessageError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_bytes) = response.parse(bytes)? else {
        return not_yet(bytes);
    };
    let status = response.code.unwrap_or_default();
    let length = head_bytes + body_bytes(response.headers, status == 204)?;
    let closes = response.headers.iter().any(|header| {
        header.name.eq_ignore_ascii_case("connection")
            && header.value.eq_ignore_ascii_case(b"close")
    });
    let message = WholeResponse { status, head_bytes, bytes: length, closes };
    whole(bytes, length).map(|is| is.then_some(message))
}

fn not_yet<T>(bytes: &[u8]) -> Result<Option<T>, MessageError> {
    whole(bytes, bytes.len() + 1).map(|_| None)
}

fn whole(bytes: &[u8], length: usize) -> Result<bool, MessageError> {
    if length > MESSAGE_BYTES_MAX {
        return Err(MessageError::TooLong);
    }
    Ok(bytes.len() >= length)
}

fn body_bytes(
    headers: &[httparse::Header<'_>],
    may_be_missing: bool,
) -> Result<usize, MessageError> {
    let value = |name: &str| headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if value("transfer-encoding").is_some() {
        return Err(MessageError::Length);
    }
    let Some(length) = value("content-length") else {
        return if may_be_missing { Ok(0) } else { Err(MessageError::Length) };
    };
    let length = str::from_utf8(length.value).ok().and_then(|text| text.parse().ok());
    length.filter(|length| *length <= MESSAGE_BYTES_MAX).ok_or(MessageError::Length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_whole_when_its_body_is_and_not_a_byte_sooner() {
        let one = b"POST /payments HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nabcd";
        for length in 0..one.len() {
            assert_eq!(request(&one[..length]), Ok(None), "{length}");
        }
        let two = [&one[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
        assert_eq!(request(&two), Ok(Some(WholeRequest { bytes: one.len() })));
        assert_eq!(request(&two[one.len()..]), Ok(Some(WholeRequest { bytes: 18 })));

        let answer = b"HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 2\r\n\r\nok";
        for length in 0..answer.len() {
            assert_eq!(response(&answer[..length]), Ok(None), "{length}");
        }
        let whole = response(answer).unwrap().unwrap();
        assert_eq!((whole.status, whole.bytes, whole.closes), (200, answer.len(), true));
        assert_eq!(&answer[whole.head_bytes..], b"ok");
        let none = response(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((none.status, none.bytes, none.closes), (204, none.head_bytes, false));
    }

    #[test]
    fn what_has_no_end_or_is_no_http_is_refused() {
        assert!(matches!(response(b"\x00\x01 garbage"), Err(MessageError::NoHttp(_))));
        let heads = [
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        ];
        for head in heads {
            assert_eq!(response(head.as_bytes()), Err(MessageError::Length), "{head}");
        }
        let endless = [b"GET / HTTP/1.1\r\na: ".to_vec(), vec![b'x'; MESSAGE_BYTES_MAX]].concat();
        assert_eq!(request(&endless), Err(MessageError::TooLong));
    }
}
