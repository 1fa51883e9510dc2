//! What the floor server reads and answers on one connection, without the connection.

/// The answer to every request: what the router answers to a payment, and what a summary of nothing
/// would be read from just as well.
const ANSWER: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

/// Bytes that are kept of a request at most.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Headers of a request at most.
const HEADERS_MAX: usize = 32;

/// What has arrived of a request.
#[derive(Default)]
pub(super) struct Conversation {
    pending: Vec<u8>,
}

impl Conversation {
    /// Takes what has arrived. Gives the answers to the requests that it completes; nothing where it
    /// is no HTTP, or too long.
    pub(super) fn take(&mut self, arrived: &[u8]) -> Option<Vec<u8>> {
        // Nearly always, whole requests arrive and nothing is kept.
        if self.pending.is_empty() {
            let (taken, answers) = answer_all(arrived)?;
            self.pending.extend_from_slice(&arrived[taken..]);
            return self.is_short().then_some(answers);
        }
        self.pending.extend_from_slice(arrived);
        let (taken, answers) = answer_all(&self.pending)?;
        self.pending.drain(..taken);
        self.is_short().then_some(answers)
    }

    fn is_short(&self) -> bool {
        self.pending.len() <= REQUEST_BYTES_MAX
    }
}

/// Answers all requests that are whole. Gives their bytes and the answers.
fn answer_all(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let mut taken = 0;
    let mut answers = Vec::new();
    while let Some(length) = request_length(&bytes[taken..])? {
        taken += length;
        answers.extend_from_slice(ANSWER);
    }
    Some((taken, answers))
}

/// The bytes of the first request, if it is whole; nothing at all where it is no request.
#[allow(clippy::option_option)]
fn request_length(bytes: &[u8]) -> Option<Option<usize>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes).ok()? else {
        return Some(None);
    };
    let mut length = 0;
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            let text = str::from_utf8(header.value).ok()?;
            length = text.parse::<usize>().ok().filter(|length| *length <= REQUEST_BYTES_MAX)?;
        }
    }
    Some((bytes.len() >= head + length).then_some(head + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_once_it_is_whole_wherever_it_is_cut() {
        let request = b"POST /payments HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
        for cut in 0..request.len() {
            let mut conversation = Conversation::default();
            assert_eq!(conversation.take(&request[..cut]).unwrap(), b"", "{cut}");
            assert_eq!(conversation.take(&request[cut..]).unwrap(), ANSWER, "{cut}");
            assert!(conversation.pending.is_empty());
        }
    }

    #[test]
    fn what_is_no_request_ends_the_conversation() {
        for bytes in [&b"\x00\x01"[..], b"GET / HTTP/1.1\r\ncontent-length: x\r\n\r\n"] {
            assert!(Conversation::default().take(bytes).is_none());
        }
        let long = [&b"GET / HTTP/1.1\r\na: "[..], &vec![b'b'; REQUEST_BYTES_MAX]].concat();
        assert!(Conversation::default().take(&long).is_none());
    }
}
