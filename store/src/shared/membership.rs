//! Which ledger a volume has joined: `DIR/store/ledger-id`.
//!
//! A volume whose ids were decided by itself must not join, because the ledger does not know them; one that
//! has joined must not decide by itself again. So a volume joins when it is new, and for good.

use std::fs;
use std::io;
use std::path::PathBuf;

use ledger::disk::folder::FolderDisk;
use ledger::journal::{Event, JournalReader, Position, Record};
use ledger::volume::Volume;
use uuid::Uuid;

use super::SharedError;
use crate::archive::error::ArchiveError;
use crate::archive::identity::{self, replace};
use crate::claims;

/// The file's name.
const NAME: &str = "ledger-id";
/// What it says before the ledger was reached for the first time. Nothing was decided then.
const JOINING: &str = "joining";
/// Records that are read from a journal at a time.
const READ_RECORDS_MAX: usize = 1024;

/// What a volume says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It has decided by itself, or never.
    None,
    /// It joins the ledger that it reaches first.
    Joining,
    /// It has joined the ledger with this id.
    Of(Uuid),
}

fn path(volume: &Volume) -> PathBuf {
    volume.store().join(NAME)
}

/// What the volume says.
///
/// # Errors
/// The file cannot be read, or says nothing that was written.
pub fn of(volume: &Volume) -> Result<Membership, SharedError> {
    let path = path(volume);
    match fs::read_to_string(&path) {
        Ok(text) if text.trim() == JOINING => Ok(Membership::Joining),
        Ok(text) => Uuid::try_parse(text.trim())
            .map(Membership::Of)
            .map_err(|why| SharedError::NoMembership { path, why }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Membership::None),
        Err(source) => Err(ArchiveError::io("read", path)(source).into()),
    }
}

/// Lets a new volume join, or sees that it has.
///
/// # Errors
/// It has decided by itself.
pub fn begin(volume: &Volume) -> Result<(), SharedError> {
    if of(volume)? != Membership::None {
        return Ok(());
    }
    // A store that decides by itself has a claim log; one that archives, or was restored, has an id.
    for path in [volume.store().join(claims::NAME), identity::path(volume)] {
        if fs::exists(&path).map_err(ArchiveError::io("look for", &path))? {
            return Err(SharedError::NotNew { path });
        }
    }
    let instances = volume.instances().map_err(ArchiveError::io("read", volume.journals()))?;
    for instance in instances {
        if was_decided_upon(volume, instance)? {
            return Err(SharedError::NotNew { path: volume.journal(instance) });
        }
    }
    write(volume, JOINING)
}

/// Whether a journal says more than that payments were accepted, which APIs write before a store ever ran.
fn was_decided_upon(volume: &Volume, instance: u16) -> Result<bool, SharedError> {
    let path = volume.journal(instance);
    let disk = FolderDisk::create(&path).map_err(ArchiveError::io("open", path))?;
    let mut reader = JournalReader::new(disk, instance, Position::START).passing_lost_seals();
    loop {
        let mut is_decided = false;
        let count = reader
            .read(READ_RECORDS_MAX, |_, record| {
                is_decided |=
                    matches!(record, Record::Payment(record) if record.event != Event::Accepted);
            })
            .map_err(ArchiveError::from)?;
        if is_decided || count == 0 {
            return Ok(is_decided);
        }
    }
}

/// Sees that a volume is in no ledger.
///
/// # Errors
/// It is.
pub fn demand_none(volume: &Volume) -> Result<(), SharedError> {
    match of(volume)? {
        Membership::None => Ok(()),
        _ => Err(SharedError::IsShared { path: path(volume) }),
    }
}

/// What the volume says, if the ledger with this id is none but the one that it has joined or joins.
///
/// # Errors
/// It has joined another one.
pub fn demand(volume: &Volume, theirs: Uuid) -> Result<Membership, SharedError> {
    match of(volume)? {
        Membership::Of(ours) if ours != theirs => Err(SharedError::OtherLedger { theirs, ours }),
        membership => Ok(membership),
    }
}

/// Takes in which ledger was joined.
///
/// # Errors
/// It cannot be written.
pub fn set(volume: &Volume, ledger: Uuid) -> Result<(), SharedError> {
    write(volume, &ledger.to_string())
}

fn write(volume: &Volume, text: &str) -> Result<(), SharedError> {
    let written = FolderDisk::create(volume.store())
        .and_then(|disk| replace(&disk, &volume.store(), NAME, &format!("{text}\n")));
    written.map_err(|error| ArchiveError::io("write", path(volume))(error).into())
}

#[cfg(test)]
mod tests {
    use ledger::journal::{Journal, JournalConfig, PaymentRecord};
    use ledger::{Cents, CorrelationId, TimestampMs};

    use super::*;

    fn volume(folder: &tempfile::TempDir) -> Volume {
        let volume = Volume::new(folder.path());
        volume.create().unwrap();
        volume
    }

    #[test]
    fn a_new_volume_joins_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(&folder);
        demand_none(&volume).unwrap();
        begin(&volume).unwrap();
        assert_eq!(of(&volume).unwrap(), Membership::Joining);
        let id = Uuid::from_bytes([7; 16]);
        set(&volume, id).unwrap();
        // Its store has a claim log from its first start on.
        fs::write(volume.store().join(claims::NAME), "").unwrap();
        begin(&volume).unwrap();
        assert_eq!(of(&volume).unwrap(), Membership::Of(id));
        assert!(matches!(demand_none(&volume), Err(SharedError::IsShared { .. })));
    }

    #[test]
    fn one_that_has_decided_by_itself_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(&folder);
        fs::write(volume.store().join(claims::NAME), "").unwrap();
        assert!(matches!(begin(&volume), Err(SharedError::NotNew { .. })));
        demand_none(&volume).unwrap();
    }

    #[test]
    fn neither_does_one_that_was_restored_or_has_sent_something() {
        let folder = tempfile::tempdir().unwrap();
        let restored = volume(&folder);
        identity::of(&restored).unwrap();
        assert!(matches!(begin(&restored), Err(SharedError::NotNew { .. })));

        let folder = tempfile::tempdir().unwrap();
        let volume = volume(&folder);
        let disk = FolderDisk::create(volume.journal(1)).unwrap();
        let config = JournalConfig { instance: 1, segment_bytes: 64 << 20, boot_id: [1; 16] };
        let mut journal = Journal::open(disk, config, TimestampMs::MIN, |_, _| ()).unwrap().0;
        let mut append = |event| {
            let (id, amount) = (CorrelationId::from_bytes([1; 16]), Cents::new(1));
            let record = PaymentRecord { id, amount, written_at: TimestampMs::MIN, event };
            assert!(journal.append(&[record], 1, TimestampMs::MIN).error.is_none());
        };
        append(Event::Accepted);
        assert!(!was_decided_upon(&volume, 1).unwrap());
        append(Event::Duplicate);
        assert!(matches!(begin(&volume), Err(SharedError::NotNew { .. })));
    }

    #[test]
    fn what_was_not_written_is_not_guessed_at() {
        let folder = tempfile::tempdir().unwrap();
        let volume = volume(&folder);
        fs::write(path(&volume), "half").unwrap();
        for refused in [begin(&volume), demand_none(&volume)] {
            assert!(matches!(refused, Err(SharedError::NoMembership { .. })), "{refused:?}");
        }
    }
}
