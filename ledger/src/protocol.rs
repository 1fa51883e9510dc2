//! What APIs and the store say to each other over the store's Unix socket.
//!
//! A frame is a length (4 bytes, of what follows it), a request's number (4 bytes), a kind (1 byte)
//! and a body, all little endian. The store answers a request with a frame of the same number; a
//! frame with number 0 is a notice that nobody asked for. Requests of one connection are answered in
//! the order in which they came.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::id::{CORRELATION_ID_BYTES, CorrelationId};
use crate::journal::{Event, PaymentRecord, Position};
use crate::money::Cents;
use crate::processor::Processor;
use crate::time::{RangeMs, TimestampMs};
use crate::totals::Totals;

/// The version of these words. Both ends must speak the same.
pub const PROTOCOL_VERSION: u16 = 2;

/// Bytes of the longest frame, its length included.
pub const FRAME_BYTES_MAX: usize = 256 << 10;

/// Records that one claim decides at most.
pub const CLAIM_RECORDS_MAX: usize = 8192;

/// The number of a frame that nobody asked for.
pub const NOTICE: u32 = 0;

/// Bytes that are read at a time, at least.
const READ_BYTES: usize = 16 << 10;
const LENGTH_BYTES: usize = 4;
const HEAD_BYTES: usize = 5;

/// What an API asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// The first words of an API instance.
    Hello {
        /// The version that it speaks.
        version: u16,
        /// Which instance it is.
        instance: u16,
    },
    /// Which of this instance's accepted payments up to here may it send?
    Claim {
        /// The end of what is durably in its journal.
        through: Position,
    },
    /// What was settled in this span?
    Summarize(RangeMs),
    /// What is known of this payment?
    Look(CorrelationId),
    /// Empty everything.
    Purge,
    /// Where are the records of this payment?
    Trace(CorrelationId),
    /// The answer to [`Response::PreparePurge`]: this instance sends nothing until it hears
    /// [`Response::PurgeNotice`] or [`Response::PurgeAborted`].
    PurgePrepared {
        /// Which purge it agrees to.
        serial: u64,
    },
}

/// What the store answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    /// To [`Request::Hello`].
    Welcome(PurgeNotice),
    /// To [`Request::Claim`].
    Claimed {
        /// All accepted payments before this place are decided. It may lie before what was asked.
        through: Position,
        /// Those among them, since the last answer or the welcome, that another record has the
        /// right to. All others are this instance's to send.
        losers: Vec<Position>,
    },
    /// To [`Request::Summarize`]: totals by [`Processor::index`].
    Summary([Totals; 2]),
    /// To [`Request::Look`].
    Payment(Option<PaymentRecord>),
    /// To [`Request::Trace`]: all segments that have records of it.
    Traced(Vec<Trace>),
    /// To [`Request::Purge`]: it was carried out.
    Purged,
    /// To any request that could not be answered.
    Refused(String),
    /// A notice: a purge is about to be carried out. Send nothing new, and say so.
    PreparePurge {
        /// Which purge: one that is given up and one that follows it are two.
        serial: u64,
    },
    /// A notice: the purge was not carried out. Go on.
    PurgeAborted,
    /// A notice: a purge was carried out. Drop what it made void, and go on.
    PurgeNotice(PurgeNotice),
}

/// A segment that has records of a payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    /// The instance whose journal it is in.
    pub instance: u16,
    /// The first place of the segment that counts: what lies before was purged.
    pub from: Position,
}

/// Up to where an instance's journal was made void by a purge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PurgeNotice {
    /// The number of the last purge; 0 before the first.
    pub purge: u64,
    /// Payments accepted before this place and never sent are void.
    pub cut: Position,
}

/// Why bytes are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// Longer than any frame.
    #[error("a frame of {0} bytes is longer than {FRAME_BYTES_MAX}")]
    TooLong(usize),
    /// Not what this version says.
    #[error("a frame says nothing that version {PROTOCOL_VERSION} of the protocol knows")]
    Unknown,
}

impl From<ProtocolError> for io::Error {
    fn from(error: ProtocolError) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

struct Frame<'a> {
    number: u32,
    kind: u8,
    body: &'a [u8],
}

/// Splits a stream of bytes into frames.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl FrameBuffer {
    /// Adds what comes next from the other end. False at the end of the stream.
    ///
    /// # Errors
    /// The stream breaks.
    pub async fn fill(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        self.forget_read();
        self.bytes.reserve(READ_BYTES);
        Ok(stream.read_buf(&mut self.bytes).await? > 0)
    }

    /// Adds bytes that were received.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.forget_read();
        self.bytes.extend_from_slice(bytes);
    }

    fn forget_read(&mut self) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        } else if self.start >= FRAME_BYTES_MAX {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// The next whole frame.
    fn next(&mut self) -> Result<Option<Frame<'_>>, ProtocolError> {
        let rest = &self.bytes[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX - LENGTH_BYTES {
            return Err(ProtocolError::TooLong(length));
        }
        if length < HEAD_BYTES {
            return Err(ProtocolError::Unknown);
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.start += LENGTH_BYTES + length;
        let (head, body) = rest[..length].split_at(HEAD_BYTES);
        let number = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        Ok(Some(Frame { number, kind: head[4], body }))
    }

    /// The next whole request and its number.
    ///
    /// # Errors
    /// The bytes are not a request.
    pub fn next_request(&mut self) -> Result<Option<(u32, Request)>, ProtocolError> {
        let Some(Frame { number, kind, body }) = self.next()? else {
            return Ok(None);
        };
        let request = Request::decode(kind, body).ok_or(ProtocolError::Unknown)?;
        Ok(Some((number, request)))
    }

    /// The next whole response and the number of its request.
    ///
    /// # Errors
    /// The bytes are not a response.
    pub fn next_response(&mut self) -> Result<Option<(u32, Response)>, ProtocolError> {
        let Some(Frame { number, kind, body }) = self.next()? else {
            return Ok(None);
        };
        let response = Response::decode(kind, body).ok_or(ProtocolError::Unknown)?;
        Ok(Some((number, response)))
    }
}

/// Appends a frame whose body is written by `body`.
fn frame(out: &mut Vec<u8>, number: u32, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH_BYTES]);
    out.extend_from_slice(&number.to_le_bytes());
    out.push(kind);
    body(out);
    let length = u32::try_from(out.len() - start - LENGTH_BYTES).expect("a frame is short");
    out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
}

impl Request {
    /// Appends the request as a frame.
    pub fn encode(&self, number: u32, out: &mut Vec<u8>) {
        match self {
            Self::Hello { version, instance } => frame(out, number, 1, |out| {
                out.extend_from_slice(&version.to_le_bytes());
                out.extend_from_slice(&instance.to_le_bytes());
            }),
            Self::Claim { through } => frame(out, number, 2, |out| put_position(out, *through)),
            Self::Summarize(range) => frame(out, number, 3, |out| {
                out.extend_from_slice(&range.from.get().to_le_bytes());
                out.extend_from_slice(&range.to.get().to_le_bytes());
            }),
            Self::Look(id) => frame(out, number, 4, |out| out.extend_from_slice(&id.to_bytes())),
            Self::Purge => frame(out, number, 5, |_| ()),
            Self::PurgePrepared { serial } => {
                frame(out, number, 6, |out| out.extend_from_slice(&serial.to_le_bytes()));
            }
            Self::Trace(id) => frame(out, number, 7, |out| out.extend_from_slice(&id.to_bytes())),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let mut body = Body(body);
        let request = match kind {
            1 => Self::Hello { version: body.u16()?, instance: body.u16()? },
            2 => Self::Claim { through: body.position()? },
            3 => Self::Summarize(RangeMs { from: body.moment()?, to: body.moment()? }),
            4 => Self::Look(body.id()?),
            5 => Self::Purge,
            6 => Self::PurgePrepared { serial: body.u64()? },
            7 => Self::Trace(body.id()?),
            _ => return None,
        };
        body.ended().then_some(request)
    }
}

impl Response {
    /// Appends the response as a frame.
    pub fn encode(&self, number: u32, out: &mut Vec<u8>) {
        match self {
            Self::Welcome(notice) => frame(out, number, 1, |out| put_notice(out, *notice)),
            Self::Claimed { through, losers } => frame(out, number, 2, |out| {
                put_position(out, *through);
                for loser in losers {
                    put_position(out, *loser);
                }
            }),
            Self::Summary(totals) => frame(out, number, 3, |out| {
                for totals in totals {
                    out.extend_from_slice(&totals.count.to_le_bytes());
                    out.extend_from_slice(&totals.amount.get().to_le_bytes());
                }
            }),
            Self::Payment(None) => frame(out, number, 4, |_| ()),
            Self::Payment(Some(record)) => frame(out, number, 4, |out| put_record(out, record)),
            Self::Purged => frame(out, number, 5, |_| ()),
            Self::Refused(why) => {
                frame(out, number, 6, |out| out.extend_from_slice(why.as_bytes()));
            }
            Self::PreparePurge { serial } => {
                frame(out, number, 7, |out| out.extend_from_slice(&serial.to_le_bytes()));
            }
            Self::PurgeAborted => frame(out, number, 8, |_| ()),
            Self::PurgeNotice(notice) => frame(out, number, 9, |out| put_notice(out, *notice)),
            Self::Traced(traces) => frame(out, number, 10, |out| {
                for Trace { instance, from } in traces {
                    out.extend_from_slice(&instance.to_le_bytes());
                    put_position(out, *from);
                }
            }),
        }
    }

    fn decode(kind: u8, body: &[u8]) -> Option<Self> {
        let mut body = Body(body);
        let response = match kind {
            1 => Self::Welcome(body.notice()?),
            2 => {
                let through = body.position()?;
                let mut losers = Vec::new();
                while !body.ended() {
                    losers.push(body.position()?);
                }
                Self::Claimed { through, losers }
            }
            3 => Self::Summary([body.totals()?, body.totals()?]),
            4 if body.ended() => Self::Payment(None),
            4 => Self::Payment(Some(body.record()?)),
            5 => Self::Purged,
            6 => Self::Refused(String::from_utf8(std::mem::take(&mut body.0).to_vec()).ok()?),
            7 => Self::PreparePurge { serial: body.u64()? },
            8 => Self::PurgeAborted,
            9 => Self::PurgeNotice(body.notice()?),
            10 => {
                let mut traces = Vec::new();
                while !body.ended() {
                    traces.push(Trace { instance: body.u16()?, from: body.position()? });
                }
                Self::Traced(traces)
            }
            _ => return None,
        };
        body.ended().then_some(response)
    }
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    out.extend_from_slice(&position.to_u64().to_le_bytes());
}

fn put_notice(out: &mut Vec<u8>, notice: PurgeNotice) {
    out.extend_from_slice(&notice.purge.to_le_bytes());
    put_position(out, notice.cut);
}

fn put_record(out: &mut Vec<u8>, record: &PaymentRecord) {
    let (kind, processor, value) = match record.event {
        Event::Accepted => (1, 0, 0),
        Event::Dispatched { processor, requested_at } => (2, processor.code(), requested_at.get()),
        Event::Failed { processor, status } => (3, processor.code(), i64::from(status)),
        Event::Settled { processor, requested_at } => (4, processor.code(), requested_at.get()),
        Event::Refused { processor, status } => (5, processor.code(), i64::from(status)),
        Event::Duplicate => (6, 0, 0),
    };
    out.extend_from_slice(&record.id.to_bytes());
    out.extend_from_slice(&record.amount.get().to_le_bytes());
    out.extend_from_slice(&record.written_at.get().to_le_bytes());
    out.extend_from_slice(&[kind, processor]);
    out.extend_from_slice(&i64::to_le_bytes(value));
}

/// What is left of a frame's body.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn ended(&self) -> bool {
        self.0.is_empty()
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_le_bytes)
    }

    fn position(&mut self) -> Option<Position> {
        self.u64().map(Position::from_u64)
    }

    fn moment(&mut self) -> Option<TimestampMs> {
        self.i64().and_then(TimestampMs::new)
    }

    fn id(&mut self) -> Option<CorrelationId> {
        self.take::<CORRELATION_ID_BYTES>().map(CorrelationId::from_bytes)
    }

    fn totals(&mut self) -> Option<Totals> {
        Some(Totals { count: self.u64()?, amount: Cents::new(self.i64()?) })
    }

    fn notice(&mut self) -> Option<PurgeNotice> {
        Some(PurgeNotice { purge: self.u64()?, cut: self.position()? })
    }

    fn record(&mut self) -> Option<PaymentRecord> {
        let id = self.id()?;
        let amount = Cents::new(self.i64()?);
        let written_at = self.moment()?;
        let [kind, processor] = self.take()?;
        let value = self.i64()?;
        let is_bare = processor == 0 && value == 0;
        let processor = || Processor::from_code(processor);
        let requested_at = || TimestampMs::new(value);
        let status = || u16::try_from(value).ok();
        let event = match kind {
            // A field that a kind does not use is zero.
            1 if is_bare => Event::Accepted,
            2 => Event::Dispatched { processor: processor()?, requested_at: requested_at()? },
            3 => Event::Failed { processor: processor()?, status: status()? },
            4 => Event::Settled { processor: processor()?, requested_at: requested_at()? },
            5 => Event::Refused { processor: processor()?, status: status()? },
            6 if is_bare => Event::Duplicate,
            _ => return None,
        };
        amount.is_payment_amount().then_some(PaymentRecord { id, amount, written_at, event })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::journal::Record;
    use crate::journal::tests_support::any_record;

    fn requests() -> Vec<Request> {
        let position = Position { segment: 3, index: 17 };
        vec![
            Request::Hello { version: PROTOCOL_VERSION, instance: 2 },
            Request::Claim { through: position },
            Request::Summarize(RangeMs::ALL),
            Request::Look(CorrelationId::from_bytes([7; 16])),
            Request::Purge,
            Request::PurgePrepared { serial: 3 },
            Request::Trace(CorrelationId::from_bytes([7; 16])),
        ]
    }

    fn responses() -> Vec<Response> {
        let cut = Position { segment: 3, index: 17 };
        let notice = PurgeNotice { purge: 4, cut };
        vec![
            Response::Welcome(notice),
            Response::Claimed { through: cut, losers: vec![] },
            Response::Claimed { through: cut, losers: vec![Position::START, cut] },
            Response::Summary([Totals::of_payment(Cents::new(1990)), Totals::default()]),
            Response::Payment(None),
            Response::Purged,
            Response::PreparePurge { serial: 3 },
            Response::PurgeAborted,
            Response::Refused("the disk is full".to_owned()),
            Response::PurgeNotice(notice),
            Response::Traced(vec![]),
            Response::Traced(vec![
                Trace { instance: 1, from: cut },
                Trace { instance: u16::MAX, from: Position::START },
            ]),
        ]
    }

    /// Frames arrive whole whatever the pieces in which their bytes come.
    #[test]
    fn what_is_said_is_what_is_heard_in_pieces_of_any_size() {
        let mut said = Vec::new();
        for (number, request) in (1..).zip(requests()) {
            request.encode(number, &mut said);
        }
        for size in 1..said.len() {
            let mut buffer = FrameBuffer::default();
            let mut heard = Vec::new();
            for piece in said.chunks(size) {
                buffer.extend(piece);
                while let Some((number, request)) = buffer.next_request().unwrap() {
                    assert_eq!(number as usize, heard.len() + 1);
                    heard.push(request);
                }
            }
            assert_eq!(heard, requests());
        }
    }

    #[test]
    fn every_response_is_heard_as_it_was_said() {
        let mut buffer = FrameBuffer::default();
        for response in responses() {
            let mut said = Vec::new();
            response.encode(NOTICE, &mut said);
            buffer.extend(&said);
            assert_eq!(buffer.next_response().unwrap(), Some((NOTICE, response)));
        }
        assert_eq!(buffer.next_response().unwrap(), None);
    }

    #[test]
    fn the_longest_answer_fits_a_frame() {
        let losers = vec![Position::START; CLAIM_RECORDS_MAX];
        let mut said = Vec::new();
        Response::Claimed { through: Position::START, losers }.encode(1, &mut said);
        assert!(said.len() <= FRAME_BYTES_MAX);
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused_before_it_is_there() {
        let mut buffer = FrameBuffer::default();
        buffer.extend(&u32::MAX.to_le_bytes());
        assert_eq!(buffer.next_request(), Err(ProtocolError::TooLong(u32::MAX as usize)));
    }

    #[test]
    fn a_body_with_a_byte_too_many_or_too_few_is_refused() {
        for request in requests() {
            let mut said = Vec::new();
            request.encode(1, &mut said);
            let (kind, body) = (said[8], &said[9..]);
            assert_eq!(Request::decode(kind, body), Some(request));
            assert_eq!(Request::decode(kind, &[body, &[0]].concat()), None);
            assert!(body.is_empty() || Request::decode(kind, &body[1..]).is_none());
        }
    }

    /// Found by fuzzing: whatever stood in a field that its kind does not use was passed over.
    #[test]
    fn a_record_with_something_in_an_unused_field_is_refused() {
        for event in [Event::Accepted, Event::Duplicate] {
            let record = PaymentRecord {
                id: CorrelationId::from_bytes([7; 16]),
                amount: Cents::new(1990),
                written_at: TimestampMs::MIN,
                event,
            };
            let response = Response::Payment(Some(record));
            let mut said = Vec::new();
            response.encode(1, &mut said);
            let (kind, body) = (said[8], said[9..].to_vec());
            assert_eq!(Response::decode(kind, &body), Some(response));
            let processor = body.len() - 9;
            for unused in processor..body.len() {
                let mut body = body.clone();
                body[unused] = 1;
                assert_eq!(Response::decode(kind, &body), None, "byte {unused}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_payments_record_is_heard_as_it_was_said(record in any_record()) {
            if let Record::Payment(record) = record {
                let mut said = Vec::new();
                Response::Payment(Some(record)).encode(5, &mut said);
                let mut buffer = FrameBuffer::default();
                buffer.extend(&said);
                prop_assert_eq!(
                    buffer.next_response(),
                    Ok(Some((5, Response::Payment(Some(record)))))
                );
            }
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = FrameBuffer::default();
            buffer.extend(&bytes);
            while let Ok(Some(_)) = buffer.next_request() {}
            let mut buffer = FrameBuffer::default();
            buffer.extend(&bytes);
            while let Ok(Some(_)) = buffer.next_response() {}
        }
    }
}
