//! Journals with many settled payments, written as two API instances would write them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use ledger::disk::folder::FolderDisk;
use ledger::journal::{Event, Journal, JournalConfig, PaymentRecord};
use ledger::volume::Volume;
use ledger::{Cents, CorrelationId, Processor, TimestampMs, Totals};

/// Payments that are written at a time.
const BATCH_COUNT: u32 = 1024;
const INSTANCES: [u16; 2] = [1, 2];

/// The moment of the first payment; one follows in each millisecond.
pub fn at(number: u32) -> TimestampMs {
    at_pace(number, 1)
}

/// The same where more follow in each millisecond.
pub fn at_pace(number: u32, per_ms: u32) -> TimestampMs {
    TimestampMs::clamped(1_752_580_800_000 + i64::from(number / per_ms))
}

/// The payment with this number: its id, whose numbers are spread as at random, and its amount.
pub fn payment(number: u32) -> (CorrelationId, Cents) {
    let spread = u128::from(number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    (CorrelationId::from_bytes(spread.to_be_bytes()), Cents::new(i64::from(number % 9999) + 1))
}

/// The processor that has the payment with this number.
pub fn processor(number: u32) -> Processor {
    if number % 8 == 3 { Processor::Fallback } else { Processor::Default }
}

/// What the payments with these numbers add up to, by [`Processor::index`].
pub fn totals(numbers: std::ops::Range<u32>) -> [Totals; 2] {
    let mut totals = [Totals::default(); 2];
    for number in numbers {
        let sum = &mut totals[processor(number).index()];
        *sum = sum.checked_add(Totals::of_payment(payment(number).1)).unwrap();
    }
    totals
}

/// Writes this many payments with their whole lives, by turns to the journal of either instance.
pub fn write(volume: &Volume, boot_id: [u8; 16], payments_count: u32, segment_bytes: u64) {
    write_at_pace(volume, boot_id, payments_count, segment_bytes, 1);
}

/// The same with so many payments in each millisecond.
pub fn write_at_pace(
    volume: &Volume,
    boot_id: [u8; 16],
    payments_count: u32,
    segment_bytes: u64,
    per_ms: u32,
) {
    volume.create().unwrap();
    let mut journals = INSTANCES.map(|instance| {
        let disk = FolderDisk::create(volume.journal(instance)).unwrap();
        let config = JournalConfig { instance, segment_bytes, boot_id };
        Journal::open(disk, config, at(0), |_, _| ()).unwrap().0
    });
    let mut records = Vec::new();
    for first in (0..payments_count).step_by(BATCH_COUNT as usize) {
        let numbers = first..payments_count.min(first + BATCH_COUNT);
        records.clear();
        for event_of in [accepted, dispatched, settled] {
            let record_of = |number| {
                let at = at_pace(number, per_ms);
                record(number, at, event_of(number, at))
            };
            records.extend(numbers.clone().map(record_of));
        }
        let journal = &mut journals[(first / BATCH_COUNT) as usize % INSTANCES.len()];
        let oldest_open = journal.end().segment;
        let mut rest = &records[..];
        while !rest.is_empty() {
            let appended = journal.append(rest, oldest_open, at(first));
            assert!(appended.error.is_none(), "{:?}", appended.error);
            rest = &rest[appended.count..];
        }
    }
}

fn record(number: u32, written_at: TimestampMs, event: Event) -> PaymentRecord {
    let (id, amount) = payment(number);
    PaymentRecord { id, amount, written_at, event }
}

fn accepted(_: u32, _: TimestampMs) -> Event {
    Event::Accepted
}

fn dispatched(number: u32, requested_at: TimestampMs) -> Event {
    Event::Dispatched { processor: processor(number), requested_at }
}

fn settled(number: u32, requested_at: TimestampMs) -> Event {
    Event::Settled { processor: processor(number), requested_at }
}
