//! The sled database: a view of what was settled, as a pyramid of totals by time.
//!
//! One tree holds everything, so that one atomic batch carries totals and the places in the journals up
//! to which they are applied. Keys, with numbers big endian so that they sort:
//!
//! | key | value |
//! |---|---|
//! | `o`, instance (2) | the place in that instance's journal up to which the view is applied (8) |
//! | `p`, level from 3 on (1), bucket (8) | per part with payments, ascending: its number (1); count and cents of the default processor, then of the other (4 numbers of 1 to 10 bytes) |
//! | `v` | the version of all this (1) |
//!
//! A part is a bucket of the level below; the totals of a bucket are those of its parts together. A
//! bucket of level 2 is 256 ms, and is kept as a part only: what lies within one is told by the index, which
//! has what each segment settled in each millisecond. A number has seven bits in each byte, the lowest first,
//! and the eighth bit in all bytes but its last (LEB128). What sled costs is mostly per key, and what its
//! cache holds is counted in bytes.
//!
//! The payments themselves are in the journals, and found by the index. Nothing would read them here.
//!
//! The view is disposable. If sled cannot open it, panics over it, or gives totals that disagree with
//! each other, it is set aside and an empty one takes its place, to be filled from the journals.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ledger::daemon::expecting_panics;
use ledger::journal::Position;
use ledger::money::TotalOverflow;
use ledger::{Cents, Processor, RangeMs, TimestampMs, Totals};
use sled::{Batch, Db};

use crate::pyramid::{self, BOTTOM_LEVEL, LEVELS_COUNT, PARTS_COUNT};

const OFFSET_PREFIX: u8 = b'o';
const BUCKET_PREFIX: u8 = b'p';
const VERSION_KEY: [u8; 1] = [b'v'];
const VERSION: [u8; 1] = [5];
const TOP_LEVEL: u8 = LEVELS_COUNT - 1;

/// The totals of both processors, by [`Processor::index`].
type Both = [Totals; 2];

/// The totals of a bucket's parts.
type Parts = [Both; PARTS_COUNT];

/// How often sled writes what changed to the disk. Nothing depends on it but the time that the next
/// start takes.
const FLUSH_EVERY_MS: u64 = 1000;

/// How long the end of a database is waited for.
const TEARDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// The end of the name of a view that was set aside.
const SET_ASIDE_SUFFIX: &str = ".set-aside";

/// A payment that a processor recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settled {
    /// Its amount.
    pub amount: Cents,
    /// The processor that has it.
    pub processor: Processor,
    /// The `requestedAt` that the processor recorded.
    pub requested_at: TimestampMs,
}

/// What goes wrong with the view.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// sled refuses.
    #[error("the database {path} fails: {source}")]
    Sled {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: sled::Error,
    },
    /// A damaged view cannot be moved out of the way.
    #[error(
        "the damaged database {path} cannot be set aside: {source}. Delete that folder by hand"
    )]
    SetAside {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A value is not what this program writes.
    #[error("the database {path} holds a value that is not its own. Delete that folder")]
    Value {
        /// The folder.
        path: PathBuf,
    },
    /// Another version of the program wrote it.
    #[error("the database {path} has the format of another version of this program")]
    Version {
        /// The folder.
        path: PathBuf,
    },
    /// Totals that must be equal are not.
    #[error("the database {path} has not what the journals have")]
    Incomplete {
        /// The folder.
        path: PathBuf,
    },
    /// More money than a total can hold.
    #[error(transparent)]
    Overflow(#[from] TotalOverflow),
}

/// The view.
pub struct Database {
    /// Taken only when this is dropped.
    db: Option<Db>,
    path: PathBuf,
}

impl DatabaseError {
    /// Whether an empty view in the place of this one may help.
    #[must_use]
    pub fn speaks_against_the_view(&self) -> bool {
        match self {
            Self::Sled { source: sled::Error::Io(error), .. } => {
                !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
            }
            Self::Sled { .. }
            | Self::Value { .. }
            | Self::Version { .. }
            | Self::Incomplete { .. } => true,
            Self::SetAside { .. } | Self::Overflow(_) => false,
        }
    }
}

impl Database {
    /// Opens the view at this path, or sets a damaged one aside and begins an empty one.
    ///
    /// # Errors
    /// Not even an empty one can be opened.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, DatabaseError> {
        match Self::try_open(path, cache_bytes) {
            Ok(database) => Ok(database),
            Err(why) => Self::begin_anew(path, cache_bytes, &why),
        }
    }

    /// Sets the view at this path aside, whoever has it open, and begins an empty one.
    ///
    /// # Errors
    /// It cannot be moved, or the empty one cannot be opened.
    pub fn begin_anew(path: &Path, cache_bytes: u64, why: &str) -> Result<Self, DatabaseError> {
        tracing::warn!(
            "the database {} is not to be trusted ({why}); it is set aside with the ending \
             {SET_ASIDE_SUFFIX}, and rebuilt from the journals",
            path.display()
        );
        set_aside(path)?;
        Self::open_sled(path, cache_bytes)
            .map_err(|source| DatabaseError::Sled { path: path.to_owned(), source })
    }

    /// Opens what is there, if it is sound. sled answers some damage with a panic.
    fn try_open(path: &Path, cache_bytes: u64) -> Result<Self, String> {
        let attempt = expecting_panics(|| {
            let database = Self::open_sled(path, cache_bytes).map_err(|error| error.to_string())?;
            database.check().map_err(|error| error.to_string())?;
            Ok(database)
        });
        attempt.map_err(|panic| panic.lines().next().unwrap_or_default().to_owned()).flatten()
    }

    fn open_sled(path: &Path, cache_bytes: u64) -> sled::Result<Self> {
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .open()?;
        if !db.was_recovered() {
            db.insert(VERSION_KEY, &VERSION)?;
        }
        Ok(Self { db: Some(db), path: path.to_owned() })
    }

    fn db(&self) -> &Db {
        self.db.as_ref().expect("it is there until this is dropped")
    }

    /// Checks that this version wrote the view, and that each level of the pyramid has the same totals.
    fn check(&self) -> Result<(), DatabaseError> {
        let version = self.db().get(VERSION_KEY).map_err(|error| self.sled(error))?;
        if version.is_none_or(|version| version != VERSION) {
            return Err(DatabaseError::Version { path: self.path.clone() });
        }
        let top = self.sum_level(TOP_LEVEL)?;
        // The lower levels have as many buckets as there are payments; the upper ones tell enough, as
        // all levels change in one batch.
        for level in TOP_LEVEL - 4..TOP_LEVEL {
            if self.sum_level(level)? != top {
                return Err(self.bad_value());
            }
        }
        Ok(())
    }

    /// What the buckets of a level say was settled.
    fn sum_level(&self, level: u8) -> Result<Both, DatabaseError> {
        let mut sum = Both::default();
        for bucket in self.buckets(level) {
            let (_, parts) = bucket?;
            add(&mut sum, total(&parts)?)?;
        }
        Ok(sum)
    }

    /// The place in an instance's journal up to which the view is applied.
    ///
    /// # Errors
    /// sled refuses, or holds something else.
    pub fn offset(&self, instance: u16) -> Result<Option<Position>, DatabaseError> {
        let value = self.db().get(offset_key(instance)).map_err(|error| self.sled(error))?;
        let Some(value) = value else { return Ok(None) };
        let bytes = value.as_ref().try_into().map_err(|_| self.bad_value())?;
        Ok(Some(Position::from_u64(u64::from_be_bytes(bytes))))
    }

    /// Adds payments and moves the places up to which the view is applied, in one atomic step.
    ///
    /// # Errors
    /// sled refuses, or a total does not fit. The view is unchanged.
    pub fn apply(
        &self,
        payments: &mut [Settled],
        offsets: impl IntoIterator<Item = (u16, Position)>,
    ) -> Result<(), DatabaseError> {
        let mut changed: BTreeMap<(u8, u64), Parts> = BTreeMap::new();
        payments.sort_unstable_by_key(|payment| payment.requested_at);
        let bottom =
            |payment: &Settled| pyramid::bucket(pyramid::tick(payment.requested_at), BOTTOM_LEVEL);
        for payments in payments.chunk_by(|a, b| bottom(a) == bottom(b)) {
            let mut parts = Parts::default();
            for payment in payments {
                let part = pyramid::part(pyramid::tick(payment.requested_at), BOTTOM_LEVEL);
                let sum = &mut parts[part][payment.processor.index()];
                *sum = sum.checked_add(Totals::of_payment(payment.amount))?;
            }
            let added = total(&parts)?;
            changed.insert((BOTTOM_LEVEL, bottom(&payments[0])), parts);
            let tick = pyramid::tick(payments[0].requested_at);
            for level in BOTTOM_LEVEL + 1..LEVELS_COUNT {
                let parts = changed.entry((level, pyramid::bucket(tick, level))).or_default();
                add(&mut parts[pyramid::part(tick, level)], added)?;
            }
        }
        let mut batch = Batch::default();
        for ((level, bucket), added) in changed {
            let key = bucket_key(level, bucket);
            let mut parts = match self.db().get(key).map_err(|error| self.sled(error))? {
                Some(value) => self.parts(&value)?,
                None => Parts::default(),
            };
            for (part, added) in parts.iter_mut().zip(added) {
                add(part, added)?;
            }
            // So that a sum of parts always fits.
            total(&parts)?;
            batch.insert(&key, encode_parts(&parts));
        }
        for (instance, position) in offsets {
            batch.insert(&offset_key(instance), &position.to_u64().to_be_bytes());
        }
        self.db().apply_batch(batch).map_err(|error| self.sled(error))
    }

    /// What was settled through each processor in this span, by [`Processor::index`], of what was `settled` at
    /// all. `below` tells what lies between two ticks of one part of a bottom bucket. Each bucket on the way
    /// is checked to be the sum of its parts, because sled drops, without a word, what it can not read when it
    /// is opened.
    ///
    /// # Errors
    /// sled refuses, holds something else, or has lost something; or `below` refuses.
    pub fn sum<E: From<DatabaseError>>(
        &self,
        range: RangeMs,
        settled: Both,
        below: impl Fn(&Range<u64>) -> Result<Both, E>,
    ) -> Result<Both, E> {
        if range.from > range.to {
            return Ok(Both::default());
        }
        let (low, high) = (pyramid::tick(range.from), pyramid::tick(range.to) + 1);
        let top = self.top(settled)?;
        let before_low = self.sum_before(&top, low, &below)?;
        let sums = self.sum_before(&top, high, &below)?;
        Ok(subtract(sums, before_low).ok_or_else(|| self.incomplete())?)
    }

    /// The buckets of the top level, with the totals of each, if they are all that was settled.
    fn top(&self, settled: Both) -> Result<Vec<(u64, Both, Parts)>, DatabaseError> {
        let (mut top, mut sum) = (Vec::new(), Both::default());
        for bucket in self.buckets(TOP_LEVEL) {
            let (number, parts) = bucket?;
            let totals = total(&parts)?;
            add(&mut sum, totals)?;
            top.push((number, totals, parts));
        }
        if sum == settled { Ok(top) } else { Err(self.incomplete()) }
    }

    /// What was settled before a tick.
    fn sum_before<E: From<DatabaseError>>(
        &self,
        top: &[(u64, Both, Parts)],
        tick: u64,
        below: impl Fn(&Range<u64>) -> Result<Both, E>,
    ) -> Result<Both, E> {
        let (mut before, part) = self.sum_before_part(top, tick)?;
        let ticks = pyramid::ticks(pyramid::bucket(tick, BOTTOM_LEVEL - 1), BOTTOM_LEVEL - 1);
        if part == Both::default() || tick == ticks.start {
            return Ok(before);
        }
        // The shorter side tells as much as the other.
        let is_first_shorter = tick - ticks.start <= ticks.end - tick;
        let side = if is_first_shorter { ticks.start..tick } else { tick..ticks.end };
        let told = below(&side)?;
        let rest = subtract(part, told).ok_or_else(|| self.incomplete())?;
        add(&mut before, if is_first_shorter { told } else { rest })
            .map_err(DatabaseError::from)?;
        Ok(before)
    }

    /// What was settled before the part of a bottom bucket that has this tick, and in that part.
    fn sum_before_part(
        &self,
        top: &[(u64, Both, Parts)],
        tick: u64,
    ) -> Result<(Both, Both), DatabaseError> {
        let top_bucket = pyramid::bucket(tick, TOP_LEVEL);
        let place = top.partition_point(|(number, ..)| *number < top_bucket);
        let mut before = Both::default();
        for (_, totals, _) in &top[..place] {
            add(&mut before, *totals)?;
        }
        let own = top.get(place).filter(|(number, ..)| *number == top_bucket);
        let Some((_, _, mut parts)) = own.copied() else { return Ok((before, Both::default())) };
        let mut level = TOP_LEVEL;
        loop {
            let part = pyramid::part(tick, level);
            add(&mut before, total(&parts[..part])?)?;
            let whole = parts[part];
            if whole == Both::default() || level == BOTTOM_LEVEL {
                return Ok((before, whole));
            }
            level -= 1;
            let key = bucket_key(level, pyramid::bucket(tick, level));
            let value = self.db().get(key).map_err(|error| self.sled(error))?;
            parts = self.parts(&value.ok_or_else(|| self.incomplete())?)?;
            if total(&parts)? != whole {
                return Err(self.incomplete());
            }
        }
    }

    /// All buckets of a level: their numbers and the totals of their parts.
    fn buckets(&self, level: u8) -> impl Iterator<Item = Result<(u64, Parts), DatabaseError>> {
        let from = bucket_key(level, 0);
        let to = bucket_key(level, u64::MAX);
        self.db().range(from..=to).map(|entry| {
            let (key, value) = entry.map_err(|error| self.sled(error))?;
            let number = key.last_chunk().ok_or_else(|| self.bad_value())?;
            Ok((u64::from_be_bytes(*number), self.parts(&value)?))
        })
    }

    /// Checks that the view has as much as the journals.
    ///
    /// # Errors
    /// It has not, or sled refuses.
    pub fn check_total(&self, settled: Both) -> Result<(), DatabaseError> {
        self.top(settled).map(drop)
    }

    /// The totals of the parts of a bucket.
    fn parts(&self, value: &[u8]) -> Result<Parts, DatabaseError> {
        decode_parts(value).ok_or_else(|| self.bad_value())
    }

    fn sled(&self, source: sled::Error) -> DatabaseError {
        DatabaseError::Sled { path: self.path.clone(), source }
    }

    /// That the view has not what the journals have.
    pub fn incomplete(&self) -> DatabaseError {
        DatabaseError::Incomplete { path: self.path.clone() }
    }

    fn bad_value(&self) -> DatabaseError {
        DatabaseError::Value { path: self.path.clone() }
    }
}

/// Adds to the totals of both processors.
pub(crate) fn add(sum: &mut Both, added: Both) -> Result<(), TotalOverflow> {
    for (sum, added) in sum.iter_mut().zip(added) {
        *sum = sum.checked_add(added)?;
    }
    Ok(())
}

/// What is left of a whole without a part of it; `None` where it is no part of it.
fn subtract(whole: Both, part: Both) -> Option<Both> {
    let mut rest = whole;
    for (rest, part) in rest.iter_mut().zip(part) {
        rest.count = rest.count.checked_sub(part.count)?;
        rest.amount = Cents::new(rest.amount.get() - part.amount.get());
        if rest.amount < Cents::ZERO || (rest.count == 0 && rest.amount != Cents::ZERO) {
            return None;
        }
    }
    Some(rest)
}

/// The sum of parts.
fn total(parts: &[Both]) -> Result<Both, TotalOverflow> {
    let mut sum = Both::default();
    for part in parts {
        add(&mut sum, *part)?;
    }
    Ok(sum)
}

fn encode_parts(parts: &Parts) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, both) in (0..).zip(parts) {
        if *both == Both::default() {
            continue;
        }
        bytes.push(number);
        for totals in both {
            put_number(&mut bytes, totals.count);
            put_number(&mut bytes, totals.amount.get().cast_unsigned());
        }
    }
    bytes
}

/// The parts that [`encode_parts`] wrote. `None` if these bytes are not what it writes.
fn decode_parts(mut bytes: &[u8]) -> Option<Parts> {
    let mut parts = Parts::default();
    let mut free = &mut parts[..];
    let mut first_free = 0;
    while let Some((number, rest)) = bytes.split_first() {
        bytes = rest;
        let place = usize::from(*number).checked_sub(first_free)?;
        let (both, after) = free.split_at_mut_checked(place)?.1.split_first_mut()?;
        for totals in both.iter_mut() {
            let count = take_number(&mut bytes)?;
            let cents = i64::try_from(take_number(&mut bytes)?).ok()?;
            *totals = Totals { count, amount: Cents::new(cents) };
        }
        if *both == Both::default() {
            return None;
        }
        (free, first_free) = (after, usize::from(*number) + 1);
    }
    Some(parts)
}

fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            return bytes.push(low);
        }
        bytes.push(0x80 | low);
    }
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let seven = u64::from(byte & 0x7f);
        number |= seven << shift;
        if byte & 0x80 == 0 {
            // What does not fit, or is longer than it need be, is not from here.
            let is_short = seven > 0 || shift == 0;
            return (number >> shift == seven && is_short).then_some(number);
        }
    }
    None
}

fn bucket_key(level: u8, bucket: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&[BUCKET_PREFIX, level]);
    key[2..].copy_from_slice(&bucket.to_be_bytes());
    key
}

fn offset_key(instance: u16) -> [u8; 3] {
    let [high, low] = instance.to_be_bytes();
    [OFFSET_PREFIX, high, low]
}

/// Moves a damaged view out of the way, in place of one that was set aside before.
fn set_aside(path: &Path) -> Result<(), DatabaseError> {
    let mut name = path.as_os_str().to_owned();
    name.push(SET_ASIDE_SUFFIX);
    let aside = PathBuf::from(name);
    remove_if_there(&aside)
        .and_then(|()| match std::fs::rename(path, &aside) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            renamed => renamed,
        })
        .map_err(|source| DatabaseError::SetAside { path: path.to_owned(), source })
}

/// Removes a file or a folder with all that is in it.
pub(crate) fn remove_if_there(path: &Path) -> std::io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if metadata.is_dir() => {
            // Of a folder that its owner may not read nothing could be removed.
            let mode = metadata.permissions().mode() | 0o700;
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode))?;
            std::fs::remove_dir_all(path)
        }
        Ok(_) => std::fs::remove_file(path),
    }
}

/// sled's end waits for a thread of its own, and over damaged files that thread may never end. The view
/// can be made again at any time, so nobody waits long for it.
impl Drop for Database {
    fn drop(&mut self) {
        let Some(db) = self.db.take() else { return };
        if !ends_within(TEARDOWN_PATIENCE, move || drop(db)) {
            tracing::warn!(
                "the database {} does not come to its end and is left",
                self.path.display()
            );
        }
    }
}

/// Does some work on another thread, and gives whether it was done in time. If not, it goes on there.
fn ends_within(patience: Duration, work: impl FnOnce() + Send + 'static) -> bool {
    let (done, ended) = crossbeam_channel::bounded(1);
    let working = std::thread::Builder::new().name("sled-end".to_owned()).spawn(move || {
        work();
        // Nobody may be waiting any more.
        let _ = done.send(());
    });
    // Without a thread the work is dropped, and a database with it.
    working.is_err() || ended.recv_timeout(patience).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CACHE_BYTES: u64 = 1 << 20;

    fn settled(number: u8, ms: i64, cents: i64) -> Settled {
        Settled {
            amount: Cents::new(cents),
            processor: Processor::ALL[usize::from(number % 2)],
            requested_at: TimestampMs::clamped(ms),
        }
    }

    fn span(from: i64, to: i64) -> RangeMs {
        RangeMs { from: TimestampMs::clamped(from), to: TimestampMs::clamped(to) }
    }

    /// What an index would tell of these payments.
    fn below(payments: &[Settled]) -> impl Fn(&Range<u64>) -> Result<Both, DatabaseError> {
        move |ticks| {
            let [from, to] =
                [ticks.start, ticks.end - 1].map(|tick| pyramid::moment(tick).unwrap());
            Ok(naive(payments, RangeMs { from, to }))
        }
    }

    /// What a database with these payments says of a span.
    fn sum(
        database: &Database,
        payments: &[Settled],
        span: RangeMs,
    ) -> Result<Both, DatabaseError> {
        database.sum(span, naive(payments, RangeMs::ALL), below(payments))
    }

    /// What is in the database, as its top level has it.
    fn all(database: &Database) -> [Totals; 2] {
        database.sum_level(TOP_LEVEL).unwrap()
    }

    fn naive(payments: &[Settled], range: RangeMs) -> [Totals; 2] {
        let mut sums = [Totals::default(); 2];
        for payment in payments.iter().filter(|payment| range.contains(payment.requested_at)) {
            let sum = &mut sums[payment.processor.index()];
            *sum = sum.checked_add(Totals::of_payment(payment.amount)).unwrap();
        }
        sums
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn any_span_of_any_batches_is_the_naive_sum(
            payments in proptest::collection::vec((any::<u8>(), 0..5_000_i64, 1..10_000_i64), 0..200),
            batch in 1..50_usize,
            spans in proptest::collection::vec((-10..5_010_i64, -5..5_000_i64), 20),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let database = Database::open(&folder.path().join("sled"), CACHE_BYTES).unwrap();
            let mut payments: Vec<_> =
                payments.into_iter().map(|(n, ms, cents)| settled(n, ms, cents)).collect();
            for chunk in payments.chunks_mut(batch) {
                database.apply(chunk, []).unwrap();
            }
            for (from, length) in spans {
                let span = span(from, from + length);
                prop_assert_eq!(sum(&database, &payments, span).unwrap(), naive(&payments, span));
            }
            let all = sum(&database, &payments, RangeMs::ALL).unwrap();
            prop_assert_eq!(all, naive(&payments, RangeMs::ALL));
        }
    }

    proptest! {
        #[test]
        fn parts_are_read_as_they_were_written(
            entries in proptest::collection::vec((0..PARTS_COUNT, 0..2_usize, any::<u64>(), 0..i64::MAX), 0..20),
            cut in any::<proptest::sample::Index>(),
        ) {
            let mut parts = Parts::default();
            for (part, processor, count, cents) in entries {
                parts[part][processor] = Totals { count, amount: Cents::new(cents) };
            }
            let bytes = encode_parts(&parts);
            prop_assert_eq!(decode_parts(&bytes), Some(parts));
            if !bytes.is_empty() {
                prop_assert_ne!(decode_parts(&bytes[..cut.index(bytes.len())]), Some(parts));
            }
        }

        #[test]
        fn what_is_read_of_any_bytes_is_written_as_the_same_bytes(
            entries in proptest::collection::vec((0..18_u8, proptest::collection::vec(numbers(), 4)), 0..5),
            rest in proptest::collection::vec(any::<u8>(), 0..3),
        ) {
            let mut bytes = Vec::new();
            for (number, totals) in entries {
                bytes.push(number);
                bytes.extend(totals.concat());
            }
            bytes.extend(rest);
            if let Some(parts) = decode_parts(&bytes) {
                prop_assert_eq!(encode_parts(&parts), bytes);
            }
        }
    }

    /// The bytes of numbers, some of them too long or too large.
    fn numbers() -> impl Strategy<Value = Vec<u8>> {
        let continued = proptest::collection::vec(0x80..=0xff_u8, 0..11);
        (continued, 0..0x80_u8).prop_map(|(mut bytes, last)| {
            bytes.push(last);
            bytes
        })
    }

    #[test]
    fn bytes_that_are_not_from_here_are_refused() {
        let longest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let is_read = |parts: &[&[u8]]| decode_parts(&parts.concat()).is_some();
        assert!(is_read(&[&[3, 1, 5, 0, 0], &[4, 1, 5, 0, 0]]));
        assert!(is_read(&[&[3], &longest, &[1], &[5, 0, 0]]), "the greatest count");
        assert!(!is_read(&[&[3], &longest, &[2], &[5, 0, 0]]), "a count that does not fit");
        assert!(!is_read(&[&[3, 1], &longest, &[1], &[0, 0]]), "cents that do not fit");
        assert!(!is_read(&[&[3, 0x81, 0, 5, 0, 0]]), "longer than it need be");
        assert!(!is_read(&[&[4, 1, 5, 0, 0], &[3, 1, 5, 0, 0]]), "not in their order");
        assert!(!is_read(&[&[3, 1, 5, 0, 0], &[3, 1, 5, 0, 0]]), "a part twice");
        assert!(!is_read(&[&[16, 1, 5, 0, 0]]), "no such part");
        assert!(!is_read(&[&[3, 0, 0, 0, 0]]), "a part without payments");
        assert!(!is_read(&[&[3, 1, 5, 0]]), "cut short");
    }

    #[test]
    fn totals_and_offsets_are_there_after_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sled");
        let place = Position { segment: 2, index: 7 };
        {
            let database = Database::open(&path, CACHE_BYTES).unwrap();
            database.apply(&mut [settled(0, 5, 1990)], [(1, place)]).unwrap();
            database.db().flush().unwrap();
        }
        let database = Database::open(&path, CACHE_BYTES).unwrap();
        assert_eq!(database.offset(1).unwrap(), Some(place));
        assert_eq!(database.offset(2).unwrap(), None);
        assert_eq!(all(&database)[0].amount, Cents::new(1990));
    }

    #[test]
    fn a_total_that_does_not_fit_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("sled"), CACHE_BYTES).unwrap();
        database.apply(&mut [settled(0, 5, i64::MAX)], []).unwrap();
        let place = Position { segment: 1, index: 1 };
        let refused = database.apply(&mut [settled(0, 900, 1)], [(1, place)]);
        assert!(matches!(refused, Err(DatabaseError::Overflow(_))));
        assert_eq!(database.offset(1).unwrap(), None);
        assert_eq!(all(&database)[0].count, 1);
    }

    #[test]
    fn what_sled_has_lost_is_missed_by_every_answer_that_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("sled"), CACHE_BYTES).unwrap();
        let mut payments: Vec<_> = (0..200)
            .map(|number| settled(number % 2, i64::from(number) * 40, i64::from(number) + 1))
            .collect();
        database.apply(&mut payments, []).unwrap();
        let lost_tick = pyramid::tick(TimestampMs::clamped(4000));
        let span = span(4000, 5000);
        let expected = sum(&database, &payments, span).unwrap();
        for level in BOTTOM_LEVEL..LEVELS_COUNT {
            let key = bucket_key(level, pyramid::bucket(lost_tick, level));
            let value = database.db().remove(key).unwrap().unwrap();
            assert!(sum(&database, &payments, span).is_err(), "level {level}");
            let mut wrong = decode_parts(&value).unwrap();
            wrong.iter_mut().find(|part| **part != Both::default()).unwrap()[0].count += 1;
            database.db().insert(key, encode_parts(&wrong)).unwrap();
            assert!(sum(&database, &payments, span).is_err(), "level {level}");
            database.db().insert(key, value).unwrap();
            assert_eq!(sum(&database, &payments, span).unwrap(), expected);
        }
    }

    #[test]
    fn more_in_a_stretch_than_in_the_part_that_has_it_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("sled"), CACHE_BYTES).unwrap();
        let mut payments = [settled(0, 4000, 7), settled(0, 4001, 7)];
        database.apply(&mut payments, []).unwrap();
        let all = naive(&payments, RangeMs::ALL);
        let too_much: Both = [Totals { count: 3, amount: Cents::new(21) }, Totals::default()];
        for range in [span(0, 4000), span(4001, 9000)] {
            let sum: Result<Both, DatabaseError> = database.sum(range, all, |_| Ok(too_much));
            assert!(matches!(sum, Err(DatabaseError::Incomplete { .. })));
        }
    }

    #[test]
    fn a_damaged_view_is_set_aside_and_begun_anew() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 5] = [
            ("noise over everything", |folder| overwrite(folder, |bytes| bytes.fill(0xa5))),
            ("noise in the middle", |folder| {
                overwrite(folder, |bytes| {
                    let middle = bytes.len() / 2;
                    bytes[middle / 2..middle].fill(0xa5);
                });
            }),
            ("a file in place of the folder", |folder| {
                std::fs::remove_dir_all(folder).unwrap();
                std::fs::write(folder, b"not a database").unwrap();
            }),
            ("another version", |folder| {
                let db = sled::open(folder).unwrap();
                db.insert(VERSION_KEY, &[3]).unwrap();
                db.flush().unwrap();
            }),
            ("a bucket that other levels do not know", |folder| {
                let db = sled::open(folder).unwrap();
                let key = bucket_key(LEVELS_COUNT - 1, 77);
                let parts = [[Totals::of_payment(Cents::new(1)); 2]; PARTS_COUNT];
                db.insert(key, encode_parts(&parts)).unwrap();
                db.flush().unwrap();
            }),
        ];
        for (name, damage) in damages {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("sled");
            {
                let database = Database::open(&path, CACHE_BYTES).unwrap();
                for number in 0..100 {
                    database
                        .apply(&mut [settled(number, i64::from(number) * 40, 1990)], [])
                        .unwrap();
                }
                database.db().flush().unwrap();
            }
            damage(&path);
            let database = Database::open(&path, CACHE_BYTES).unwrap();
            let sums = all(&database);
            assert_eq!(sums, [Totals::default(); 2], "{name}");
            database.apply(&mut [settled(0, 5, 1990)], []).unwrap();
            assert_eq!(all(&database)[0].count, 1, "{name}");
            assert!(folder.path().join("sled.set-aside").exists(), "{name}");
        }
    }

    fn overwrite(folder: &Path, change: fn(&mut [u8])) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let mut bytes = std::fs::read(&path).unwrap();
                change(&mut bytes);
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }

    #[test]
    fn what_does_not_end_is_not_waited_for() {
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        assert!(ends_within(Duration::from_mins(1), || ()));
        assert!(!ends_within(Duration::from_millis(20), move || {
            let _ = ended.recv();
        }));
        drop(end);
    }
}
