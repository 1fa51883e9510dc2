//! A volume that is made anew from a real archive: it answers as the one that was lost, whenever the
//! restore was broken off before, and the archive goes on with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod postgres;
mod site;

use std::time::Duration;

use ledger::journal::{Event, Position};
use ledger::protocol::{Request, Response};
use ledger::volume::{RESTORED_INSTANCE, Volume};
use ledger::{RangeMs, TimestampMs, Totals};
use postgres::{Postgres, wait_for};
use site::{
    Site, Store, check_archive, is_settled, moments, payment, processor, restore, restore_command,
    settled_count, totals,
};
use store::books::Books;

const CACHE_BYTES: u64 = 1 << 20;

/// A volume whose payments are archived, and the archive.
fn archived(numbers: std::ops::Range<u32>) -> (Site, Postgres) {
    let postgres = Postgres::start();
    let site = Site::new();
    site.write(numbers.clone());
    let store = Store::archiving(&site, &postgres);
    postgres.wait_for_payments(settled_count(numbers));
    assert!(store.end().success());
    (site, postgres)
}

/// A volume that was restored from an archive.
fn restored(postgres: &Postgres) -> Site {
    let site = Site::without_folder();
    let (is_done, said) = restore(&site.data, postgres);
    assert!(is_done, "{said}");
    site
}

fn books(volume: &Volume, boot_id: [u8; 16]) -> Books {
    Books::open(volume, CACHE_BYTES, boot_id).unwrap().0
}

/// Windows of up to all payments, and a little beyond.
fn windows(count: usize, payments: u32) -> Vec<RangeMs> {
    let mut random = fastrand::Rng::with_seed(11);
    let (first, last) = (moments(0)[0].get() - 5, moments(payments)[2].get() + 5);
    let window = |_| {
        let (one, other) = (random.i64(first..last), random.i64(first..last));
        let (from, to) = (one.min(other), one.max(other));
        RangeMs { from: TimestampMs::clamped(from), to: TimestampMs::clamped(to) }
    };
    (0..count).map(window).collect()
}

fn sums(books: &mut Books, windows: &[RangeMs]) -> Vec<[Totals; 2]> {
    windows.iter().map(|window| books.sum(*window).unwrap()).collect()
}

#[test]
fn a_restored_volume_answers_as_the_one_that_was_lost() {
    const PAYMENTS: u32 = 4000;
    let (lost, postgres) = archived(0..PAYMENTS);
    let restored = restored(&postgres);
    let windows = windows(1000, PAYMENTS);
    let boot_id = ledger::daemon::boot_id();
    let expected = sums(&mut books(&lost.volume(), boot_id), &windows);
    assert!(expected.iter().filter(|sum| sum[0].count > 0 && sum[1].count > 0).count() > 900);
    // With the views made for the first time, with them in place, and after the machine was started.
    for boot_id in [boot_id, boot_id, [7; 16]] {
        let mut books = books(&restored.volume(), boot_id);
        assert_eq!(sums(&mut books, &windows), expected);
        assert_eq!(books.sum(RangeMs::ALL).unwrap(), totals(0..PAYMENTS));
        for number in 0..PAYMENTS {
            let (id, amount) = payment(number);
            let [_, requested_at, settled_at] = moments(number);
            let found =
                books.look(id).unwrap().map(|found| (found.amount, found.written_at, found.event));
            let event = Event::Settled { processor: processor(number), requested_at };
            let expected = is_settled(number).then_some((amount, settled_at, event));
            assert_eq!(found, expected, "{number}");
        }
    }
    // Posted again, each is a duplicate; those that both processors refused were not archived.
    restored.writer().accept(1, 0..PAYMENTS);
    let mut books = books(&restored.volume(), boot_id);
    let decided = books.claim(1, Position { segment: 99, index: 0 }).unwrap().unwrap();
    assert_eq!(decided.losers.len() as u64, settled_count(0..PAYMENTS));
}

#[test]
fn the_archive_goes_on_with_the_restored_volume_and_no_longer_with_the_lost_one() {
    let (lost, postgres) = archived(0..1000);
    let undead = Store::archiving(&lost, &postgres);
    undead.ask(&Request::Summarize(RangeMs::ALL));
    wait_for("its connection", || {
        let here = "SELECT count(*) FROM pg_stat_activity \
                    WHERE application_name = 'payment-router-store'";
        (postgres.number(here) == 1).then_some(())
    });
    let site = restored(&postgres);
    // Places begin anew, at numbers that the lost journals had as well.
    site.write(1000..1500);
    let store = Store::archiving(&site, &postgres);
    postgres.wait_for_payments(settled_count(0..1500));
    lost.write(5000..5100);
    undead.wait_for_line("nothing is archived any more");
    assert!(undead.log().contains("the database has the archive of volume"), "{}", undead.log());
    check_archive(&postgres, 0..1500);
    assert!(store.end().success());
    // Restored once more, there is nothing but what was archived.
    let again = restored(&postgres);
    // The store hears of journals that come later from their APIs.
    drop(again.writer());
    let store = Store::archiving(&again, &postgres);
    let all = || store.ask(&Request::Summarize(RangeMs::ALL));
    assert_eq!(all(), Response::Summary(totals(0..1500)));
    // A purge takes what was restored as well.
    assert_eq!(store.ask(&Request::Purge), Response::Purged);
    wait_for("an empty archive", || (postgres.payments_count() == 0).then_some(()));
    again.write(2000..2100);
    postgres.wait_for_payments(settled_count(2000..2100));
    check_archive(&postgres, 2000..2100);
    assert_eq!(all(), Response::Summary(totals(2000..2100)));
}

#[test]
fn a_volume_that_is_in_use_or_not_empty_is_refused() {
    let (site, postgres) = archived(0..100);
    let owner = || postgres.query("SELECT volume, purge FROM archive");
    let before = owner();
    let (is_done, said) = restore(&site.data, &postgres);
    assert!(
        !is_done && said.contains("api-1 exists: a restore is made on an empty volume"),
        "{said}"
    );
    let empty = Site::new();
    let store = Store::start(&empty, &[]);
    store.ask(&Request::Summarize(RangeMs::ALL));
    let (is_done, said) = restore(&empty.data, &postgres);
    assert!(!is_done && said.contains("a store runs on"), "{said}");
    assert_eq!(owner(), before);
    assert!(empty.volume().instances().unwrap().is_empty());
}

#[test]
fn an_archive_with_a_payment_that_is_none_is_not_restored() {
    let (_lost, postgres) = archived(0..100);
    for (change, said_of_it) in [
        ("ALTER settled_at DROP NOT NULL", "a table is not as the archive made it"),
        (
            "DROP CONSTRAINT payments_processor_check, ALTER processor TYPE bytea USING 'x'",
            "a table is not as the archive made it",
        ),
        ("RENAME amount TO price", "column \"amount\" does not exist"),
    ] {
        postgres.query(&format!("ALTER TABLE payments {change}"));
        if change.contains("NOT NULL") {
            postgres.query("UPDATE payments SET settled_at = NULL");
        }
        let site = Site::without_folder();
        let (is_done, said) = restore(&site.data, &postgres);
        assert!(!is_done && said.contains("nothing is restored"), "{said}");
        assert!(said.contains(said_of_it), "{said}");
        assert!(site.volume().instances().unwrap().is_empty());
    }
}

#[test]
fn a_database_without_an_archive_is_no_empty_archive() {
    let postgres = Postgres::start();
    let site = Site::without_folder();
    let (is_done, said) = restore(&site.data, &postgres);
    assert!(!is_done && said.contains("the database has no archive"), "{said}");
    assert_eq!(postgres.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), 0);
}

#[test]
fn a_restore_that_is_killed_at_any_moment_leaves_an_empty_volume_and_can_be_repeated() {
    const PAYMENTS: u64 = 150_000;
    let (_lost, postgres) = archived(0..100);
    postgres.query(&format!(
        "INSERT INTO payments SELECT gen_random_uuid(), 0.01 * (1 + n % 1000), 'default', \
         '2025-11-30Z'::timestamptz + n * interval '1 ms', NULL, '2025-11-30Z' \
         FROM generate_series(1, {PAYMENTS} - 95) AS n"
    ));
    let expected = postgres.query("SELECT count(*), (sum(amount) * 100)::bigint FROM payments");
    let site = Site::without_folder();
    let place = site.volume().journal(RESTORED_INSTANCE);
    let mut broken_off = 0;
    let mut delay_ms = 0;
    while !place.exists() {
        let mut child = restore_command(&site.data, &postgres).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(delay_ms));
        delay_ms += 25;
        // It may have ended.
        let _ = child.kill();
        broken_off += u32::from(!child.wait().unwrap().success());
        assert!(place.exists() || site.volume().instances().unwrap().is_empty());
    }
    assert!(broken_off > 5, "{broken_off}");
    let mut books = books(&site.volume(), ledger::daemon::boot_id());
    let sum = books.sum(RangeMs::ALL).unwrap();
    let count = sum[0].count + sum[1].count;
    let cents = sum[0].amount.get() + sum[1].amount.get();
    assert_eq!(expected, [[count.to_string(), cents.to_string()]]);
}

#[test]
fn a_restore_that_ended_before_its_last_step_is_noticed_and_can_be_repeated() {
    let (_lost, postgres) = archived(0..500);
    let site = restored(&postgres);
    // As if it had been killed before the rename.
    let volume = site.volume();
    let unfinished = volume.journals().join("restoring");
    std::fs::rename(volume.journal(RESTORED_INSTANCE), &unfinished).unwrap();
    let store = Store::archiving(&site, &postgres);
    store.wait_for_line("the archive has more than this volume: api-65535 up to");
    assert!(store.end().success());
    std::fs::remove_file(volume.store().join("claims.log")).unwrap();
    let (is_done, said) = restore(&site.data, &postgres);
    assert!(is_done, "{said}");
    assert!(!unfinished.exists());
    let store = Store::archiving(&site, &postgres);
    let all = store.ask(&Request::Summarize(RangeMs::ALL));
    assert_eq!(all, Response::Summary(totals(0..500)));
    site.write(500..600);
    postgres.wait_for_payments(settled_count(0..600));
    check_archive(&postgres, 0..600);
}
