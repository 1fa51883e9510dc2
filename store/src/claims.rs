//! The claim log: in which order the accepted payments of all journals were decided upon.
//!
//! Two API instances may accept the same correlation id. The store decides which record has the right
//! to it: the first one in the order of claims. A claim says "the accepted payments of this instance
//! up to this place are decided", and it is written here before the instance hears of it. So a store
//! that is started again decides as the one before it did, and no two records are ever given the
//! same id.
//!
//! The log matters from a decision until the journal says what came of it. A new one, with all that
//! still matters, replaces it at every start, at every purge, and when it has grown.
//!
//! After a reboot the journals may have lost their ends, and new records lie in the places of lost
//! ones. What the log says of places is then forgotten: no process remembers an answer, and whatever
//! was sent has a record that says so. The purge stays, and which journals those were.
//!
//! A log is on the disk with all that it begins with before it takes its place; claims that follow are
//! not synced. So after a reboot claims may be missing in any combination, and are not looked at.
//!
//! Layout, little endian: a head of 48 bytes (magic 8, version 3, zero 6, number of the last purge 8,
//! boot id of the machine 16, number of entries before the first claim 4, CRC-32C of the 44 bytes before
//! it), then entries of 32 bytes (CRC-32C of the head's CRC-32C, the entry's index and its other bytes 4,
//! kind 1, zero 1, instance 2, position 8, and 16 that depend on the kind: the correlation id of a loser,
//! or of the journal that was decided upon the number of a segment 4, its head's CRC-32C 4, zero 8).

use std::collections::BTreeMap;
use std::io;

use ledger::CorrelationId;
use ledger::disk::{Disk, DiskFile, create_anew, write_whole};
use ledger::journal::Position;

/// The name of the claim log.
pub const NAME: &str = "claims.log";
const NEW_NAME: &str = "claims.log.new";
const MAGIC: [u8; 8] = *b"PAYCLMS\n";
const VERSION: u16 = 3;
const HEAD_BYTES: usize = 48;
const HEAD_CHECKSUM_OFFSET: usize = HEAD_BYTES - 4;
const ENTRY_BYTES: usize = 32;
const NOTHING: [u8; 16] = [0; 16];

/// A boot of no machine: what is read under it says nothing of places but the cuts.
const NO_BOOT: [u8; 16] = [0; 16];

/// Claims after which the log is replaced.
const CLAIMS_MAX: u32 = 65_536;

const KIND_CUT: u8 = 1;
const KIND_DECIDED_BEFORE: u8 = 2;
const KIND_LOSER: u8 = 3;
const KIND_CLAIM: u8 = 4;

/// Why claims cannot be decided upon: what goes wrong with the claim log, or that too much of the index waits.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    /// The operating system refuses.
    #[error("cannot {action} {file}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file, with its folder.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// Another store holds the lock.
    #[error(
        "another store runs on {folder}, and one alone may: stop that one, or give this one another \
         --data (its pid is in the file `lock` there)"
    )]
    InUse {
        /// The store's folder.
        folder: String,
    },
    /// The index of what was decided upon is not on the disk yet, and has to be in memory until it is.
    #[error(
        "{count} entries of the index wait to be written, so nothing new is decided upon: the disk is slow, or the \
         index is being made again"
    )]
    Behind {
        /// Entries that are not written.
        count: usize,
    },
    /// The bytes are not what was written there.
    #[error(
        "{file} is damaged at byte {offset}. Stop all processes; if payments were never purged, the \
         file can be moved away then: the journals say what was sent, and the rest is decided again"
    )]
    Damaged {
        /// The file, with its folder.
        file: String,
        /// Where.
        offset: u64,
    },
}

impl ClaimsError {
    /// Whether stored data is damaged, so that trying again would not help.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. })
    }
}

/// What was decided before the log's first claim, in no order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Checkpoint {
    /// The number of the last purge; 0 before the first.
    pub purge: u64,
    /// By instance, the end of what the last purge made void.
    pub cuts: BTreeMap<u16, Position>,
    /// By instance, what is decided.
    pub decided: BTreeMap<u16, DecidedBefore>,
    /// By instance and place, the ids of accepted payments that are decided against, and whose
    /// journal does not say so yet.
    pub losers: BTreeMap<(u16, Position), CorrelationId>,
}

/// How far an instance's accepted payments were decided upon before a log's first claim.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DecidedBefore {
    /// The end of what is decided.
    pub through: Position,
    /// Which journal that place is in, where it is known.
    pub journal: Option<JournalMark>,
}

/// What a claim log says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Kept {
    /// What was decided before the first claim.
    pub checkpoint: Checkpoint,
    /// The claims, in order.
    pub claims: Vec<Claim>,
    /// Whether it was written since the machine was started. If not, it says nothing of places but
    /// the cuts of the last purge, and still which journals were decided upon.
    pub same_boot: bool,
}

/// That the accepted payments of an instance before a place are decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The instance.
    pub instance: u16,
    /// The end of what is decided.
    pub through: Position,
    /// Which journal that place is in, where it is known.
    pub journal: Option<JournalMark>,
}

/// What tells a journal from another one with the same number: one of its segments, which has records and
/// is so on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JournalMark {
    /// The number of the segment.
    pub segment: u32,
    /// The checksum of its head, which has the moment of its creation.
    pub header_checksum: u32,
}

impl JournalMark {
    fn encode(mark: Option<Self>) -> [u8; 16] {
        let mut bytes = NOTHING;
        if let Some(Self { segment, header_checksum }) = mark {
            bytes[..4].copy_from_slice(&segment.to_le_bytes());
            bytes[4..8].copy_from_slice(&header_checksum.to_le_bytes());
        }
        bytes
    }

    fn decode(bytes: [u8; 16]) -> Option<Self> {
        let (words, _) = bytes.as_chunks::<4>();
        let [segment, header_checksum] = [0, 1].map(|word| u32::from_le_bytes(words[word]));
        (segment > 0).then_some(Self { segment, header_checksum })
    }
}

/// The claim log, and the lock that makes this process the only store.
pub struct ClaimLog<D: Disk> {
    disk: D,
    _lock: D::Lock,
    boot_id: [u8; 16],
    file: Option<D::File>,
    head_checksum: u32,
    entries_count: u32,
    claims_count: u32,
    cut_before_write: bool,
}

/// By instance, the end of what the last purge made void, without the store's lock: for who only reads.
///
/// # Errors
/// The log cannot be read, or is damaged.
pub fn read_cuts<D: Disk>(disk: &D) -> Result<BTreeMap<u16, Position>, ClaimsError> {
    read_purged(disk).map(|purged| purged.cuts)
}

/// What the last purge did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Purged {
    /// Its number; 0 before the first.
    pub number: u64,
    /// By instance, the end of what it made void.
    pub cuts: BTreeMap<u16, Position>,
}

/// What the last purge did, without the store's lock: for who only reads.
///
/// # Errors
/// The log cannot be read, or is damaged.
pub fn read_purged<D: Disk>(disk: &D) -> Result<Purged, ClaimsError> {
    let Checkpoint { purge, cuts, .. } = read_log(disk, NO_BOOT)?.checkpoint;
    Ok(Purged { number: purge, cuts })
}

/// The number of the last purge, from the head of the log alone, without the store's lock.
///
/// # Errors
/// The log cannot be read, or its head is damaged.
pub fn read_purge_number<D: Disk>(disk: &D) -> Result<u64, ClaimsError> {
    let file = match disk.open_read_only(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        file => file.map_err(failed(disk, "open", NAME))?,
    };
    let mut bytes = [0; HEAD_BYTES];
    let count = file.read_at(0, &mut bytes).map_err(failed(disk, "read", NAME))?;
    let head = Head::decode(&bytes).filter(|_| count == HEAD_BYTES);
    let damaged = || ClaimsError::Damaged { file: disk.describe(NAME), offset: 0 };
    head.map(|head| head.purge).ok_or_else(damaged)
}

impl<D: Disk> ClaimLog<D> {
    /// Takes the store's lock and reads the log. A torn tail is left out: nobody heard of that claim.
    ///
    /// # Errors
    /// Another store runs, or the log cannot be read, or is damaged.
    pub fn open(disk: D, boot_id: [u8; 16]) -> Result<(Self, Kept), ClaimsError> {
        let lock = disk.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => ClaimsError::InUse { folder: disk.describe("") },
            _ => failed(&disk, "lock", "")(error),
        })?;
        let log = Self {
            disk,
            _lock: lock,
            boot_id,
            file: None,
            head_checksum: 0,
            entries_count: 0,
            claims_count: 0,
            cut_before_write: false,
        };
        let mut kept = read_log(&log.disk, boot_id)?;
        if !kept.same_boot {
            forget_places(&mut kept.checkpoint);
        }
        Ok((log, kept))
    }

    /// Replaces the log by one that begins with this checkpoint, in one step.
    ///
    /// # Errors
    /// The disk refuses. The log before it is still there.
    pub fn replace(&mut self, checkpoint: &Checkpoint) -> Result<(), ClaimsError> {
        let checkpoint_count =
            checkpoint.cuts.len() + checkpoint.decided.len() + checkpoint.losers.len();
        let checkpoint_count =
            u32::try_from(checkpoint_count).expect("fewer payments than 2^32 are open");
        let head = Head { purge: checkpoint.purge, boot_id: self.boot_id, checkpoint_count };
        let head_checksum = head.checksum();
        let mut bytes = head.encode().to_vec();
        let mut entries_count = 0;
        let mut put = |kind, instance, position, about| {
            let entry = encode_entry(kind, instance, position, about, head_checksum, entries_count);
            bytes.extend(entry);
            entries_count += 1;
        };
        for (instance, cut) in &checkpoint.cuts {
            put(KIND_CUT, *instance, *cut, NOTHING);
        }
        for (instance, decided) in &checkpoint.decided {
            let journal = JournalMark::encode(decided.journal);
            put(KIND_DECIDED_BEFORE, *instance, decided.through, journal);
        }
        for ((instance, loser), id) in &checkpoint.losers {
            put(KIND_LOSER, *instance, *loser, id.to_bytes());
        }
        // One that an earlier attempt left behind is in the way, and worth nothing.
        let file =
            create_anew(&self.disk, NEW_NAME).map_err(failed(&self.disk, "create", NEW_NAME))?;
        write_whole(&file, 0, &bytes).map_err(failed(&self.disk, "write", NEW_NAME))?;
        file.sync().map_err(failed(&self.disk, "sync", NEW_NAME))?;
        self.disk.rename(NEW_NAME, NAME).map_err(failed(&self.disk, "replace", NAME))?;
        self.file = Some(file);
        self.head_checksum = head_checksum;
        self.entries_count = entries_count;
        self.claims_count = 0;
        self.cut_before_write = false;
        // The new log is in its place for every process, so this is too late to refuse it.
        if let Err(error) = self.disk.sync() {
            let file = self.disk.describe("");
            tracing::error!(
                "cannot sync {file}: {error}. A power cut may bring back the log before"
            );
        }
        Ok(())
    }

    /// Whether the log has grown so much that it should be replaced.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.claims_count >= CLAIMS_MAX
    }

    /// Writes a claim down. Only after this may anyone hear of it.
    ///
    /// # Errors
    /// The disk refuses; nothing is decided.
    pub fn append(&mut self, claim: Claim) -> Result<(), ClaimsError> {
        let file = self.file.as_ref().expect("the log is replaced before it is appended to");
        let offset = HEAD_BYTES as u64 + u64::from(self.entries_count) * ENTRY_BYTES as u64;
        if self.cut_before_write {
            file.truncate(offset).map_err(failed(&self.disk, "cut a failed write from", NAME))?;
            self.cut_before_write = false;
        }
        let entry = encode_entry(
            KIND_CLAIM,
            claim.instance,
            claim.through,
            JournalMark::encode(claim.journal),
            self.head_checksum,
            self.entries_count,
        );
        if let Err(error) = write_whole(file, offset, &entry) {
            self.cut_before_write = true;
            return Err(failed(&self.disk, "write", NAME)(error));
        }
        self.entries_count += 1;
        self.claims_count += 1;
        Ok(())
    }
}

/// Reads the log of this folder, under this boot of the machine.
fn read_log<D: Disk>(disk: &D, boot_id: [u8; 16]) -> Result<Kept, ClaimsError> {
    let mut kept = Kept::default();
    let Kept { checkpoint, claims, same_boot } = &mut kept;
    let file = match disk.open_read_only(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(kept);
        }
        file => file.map_err(failed(disk, "open", NAME))?,
    };
    let size = file.size().map_err(failed(disk, "read", NAME))?;
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
    let count = file.read_at(0, &mut bytes).map_err(failed(disk, "read", NAME))?;
    let damaged =
        |offset: usize| ClaimsError::Damaged { file: disk.describe(NAME), offset: offset as u64 };
    let (head, body) = bytes[..count].split_first_chunk().ok_or_else(|| damaged(0))?;
    let head = Head::decode(head).ok_or_else(|| damaged(0))?;
    checkpoint.purge = head.purge;
    *same_boot = head.boot_id == boot_id;
    let head_checksum = head.checksum();
    let (entries, _) = body.as_chunks::<ENTRY_BYTES>();
    let checkpoint_count = usize::try_from(head.checkpoint_count).unwrap_or(usize::MAX);
    if entries.len() < checkpoint_count {
        return Err(damaged(HEAD_BYTES + entries.len() * ENTRY_BYTES));
    }
    // Claims of an earlier boot may be lost, and mean nothing where they are not.
    let telling = if *same_boot { entries } else { &entries[..checkpoint_count] };
    for (index, entry) in telling.iter().enumerate() {
        let offset = HEAD_BYTES + index * ENTRY_BYTES;
        let is_claim = index >= checkpoint_count;
        let Some((kind, instance, position, about)) = decode_entry(entry, head_checksum, index)
        else {
            // Zeros up to the end are a write that was cut short.
            if is_claim && bytes[offset..count].iter().all(|byte| *byte == 0) {
                break;
            }
            return Err(damaged(offset));
        };
        match kind {
            KIND_CLAIM if is_claim => {
                let journal = JournalMark::decode(about);
                claims.push(Claim { instance, through: position, journal });
            }
            KIND_CUT if !is_claim => {
                checkpoint.cuts.insert(instance, position);
            }
            KIND_DECIDED_BEFORE if !is_claim => {
                let journal = JournalMark::decode(about);
                checkpoint.decided.insert(instance, DecidedBefore { through: position, journal });
            }
            KIND_LOSER if !is_claim => {
                let id = CorrelationId::from_bytes(about);
                checkpoint.losers.insert((instance, position), id);
            }
            _ => return Err(damaged(offset)),
        }
    }
    Ok(kept)
}

/// Leaves what a reboot cannot change: a journal that was marked is on the disk, what lies where in it
/// is not sure.
fn forget_places(checkpoint: &mut Checkpoint) {
    checkpoint.losers.clear();
    checkpoint.decided.retain(|_, decided| decided.journal.is_some());
    for decided in checkpoint.decided.values_mut() {
        decided.through = Position::START;
    }
}

fn failed<D: Disk>(
    disk: &D,
    action: &'static str,
    name: &str,
) -> impl FnOnce(io::Error) -> ClaimsError {
    let file = disk.describe(name);
    move |source| ClaimsError::Io { action, file, source }
}

/// The head of a log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Head {
    /// The number of the last purge.
    purge: u64,
    /// The boot of the machine under which the log was begun.
    boot_id: [u8; 16],
    /// Entries before the first claim.
    checkpoint_count: u32,
}

impl Head {
    fn encode(self) -> [u8; HEAD_BYTES] {
        let mut bytes = [0; HEAD_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.purge.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.boot_id);
        bytes[40..44].copy_from_slice(&self.checkpoint_count.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..HEAD_CHECKSUM_OFFSET]);
        bytes[HEAD_CHECKSUM_OFFSET..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let purge = u64::from_le_bytes(bytes[16..24].try_into().ok()?);
        let checkpoint_count = u32::from_le_bytes(bytes[40..44].try_into().ok()?);
        let head = Self { purge, boot_id: bytes[24..40].try_into().ok()?, checkpoint_count };
        (head.encode() == *bytes).then_some(head)
    }

    /// What ties entries to this log.
    fn checksum(self) -> u32 {
        crc32c::crc32c(&self.encode()[..HEAD_CHECKSUM_OFFSET])
    }
}

fn encode_entry(
    kind: u8,
    instance: u16,
    position: Position,
    about: [u8; 16],
    head_checksum: u32,
    index: u32,
) -> [u8; ENTRY_BYTES] {
    let mut bytes = [0; ENTRY_BYTES];
    bytes[4] = kind;
    bytes[6..8].copy_from_slice(&instance.to_le_bytes());
    bytes[8..16].copy_from_slice(&position.to_u64().to_le_bytes());
    bytes[16..].copy_from_slice(&about);
    let mut place = [0; 8];
    place[..4].copy_from_slice(&head_checksum.to_le_bytes());
    place[4..].copy_from_slice(&index.to_le_bytes());
    let checksum = crc32c::crc32c_append(crc32c::crc32c(&place), &bytes[4..]);
    bytes[..4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode_entry(
    bytes: &[u8; ENTRY_BYTES],
    head_checksum: u32,
    index: usize,
) -> Option<(u8, u16, Position, [u8; 16])> {
    let (words, _) = bytes.as_chunks::<8>();
    let (kind, instance) = (bytes[4], u16::from_le_bytes([bytes[6], bytes[7]]));
    let position = Position::from_u64(u64::from_le_bytes(words[1]));
    let about = *bytes.last_chunk()?;
    let index = u32::try_from(index).ok()?;
    let same = encode_entry(kind, instance, position, about, head_checksum, index) == *bytes;
    same.then_some((kind, instance, position, about))
}

#[cfg(test)]
mod tests {
    use ledger::disk::memory::MemoryDisk;

    use super::*;

    const BOOT: [u8; 16] = [1; 16];
    const MARK: JournalMark = JournalMark { segment: 4, header_checksum: 0x1234_5678 };

    fn place(segment: u32, index: u32) -> Position {
        Position { segment, index }
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint {
            purge: 3,
            cuts: BTreeMap::from([(1, place(4, 0)), (2, place(5, 7))]),
            decided: BTreeMap::from([
                (1, DecidedBefore { through: place(4, 9), journal: Some(MARK) }),
                (2, DecidedBefore { through: place(5, 7), journal: None }),
            ]),
            losers: BTreeMap::from([
                ((1, place(4, 2)), CorrelationId::from_bytes([7; 16])),
                ((1, place(4, 3)), CorrelationId::from_bytes([8; 16])),
            ]),
        }
    }

    fn claims() -> Vec<Claim> {
        let journal = |index| JournalMark { segment: 4, header_checksum: index };
        (10..15)
            .map(|index| Claim {
                instance: 1,
                through: place(4, index),
                journal: Some(journal(index)).filter(|_| index != 12),
            })
            .collect()
    }

    /// A log with a checkpoint and claims, whose store is gone.
    fn written() -> MemoryDisk {
        let disk = MemoryDisk::new();
        let (mut log, _) = ClaimLog::open(disk.clone(), BOOT).unwrap();
        log.replace(&checkpoint()).unwrap();
        for claim in claims() {
            log.append(claim).unwrap();
        }
        disk
    }

    fn read(disk: &MemoryDisk) -> Result<(Checkpoint, Vec<Claim>), ClaimsError> {
        ClaimLog::open(disk.clone(), BOOT).map(|(_, kept)| {
            assert!(kept.same_boot || kept == Kept::default());
            (kept.checkpoint, kept.claims)
        })
    }

    #[test]
    fn a_new_log_is_empty() {
        assert_eq!(read(&MemoryDisk::new()).unwrap(), (Checkpoint::default(), vec![]));
    }

    #[test]
    fn what_was_written_is_read_in_order() {
        assert_eq!(read(&written()).unwrap(), (checkpoint(), claims()));
    }

    #[test]
    fn who_only_reads_learns_of_the_last_purge() {
        assert_eq!(read_purged(&MemoryDisk::new()).unwrap(), Purged::default());
        assert_eq!(read_purge_number(&MemoryDisk::new()).unwrap(), 0);
        let disk = written();
        let Checkpoint { purge, cuts, .. } = checkpoint();
        assert_eq!(read_purged(&disk).unwrap(), Purged { number: purge, cuts });
        assert_eq!(read_purge_number(&disk).unwrap(), purge);
        disk.put(NAME, disk.bytes(NAME).unwrap()[..HEAD_BYTES - 1].to_vec());
        read_purge_number(&disk).unwrap_err();
    }

    #[test]
    fn a_claim_that_was_not_written_whole_is_left_out() {
        let disk = written();
        let whole = disk.bytes(NAME).unwrap();
        let body = whole.len() - claims().len() * ENTRY_BYTES;
        for cut in body..=whole.len() {
            disk.put(NAME, whole[..cut].to_vec());
            let kept = (cut - body) / ENTRY_BYTES;
            assert_eq!(read(&disk).unwrap(), (checkpoint(), claims()[..kept].to_vec()));
        }
        let mut zeros = whole.clone();
        zeros[whole.len() - 2 * ENTRY_BYTES..].fill(0);
        disk.put(NAME, zeros);
        assert_eq!(read(&disk).unwrap().1, claims()[..3]);
    }

    #[test]
    fn a_changed_byte_anywhere_stops_with_its_offset() {
        let disk = written();
        let whole = disk.bytes(NAME).unwrap();
        for byte in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[byte] ^= 1;
            disk.put(NAME, bytes);
            let start = byte
                .checked_sub(HEAD_BYTES)
                .map_or(0, |body| HEAD_BYTES + body / ENTRY_BYTES * ENTRY_BYTES);
            match read(&disk) {
                Err(ClaimsError::Damaged { offset, .. }) => assert_eq!(offset, start as u64),
                other => panic!("byte {byte}: {other:?}"),
            }
        }
    }

    #[test]
    fn after_a_reboot_lost_claims_are_not_damage_and_a_lost_checkpoint_is() {
        const OTHER_BOOT: [u8; 16] = [2; 16];
        let disk = written();
        let whole = disk.bytes(NAME).unwrap();
        let body = whole.len() - claims().len() * ENTRY_BYTES;
        let marked = DecidedBefore { through: Position::START, journal: Some(MARK) };
        let decided = BTreeMap::from([(1, marked)]);
        let kept = Checkpoint { decided, losers: BTreeMap::new(), ..checkpoint() };
        for lost in 0_u32..1 << claims().len() {
            let mut bytes = whole.clone();
            for (index, entry) in bytes[body..].chunks_mut(ENTRY_BYTES).enumerate() {
                if lost >> index & 1 == 1 {
                    entry.fill(0);
                }
            }
            disk.put(NAME, bytes);
            let (log, found) = ClaimLog::open(disk.clone(), OTHER_BOOT).unwrap();
            assert_eq!((found.checkpoint, found.claims), (kept.clone(), vec![]), "{lost:b}");
            drop(log);
        }
        // Which journals those were outlives the second reboot too.
        for boot in [OTHER_BOOT, BOOT] {
            let (mut log, found) = ClaimLog::open(disk.clone(), boot).unwrap();
            assert_eq!(found.checkpoint, kept);
            log.replace(&found.checkpoint).unwrap();
        }
        for byte in 0..body {
            let mut bytes = whole.clone();
            bytes[byte] ^= 1;
            disk.put(NAME, bytes);
            assert!(ClaimLog::open(disk.clone(), OTHER_BOOT).is_err(), "byte {byte}");
            disk.put(NAME, whole[..byte].to_vec());
            assert!(ClaimLog::open(disk.clone(), OTHER_BOOT).is_err(), "cut at {byte}");
        }
    }

    #[test]
    fn a_full_disk_decides_nothing_and_heals() {
        for room in 0..ENTRY_BYTES {
            let disk = MemoryDisk::new();
            let (mut log, _) = ClaimLog::open(disk.clone(), BOOT).unwrap();
            log.replace(&checkpoint()).unwrap();
            disk.set_room_bytes(Some(room));
            log.append(claims()[0]).unwrap_err();
            disk.set_room_bytes(None);
            log.append(claims()[1]).unwrap();
            drop(log);
            assert_eq!(read(&disk).unwrap().1, [claims()[1]]);
        }
    }

    #[test]
    fn a_log_that_cannot_be_replaced_stays() {
        let disk = written();
        let (mut log, _) = ClaimLog::open(disk.clone(), BOOT).unwrap();
        disk.set_room_bytes(Some(20));
        log.replace(&Checkpoint::default()).unwrap_err();
        drop(log);
        assert_eq!(read(&disk).unwrap(), (checkpoint(), claims()));
        disk.set_room_bytes(None);
        let (mut log, _) = ClaimLog::open(disk.clone(), BOOT).unwrap();
        log.replace(&Checkpoint::default()).unwrap();
        drop(log);
        assert_eq!(read(&disk).unwrap(), (Checkpoint::default(), vec![]));
    }

    #[test]
    fn a_second_store_is_refused() {
        let disk = MemoryDisk::new();
        let _first = ClaimLog::open(disk.clone(), BOOT).unwrap();
        assert!(ClaimLog::open(disk, BOOT).is_err());
    }
}
