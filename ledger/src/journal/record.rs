//! One record of a journal: 48 bytes, little endian.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC-32C of the segment's header checksum, the record's index, and bytes 4 to 47 |
//! | 4 | 1 | kind |
//! | 5 | 1 | processor: 0 none, 1 default, 2 fallback |
//! | 6 | 2 | HTTP status that the processor answered, 0 where it answered none |
//! | 8 | 16 | correlation id |
//! | 24 | 8 | amount in cents |
//! | 32 | 8 | `requestedAt` in milliseconds |
//! | 40 | 8 | moment of writing in milliseconds |
//!
//! A field that a kind does not use is zero. A seal uses bytes 8 to 15 for two numbers of its own, and a
//! mark for a place.

use super::position::Position;
use crate::id::{CORRELATION_ID_BYTES, CorrelationId};
use crate::money::Cents;
use crate::processor::Processor;
use crate::time::TimestampMs;

/// Bytes of a record.
pub const RECORD_BYTES: usize = 48;

const KIND_ACCEPTED: u8 = 1;
const KIND_DISPATCHED: u8 = 2;
const KIND_FAILED: u8 = 3;
const KIND_SETTLED: u8 = 4;
const KIND_REFUSED: u8 = 5;
const KIND_DUPLICATE: u8 = 6;
const KIND_SEALED: u8 = 7;
const KIND_SYNCED: u8 = 8;

/// What happened to a payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// It was taken in. Its client is told so only after this record was written.
    Accepted,
    /// It is about to be sent: from here on the processor may have it.
    Dispatched {
        /// Where it goes.
        processor: Processor,
        /// The `requestedAt` that is sent along.
        requested_at: TimestampMs,
    },
    /// Every call that was made for it is known to have left nothing behind: no processor has it,
    /// or will have it.
    Failed {
        /// Where the last call went.
        processor: Processor,
        /// What it answered; 0 where no connection was made.
        status: u16,
    },
    /// A processor has it. This is final.
    Settled {
        /// Which one.
        processor: Processor,
        /// The `requestedAt` that the processor recorded.
        requested_at: TimestampMs,
    },
    /// Both processors refuse to take it, whenever asked. This is final.
    Refused {
        /// The last one to refuse.
        processor: Processor,
        /// What it answered.
        status: u16,
    },
    /// Another record holds the right to this correlation id; this one is void. This is final.
    Duplicate,
}

/// A record about a payment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PaymentRecord {
    /// Which payment.
    pub id: CorrelationId,
    /// Its amount.
    pub amount: Cents,
    /// When the record was written.
    pub written_at: TimestampMs,
    /// What happened.
    pub event: Event,
}

/// The last record of a segment that is full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seal {
    /// Records before this one.
    pub records_count: u32,
    /// The oldest segment with a payment that was still open when this one was sealed. Recovery
    /// need not read any segment before it.
    pub oldest_open_segment: u32,
    /// When the segment was sealed.
    pub written_at: TimestampMs,
}

/// A record of a journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record {
    /// Something happened to a payment.
    Payment(PaymentRecord),
    /// The segment ends here.
    Sealed(Seal),
    /// Everything before a place was on the disk when this was written.
    Synced(Mark),
}

/// A record that says how much of the journal was on the disk when it was written. After a power cut it
/// tells what must be there from what may be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// The end of what was on the disk.
    pub through: Position,
    /// When the mark was written.
    pub written_at: TimestampMs,
}

/// Why 48 bytes are not a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RecordError {
    /// The checksum is of other bytes, or of another place.
    #[error("the checksum is wrong")]
    Checksum,
    /// The checksum is right, and the record still says nothing that this version knows.
    #[error("the {0} is not one that this version writes")]
    Field(&'static str),
}

/// What ties a record to its place: the same bytes elsewhere are no record.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub header_checksum: u32,
    pub index: u32,
}

/// Bytes of a record but for its checksum.
const BODY_BYTES: usize = RECORD_BYTES - 4;

/// Bytes of a place.
const PLACE_BYTES: usize = 8;

/// Bytes that begin where a number of 8 bytes may.
#[repr(align(8))]
struct Aligned([u8; PLACE_BYTES + BODY_BYTES]);

impl Place {
    fn checksum(self, body: &[u8; BODY_BYTES]) -> u32 {
        // In one piece, and where a number of 8 bytes may lie: that halves the time that it takes.
        let mut whole = Aligned([0; PLACE_BYTES + BODY_BYTES]);
        let (place, rest) = whole.0.split_at_mut(PLACE_BYTES);
        place[..4].copy_from_slice(&self.header_checksum.to_le_bytes());
        place[4..].copy_from_slice(&self.index.to_le_bytes());
        rest.copy_from_slice(body);
        crc32c::crc32c(&whole.0)
    }
}

impl Record {
    /// Appends the record's bytes.
    pub(crate) fn encode(&self, place: Place, out: &mut Vec<u8>) {
        let mut bytes = [0; RECORD_BYTES];
        match self {
            Self::Payment(payment) => payment.encode(&mut bytes),
            Self::Sealed(seal) => {
                bytes[4] = KIND_SEALED;
                bytes[8..12].copy_from_slice(&seal.records_count.to_le_bytes());
                bytes[12..16].copy_from_slice(&seal.oldest_open_segment.to_le_bytes());
                bytes[40..48].copy_from_slice(&seal.written_at.get().to_le_bytes());
            }
            Self::Synced(mark) => {
                bytes[4] = KIND_SYNCED;
                bytes[8..16].copy_from_slice(&mark.through.to_u64().to_le_bytes());
                bytes[40..48].copy_from_slice(&mark.written_at.get().to_le_bytes());
            }
        }
        let checksum = place.checksum(&field(&bytes, 4));
        bytes[..4].copy_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&bytes);
    }

    /// Reads the record from its bytes.
    pub(crate) fn decode(bytes: &[u8; RECORD_BYTES], place: Place) -> Result<Self, RecordError> {
        if place.checksum(&field(bytes, 4)) != u32::from_le_bytes(field(bytes, 0)) {
            return Err(RecordError::Checksum);
        }
        match bytes[4] {
            KIND_SEALED => decode_seal(bytes).map(Self::Sealed),
            KIND_SYNCED => decode_mark(bytes).map(Self::Synced),
            _ => PaymentRecord::decode(bytes).map(Self::Payment),
        }
    }
}

impl PaymentRecord {
    fn encode(&self, bytes: &mut [u8; RECORD_BYTES]) {
        let (kind, processor, status, requested_at) = match self.event {
            Event::Accepted => (KIND_ACCEPTED, None, 0, 0),
            Event::Dispatched { processor, requested_at } => {
                (KIND_DISPATCHED, Some(processor), 0, requested_at.get())
            }
            Event::Failed { processor, status } => (KIND_FAILED, Some(processor), status, 0),
            Event::Settled { processor, requested_at } => {
                (KIND_SETTLED, Some(processor), 0, requested_at.get())
            }
            Event::Refused { processor, status } => (KIND_REFUSED, Some(processor), status, 0),
            Event::Duplicate => (KIND_DUPLICATE, None, 0, 0),
        };
        bytes[4] = kind;
        bytes[5] = processor.map_or(0, Processor::code);
        bytes[6..8].copy_from_slice(&status.to_le_bytes());
        bytes[8..24].copy_from_slice(&self.id.to_bytes());
        bytes[24..32].copy_from_slice(&self.amount.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&requested_at.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.written_at.get().to_le_bytes());
    }

    fn decode(bytes: &[u8; RECORD_BYTES]) -> Result<Self, RecordError> {
        let status = u16::from_le_bytes(field(bytes, 6));
        let requested_at = i64::from_le_bytes(field(bytes, 32));
        let processor = || Processor::from_code(bytes[5]).ok_or(RecordError::Field("processor"));
        let moment = |ms| TimestampMs::new(ms).ok_or(RecordError::Field("moment"));
        let event = match bytes[4] {
            KIND_ACCEPTED => Event::Accepted,
            KIND_DISPATCHED => {
                Event::Dispatched { processor: processor()?, requested_at: moment(requested_at)? }
            }
            KIND_FAILED => Event::Failed { processor: processor()?, status },
            KIND_SETTLED => {
                Event::Settled { processor: processor()?, requested_at: moment(requested_at)? }
            }
            KIND_REFUSED => Event::Refused { processor: processor()?, status },
            KIND_DUPLICATE => Event::Duplicate,
            _ => return Err(RecordError::Field("kind")),
        };
        let amount = Cents::new(i64::from_le_bytes(field(bytes, 24)));
        if !amount.is_payment_amount() {
            return Err(RecordError::Field("amount"));
        }
        let record = Self {
            id: CorrelationId::from_bytes(field::<CORRELATION_ID_BYTES>(bytes, 8)),
            amount,
            written_at: moment(i64::from_le_bytes(field(bytes, 40)))?,
            event,
        };
        // Whatever this version did not read would be lost by it, so it must be nothing.
        let mut again = [0; RECORD_BYTES];
        record.encode(&mut again);
        if again[4..] == bytes[4..] { Ok(record) } else { Err(RecordError::Field("unused part")) }
    }
}

/// Checks that the bytes that seals and marks do not use are nothing.
fn check_unused(bytes: &[u8; RECORD_BYTES]) -> Result<(), RecordError> {
    let mut unused = bytes[5..8].iter().chain(&bytes[16..40]);
    if unused.any(|byte| *byte != 0) { Err(RecordError::Field("unused part")) } else { Ok(()) }
}

fn decode_mark(bytes: &[u8; RECORD_BYTES]) -> Result<Mark, RecordError> {
    check_unused(bytes)?;
    Ok(Mark {
        through: Position::from_u64(u64::from_le_bytes(field(bytes, 8))),
        written_at: TimestampMs::new(i64::from_le_bytes(field(bytes, 40)))
            .ok_or(RecordError::Field("moment"))?,
    })
}

fn decode_seal(bytes: &[u8; RECORD_BYTES]) -> Result<Seal, RecordError> {
    check_unused(bytes)?;
    Ok(Seal {
        records_count: u32::from_le_bytes(field(bytes, 8)),
        oldest_open_segment: u32::from_le_bytes(field(bytes, 12)),
        written_at: TimestampMs::new(i64::from_le_bytes(field(bytes, 40)))
            .ok_or(RecordError::Field("moment"))?,
    })
}

/// The bytes of a field.
fn field<const N: usize>(bytes: &[u8; RECORD_BYTES], offset: usize) -> [u8; N] {
    let mut value = [0; N];
    value.copy_from_slice(&bytes[offset..offset + N]);
    value
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::money::PAYMENT_CENTS;

    pub(crate) fn any_record() -> impl Strategy<Value = Record> {
        let moment =
            (TimestampMs::MIN.get()..=TimestampMs::MAX.get()).prop_map(TimestampMs::clamped);
        let processor = prop::sample::select(Processor::ALL.to_vec());
        let event = prop_oneof![
            Just(Event::Accepted),
            (processor.clone(), moment.clone()).prop_map(|(processor, requested_at)| {
                Event::Dispatched { processor, requested_at }
            }),
            (processor.clone(), any::<u16>())
                .prop_map(|(processor, status)| Event::Failed { processor, status }),
            (processor.clone(), moment.clone()).prop_map(|(processor, requested_at)| {
                Event::Settled { processor, requested_at }
            }),
            (processor, any::<u16>())
                .prop_map(|(processor, status)| Event::Refused { processor, status }),
            Just(Event::Duplicate),
        ];
        let payment = (any::<[u8; 16]>(), PAYMENT_CENTS, moment.clone(), event).prop_map(
            |(id, cents, written_at, event)| {
                Record::Payment(PaymentRecord {
                    id: CorrelationId::from_bytes(id),
                    amount: Cents::new(cents),
                    written_at,
                    event,
                })
            },
        );
        let mark = (any::<u64>(), moment.clone()).prop_map(|(through, written_at)| {
            Record::Synced(Mark { through: Position::from_u64(through), written_at })
        });
        let seal = (any::<u32>(), any::<u32>(), moment).prop_map(
            |(records_count, oldest_open_segment, written_at)| {
                Record::Sealed(Seal { records_count, oldest_open_segment, written_at })
            },
        );
        prop_oneof![9 => payment, 1 => seal, 1 => mark]
    }

    fn encoded(record: &Record, place: Place) -> [u8; RECORD_BYTES] {
        let mut bytes = Vec::new();
        record.encode(place, &mut bytes);
        bytes.try_into().unwrap()
    }

    proptest! {
        #[test]
        fn what_is_written_is_what_is_read(record in any_record(), header in any::<u32>(), index in any::<u32>()) {
            let place = Place { header_checksum: header, index };
            prop_assert_eq!(Record::decode(&encoded(&record, place), place), Ok(record));
        }

        #[test]
        fn a_changed_bit_anywhere_is_noticed(record in any_record(), bit in 0..RECORD_BYTES * 8) {
            let place = Place { header_checksum: 7, index: 3 };
            let mut bytes = encoded(&record, place);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Record::decode(&bytes, place), Err(RecordError::Checksum));
        }

        #[test]
        fn a_record_is_none_at_another_place(record in any_record()) {
            let place = Place { header_checksum: 7, index: 3 };
            let bytes = encoded(&record, place);
            for elsewhere in [Place { index: 4, ..place }, Place { header_checksum: 8, ..place }] {
                prop_assert_eq!(Record::decode(&bytes, elsewhere), Err(RecordError::Checksum));
            }
        }

        #[test]
        fn a_right_checksum_does_not_make_nonsense_a_record(body in any::<[u8; 44]>()) {
            let place = Place { header_checksum: 7, index: 3 };
            let mut bytes = [0; RECORD_BYTES];
            bytes[4..].copy_from_slice(&body);
            let checksum = place.checksum(&field(&bytes, 4));
            bytes[..4].copy_from_slice(&checksum.to_le_bytes());
            // Whatever is accepted says all that its bytes say.
            if let Ok(record) = Record::decode(&bytes, place) {
                prop_assert_eq!(encoded(&record, place), bytes);
            }
        }
    }

    #[test]
    fn zeros_are_no_record() {
        let place = Place { header_checksum: 0, index: 0 };
        assert!(Record::decode(&[0; RECORD_BYTES], place).is_err());
    }
}
