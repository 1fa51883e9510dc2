//! The running router and files that are not what it wrote, or not its own.

#![allow(clippy::unwrap_used)]

mod live;
mod support;

use std::collections::BTreeMap;
use std::path::Path;

use ledger::journal::{HEADER_BYTES, RECORD_BYTES, segment_file_name};
use live::{Live, id, ids, payment};
use rinha_test::faults::files::flip_bit;

/// Payments that are posted before the damage.
const BEFORE: u32 = 60;

fn post_to_both(live: &Live, numbers: std::ops::Range<u32>) {
    let mut connections = live.connect_to_both();
    for number in numbers {
        let connection = &mut connections[number as usize % 2];
        assert_eq!(connection.post("/payments", &payment(number)).status, 202);
    }
}

#[test]
fn a_flipped_bit_in_the_middle_of_a_segment_stops_its_readers_and_nothing_is_lost_by_it() {
    let live = Live::start();
    post_to_both(&live, 0..BEFORE);
    live.wait_settled(u64::from(BEFORE));
    let segment = live.volume().journal(1).join(segment_file_name(1));
    let offset = HEADER_BYTES + 10 * RECORD_BYTES;
    live.system().kill("api-1").unwrap();
    live.system().kill("store").unwrap();
    // Somewhere within the record: it begins where the message says.
    flip_bit(&segment, offset as u64 + 20).unwrap();
    // The store must not get along on what it read before.
    std::fs::remove_dir_all(live.volume().store().join("sled-0")).unwrap();
    let damaged = std::fs::read(&segment).unwrap();

    for name in ["api-1", "store"] {
        let output = live.command(name).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(65), "{name}: {said}");
        let place = format!("{} is damaged at byte {offset}:", segment.display());
        assert!(said.contains(&place), "{name}: {said}");
        assert!(said.contains("restore the file from a copy"), "{name}: {said}");
    }
    // Nothing was cut, mended or skipped.
    assert_eq!(std::fs::read(&segment).unwrap(), damaged);

    flip_bit(&segment, offset as u64 + 20).unwrap();
    for name in ["store", "api-1"] {
        live.system().start_process(name).unwrap();
    }
    live.wait_until_it_answers();
    live.wait_settled(u64::from(BEFORE));
    post_to_both(&live, BEFORE..2 * BEFORE);
    live.wait_settled(u64::from(2 * BEFORE));
    assert_eq!(live.agreed_books(), ids(2 * BEFORE));
}

#[test]
fn a_second_api_on_a_journal_refuses_and_leaves_everything_alone() {
    let live = Live::start();
    post_to_both(&live, 0..BEFORE);
    live.wait_settled(u64::from(BEFORE));
    let pid = live.system().status("api-1").unwrap().pid;
    let before = contents(&live.volume().journal(1));

    let output = live.command("api-1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(70), "{said}");
    let folder = live.volume().journal(1);
    assert!(said.contains(&folder.display().to_string()), "{said}");

    assert_eq!(contents(&folder), before);
    assert_eq!(live.system().status("api-1").unwrap().pid, pid);
    // Connections still reach the first one, by the socket that the second one would have used.
    post_to_both(&live, BEFORE..2 * BEFORE);
    live.wait_settled(u64::from(2 * BEFORE));
    assert_eq!(live.agreed_books(), ids(2 * BEFORE));
    let journal = std::fs::read(folder.join(segment_file_name(1))).unwrap();
    assert!(journal.len() > before[&segment_file_name(1)].len());
    assert_eq!(live.connect().get(&format!("/payments/{}", id(0))).status, 200);
}

/// All files in a folder, by name.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read(path).unwrap())
    });
    files.collect()
}
