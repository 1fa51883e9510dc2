//! What the floor server reads and answers on one connection, without the connection.

/// The answer to a payment: what the router answers.
const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n";

/// The answer to anything else: a summary of nothing, the router's and a processor's at once, so that the
/// contest's test takes this server for all of them.
const EMPTY_SUMMARY: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 137\r\n\r\n\
    {\"default\":{\"totalRequests\":0,\"totalAmount\":0.00},\"fallback\":{\"totalRequests\":0,\"totalAmount\":0.00},\
    \"totalRequests\":0,\"totalAmount\":0.00}";

/// What the requests are made to that are answered as payments.
const PAYMENTS: &str = "/payments";

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
    while let Some((length, answer)) = answer(&bytes[taken..])? {
        taken += length;
        answers.extend_from_slice(answer);
    }
    Some((taken, answers))
}

/// The number of bytes of the first request and its answer, if it is whole; nothing at all where it is no
/// request.
#[allow(clippy::option_option)]
fn answer(bytes: &[u8]) -> Option<Option<(usize, &'static [u8])>> {
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
    let answer = if request.path == Some(PAYMENTS) { ACCEPTED } else { EMPTY_SUMMARY };
    Some((bytes.len() >= head + length).then_some((head + length, answer)))
}

#[cfg(test)]
mod tests {
    use sonic_rs::JsonValueTrait as _;

    use super::*;

    #[test]
    fn a_request_is_answered_once_it_is_whole_wherever_it_is_cut() {
        let request = b"POST /payments HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
        for cut in 0..request.len() {
            let mut conversation = Conversation::default();
            assert_eq!(conversation.take(&request[..cut]).unwrap(), b"", "{cut}");
            assert_eq!(conversation.take(&request[cut..]).unwrap(), ACCEPTED, "{cut}");
            assert!(conversation.pending.is_empty());
        }
    }

    #[test]
    fn what_is_no_payment_is_answered_with_a_summary_of_nothing() {
        let request = b"GET /payments-summary?from=a HTTP/1.1\r\n\r\n";
        let answer = Conversation::default().take(request).unwrap();
        let (head, body) = str::from_utf8(&answer).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("\r\ncontent-length: {}", body.len())), "{head}");
        let summary: sonic_rs::Value = sonic_rs::from_str(body).unwrap();
        for counted in [&summary, &summary["default"], &summary["fallback"]] {
            assert_eq!(counted["totalRequests"].as_u64(), Some(0));
            assert_eq!(counted["totalAmount"].as_f64(), Some(0.0));
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
