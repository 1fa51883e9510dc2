//! The claim log's file, with the checksums that were written or with right ones.

#![no_main]

use fuzz::bytes::Bytes;
use fuzz::memory;
use ledger::disk::memory::MemoryDisk;
use libfuzzer_sys::fuzz_target;
use store::claims::{ClaimLog, Kept};

const NAME: &str = "claims.log";
const BOOT_ID: [u8; 16] = [7; 16];
const HEAD_BYTES: usize = 48;
const ENTRY_BYTES: usize = 32;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Bytes(bytes);
    let mends = input.u32();
    let mut file = input.0.to_vec();
    mend(&mut file, mends);
    let disk = MemoryDisk::new();
    disk.put(NAME, file.clone());
    memory::within(32 * file.len() + 16_384, || {
        let opened = ClaimLog::open(disk.clone(), BOOT_ID);
        assert_eq!(disk.bytes(NAME).as_deref(), Some(&file[..]), "reading changes nothing");
        let Ok((mut log, kept)) = opened else { return };
        assert!(kept.claims.len() <= file.len() / ENTRY_BYTES);
        write(&mut log, &kept);
        drop(log);
        let written = disk.bytes(NAME);
        // What is written again says the same, in the same bytes.
        let (mut log, again) = ClaimLog::open(disk.clone(), BOOT_ID).expect("it was just written");
        assert_eq!(again, Kept { same_boot: true, ..kept });
        write(&mut log, &again);
        assert_eq!(disk.bytes(NAME), written);
    });
});

fn write(log: &mut ClaimLog<MemoryDisk>, kept: &Kept) {
    log.replace(&kept.checkpoint).expect("the disk has room");
    for claim in &kept.claims {
        log.append(*claim).expect("the disk has room");
    }
}

/// Makes the first bytes those of a log, and puts right checksums where a bit says so: the head's
/// for the last bit, and those of the entries for the others.
fn mend(file: &mut [u8], mends: u32) {
    if mends >> 31 == 0 || file.len() < HEAD_BYTES {
        return;
    }
    file[..8].copy_from_slice(b"PAYCLMS\n");
    file[8..16].copy_from_slice(&[3, 0, 0, 0, 0, 0, 0, 0]);
    // Few entries before the claims, so that some logs have them all.
    file[40] %= 8;
    file[41..44].fill(0);
    if mends >> 30 & 1 == 1 {
        file[24..40].copy_from_slice(&BOOT_ID);
    }
    let head = crc32c::crc32c(&file[..44]);
    file[44..48].copy_from_slice(&head.to_le_bytes());
    let (entries, _) = file[HEAD_BYTES..].as_chunks_mut::<ENTRY_BYTES>();
    for (entry, index) in entries.iter_mut().zip(0_u32..30) {
        if mends >> index & 1 == 1 {
            let place = [head.to_le_bytes(), index.to_le_bytes()].concat();
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&place), &entry[4..]);
            entry[..4].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}
