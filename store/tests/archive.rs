//! The archive in a real PostgreSQL: it has exactly what the journals say was settled, whoever is killed
//! in the middle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod postgres;
mod proxy;
mod site;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use ledger::RangeMs;
use ledger::journal::segment_file_name;
use ledger::protocol::{Request, Response};
use postgres::{Postgres, wait_for};
use proxy::Fate::{AnswerLost, Late, Lost, Well};
use proxy::{Fates, Proxy};
use site::{Site, Store, check_archive, moments, settled_count, totals};

/// Payments that a load writes at a time, and how long it rests between.
const LOAD_STEP: u32 = 400;
const LOAD_PAUSE: Duration = Duration::from_millis(20);

/// Writes payments without an end while `act` is done, and gives how many were written.
fn under_load(site: &Site, first: u32, act: impl FnOnce()) -> u32 {
    let stop = AtomicBool::new(false);
    let end = AtomicU32::new(first);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let writer = site.writer();
            while !stop.load(Ordering::Relaxed) {
                let next = end.load(Ordering::Relaxed);
                writer.write(next..next + LOAD_STEP);
                end.store(next + LOAD_STEP, Ordering::Relaxed);
                std::thread::sleep(LOAD_PAUSE);
            }
        });
        // Also where the act fails: otherwise the scope would wait for ever.
        let acted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
        stop.store(true, Ordering::Relaxed);
        acted.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    end.into_inner()
}

/// Waits until so many payments more are archived than there were.
fn wait_for_more(postgres: &Postgres, payments: u64) {
    postgres.wait_for_payments(postgres.payments_count() + payments);
}

#[test]
fn the_archive_is_what_the_journals_say_was_settled() {
    let postgres = Postgres::start();
    let site = Site::new();
    site.write(0..3000);
    let store = Store::archiving(&site, &postgres);
    postgres.wait_for_payments(settled_count(0..3000));
    check_archive(&postgres, 0..3000);
    let months = "SELECT relname FROM pg_class JOIN pg_inherits ON oid = inhrelid \
                  WHERE inhparent = 'payments'::regclass ORDER BY 1";
    assert_eq!(postgres.query(months), [["payments_2025_11"], ["payments_2025_12"]]);
    // What comes later follows, also from a journal that was not there.
    site.write(3000..3100);
    let later = site::open(&site.volume(), 7);
    drop(later);
    postgres.wait_for_payments(settled_count(0..3100));
    assert!(store.end().success());
    let store = Store::archiving(&site, &postgres);
    site.write(3100..3200);
    postgres.wait_for_payments(settled_count(0..3200));
    check_archive(&postgres, 0..3200);
    assert_eq!(store.ask(&Request::Summarize(RangeMs::ALL)), Response::Summary(totals(0..3200)));
}

#[test]
fn a_store_that_is_killed_at_any_moment_repeats_nothing_and_skips_nothing() {
    const ROUNDS: u64 = 15;
    let postgres = Postgres::start();
    let site = Site::new();
    let end = under_load(&site, 0, || {
        for round in 0..ROUNDS {
            let store = Store::archiving(&site, &postgres);
            wait_for_more(&postgres, 1);
            std::thread::sleep(Duration::from_millis(round * 7 % 40));
            store.kill();
        }
    });
    let _store = Store::archiving(&site, &postgres);
    postgres.wait_for_payments(settled_count(0..end));
    check_archive(&postgres, 0..end);
}

#[test]
fn a_database_that_is_killed_at_any_moment_repeats_nothing_and_skips_nothing() {
    const ROUNDS: u64 = 8;
    let mut postgres = Postgres::start();
    let site = Site::new();
    let store = Store::archiving(&site, &postgres);
    let end = under_load(&site, 0, || {
        for round in 0..ROUNDS {
            wait_for_more(&postgres, 1);
            std::thread::sleep(Duration::from_millis(round * 11 % 50));
            postgres.kill();
            postgres.start_again();
        }
    });
    postgres.wait_for_payments(settled_count(0..end));
    check_archive(&postgres, 0..end);
    assert!(store.end().success());
}

#[test]
fn a_line_that_is_cut_around_a_commit_repeats_nothing_and_skips_nothing() {
    const COMMITS: usize = 20;
    const PURGES: usize = 3;
    let postgres = Postgres::start();
    let site = Site::new();
    let fates = Fates { batches: &[Lost, AnswerLost, Well], purges: &[Lost, AnswerLost] };
    let proxy = Proxy::to(postgres.port(), fates);
    // A purge cuts the journals that the store knows: those that are there when it starts.
    drop(site.writer());
    let store = Store::start(&site, &["--archive", &Postgres::url_at(proxy.port)]);
    let end = under_load(&site, 0, || {
        wait_for("commits", || (proxy.batches_count() >= COMMITS).then_some(()));
    });
    postgres.wait_for_payments(settled_count(0..end));
    check_archive(&postgres, 0..end);
    // Of the purges one is sent twice.
    let mut end = end;
    for purges in [2, PURGES, PURGES + 1] {
        let (first, commits) = (end, proxy.batches_count());
        assert_eq!(store.ask(&Request::Purge), Response::Purged);
        wait_for("a purge", || (proxy.purges_count() >= purges).then_some(()));
        end = under_load(&site, first, || {
            wait_for("commits", || (proxy.batches_count() >= commits + 3).then_some(()));
        });
        postgres.wait_for_payments(settled_count(first..end));
        check_archive(&postgres, first..end);
    }
    assert!(store.end().success());
}

/// Statements of stores that wait for others to end a transaction.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
                       WHERE wait_event_type = 'Lock' AND application_name = 'payment-router-store'";

#[test]
fn a_commit_that_is_carried_out_after_the_next_connection_is_no_other_stores() {
    let postgres = Postgres::start();
    let site = Site::new();
    let proxy = Proxy::to(postgres.port(), Fates { batches: &[Well, Late, Well], purges: &[Well] });
    let store = Store::start(&site, &["--archive", &Postgres::url_at(proxy.port)]);
    site.write(0..100);
    postgres.wait_for_payments(1);
    site.write(100..200);
    wait_for("the late one", || (proxy.batches_count() >= 2).then_some(()));
    wait_for("the next connection", || (postgres.number(WAITING) > 0).then_some(()));
    proxy.release();
    site.write(200..300);
    postgres.wait_for_payments(settled_count(0..300));
    check_archive(&postgres, 0..300);
    assert!(store.end().success());
}

#[test]
fn a_database_that_is_made_anew_gets_all_and_one_that_is_brought_back_what_it_lacks() {
    let mut postgres = Postgres::start();
    let site = Site::new();
    site.write(0..100);
    let store = archived(&site, &postgres, 0..100);
    postgres.recreate_database();
    site.write(100..200);
    postgres.wait_for_payments(settled_count(0..200));
    check_archive(&postgres, 0..200);
    postgres.copy_data();
    site.write(200..3000);
    postgres.wait_for_payments(settled_count(0..3000));
    postgres.bring_back();
    site.write(3000..3100);
    postgres.wait_for_payments(settled_count(0..3100));
    check_archive(&postgres, 0..3100);
    // After a purge the journals begin at its cuts.
    assert_eq!(store.ask(&Request::Purge), Response::Purged);
    wait_for("an empty archive", || (postgres.payments_count() == 0).then_some(()));
    site.write(4000..4100);
    postgres.wait_for_payments(settled_count(4000..4100));
    postgres.recreate_database();
    site.write(4100..4200);
    postgres.wait_for_payments(settled_count(4000..4200));
    check_archive(&postgres, 4000..4200);
    assert!(store.end().success());
}

/// A store with 100 payments whose database is down.
fn without_database() -> (Postgres, Site, Store) {
    let mut postgres = Postgres::start();
    postgres.stop();
    let site = Site::new();
    site.write(0..100);
    let store = Store::archiving(&site, &postgres);
    store.wait_for_line("nothing is archived: the database cannot let us connect");
    (postgres, site, store)
}

#[test]
fn a_journal_that_cannot_be_read_for_a_while_takes_nothing_of_the_others() {
    let (mut postgres, site, store) = without_database();
    // The journals before this one are read when it fails.
    let unreadable = site.volume().journal(7).join(segment_file_name(1));
    std::fs::create_dir_all(&unreadable).unwrap();
    postgres.start_again();
    store.wait_for_line("Is a directory");
    std::fs::remove_dir(&unreadable).unwrap();
    postgres.wait_for_payments(settled_count(0..100));
    check_archive(&postgres, 0..100);
    assert!(store.end().success());
}

#[test]
fn a_table_that_is_not_as_the_archive_made_it_ends_the_archive_and_not_the_store() {
    let postgres = Postgres::start();
    // Many programs have one of this name, and it is in nobody's way.
    postgres.query(
        "CREATE TABLE schema_version (version text); INSERT INTO schema_version VALUES ('x')",
    );
    let site = Site::new();
    site.write(0..100);
    assert!(archived(&site, &postgres, 0..100).end().success());
    let spoiled = [
        ("archive_places", "DROP CONSTRAINT archive_places_place_check, ALTER place TYPE text", ""),
        ("archive_places", "DROP COLUMN place", ""),
        ("archive_places", "DROP CONSTRAINT archive_places_place_check", "place = -1"),
        ("archive_places", "DROP CONSTRAINT archive_places_instance_check", "instance = -instance"),
        ("archive", "ALTER volume DROP NOT NULL", "volume = NULL"),
        ("archive", "ALTER volume TYPE text", ""),
        ("archive", "ALTER purge DROP NOT NULL", "purge = NULL"),
        ("archive_schema_version", "ALTER version TYPE text", ""),
    ];
    for (count, (table, change, set)) in (1..).zip(spoiled) {
        let kept = format!("kept_{count}");
        postgres.query(&format!("CREATE TABLE {kept} (LIKE {table} INCLUDING ALL)"));
        postgres.query(&format!("INSERT INTO {kept} SELECT * FROM {table}"));
        postgres.query(&format!("ALTER TABLE {table} {change}"));
        if !set.is_empty() {
            postgres.query(&format!("UPDATE {table} SET {set}"));
        }
        let store = Store::archiving(&site, &postgres);
        wait_for(change, || {
            (store.log().matches("a table is not as the archive made it").count() == count)
                .then_some(())
        });
        let all = store.ask(&Request::Summarize(RangeMs::ALL));
        assert_eq!(all, Response::Summary(totals(0..100)));
        assert!(store.end().success());
        postgres.query(&format!("DROP TABLE {table}"));
        postgres.query(&format!("ALTER TABLE {kept} RENAME TO {table}"));
    }
    postgres.recreate_database();
    postgres.query("CREATE TABLE payments (of_someone_else text)");
    let store = Store::archiving(&site, &postgres);
    store.wait_for_line("relation \"payments\" already exists");
    assert!(store.end().success());
}

#[test]
fn a_database_that_is_away_is_caught_up_with_and_nobody_waits_for_it() {
    let (mut postgres, site, store) = without_database();
    assert_eq!(store.ask(&Request::Summarize(RangeMs::ALL)), Response::Summary(totals(0..100)));
    postgres.start_again();
    postgres.wait_for_payments(settled_count(0..100));
    store.wait_for_line("the archive's database is back");
    postgres.stop();
    let lost = "nothing is archived: the database cannot keep the connection: it was closed";
    store.wait_for_line(lost);
    let end = under_load(&site, 100, || {
        let sum = || store.ask(&Request::Summarize(RangeMs::ALL));
        let before = sum();
        wait_for("summaries that grow", || (sum() != before).then_some(()));
    });
    postgres.start_again();
    postgres.wait_for_payments(settled_count(0..end));
    check_archive(&postgres, 0..end);
    wait_for("a second line", || {
        (store.log().matches("the archive's database is back").count() == 2).then_some(())
    });
    // One line for each reason when it went away, each time, whatever the number of attempts.
    let refused = "nothing is archived: the database cannot let us connect: error connecting to server: \
                   Connection refused";
    assert!(store.log().matches(refused).count() <= 2, "{}", store.log());
    assert_eq!(store.log().matches(lost).count(), 1, "{}", store.log());
    assert!(store.end().success());
}

#[test]
fn a_store_ends_in_time_while_its_database_stands_still() {
    let mut postgres = Postgres::start();
    let site = Site::new();
    let store = Store::archiving(&site, &postgres);
    site.write(0..100);
    postgres.wait_for_payments(1);
    // Whoever writes to the table has to wait.
    let mut holder = postgres.psql("BEGIN; LOCK TABLE archive; SELECT pg_sleep(600)");
    let mut holder = holder.stderr(Stdio::null()).spawn().unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
    wait_for("a batch that waits", || {
        site.write(100..200);
        (postgres.number(waiting) > 0).then_some(())
    });
    let clock = ledger::clock::Monotonic::start();
    assert!(store.end().success());
    assert!(clock.elapsed() < Duration::from_secs(20), "{:?}", clock.elapsed());
    postgres.kill();
    holder.wait().unwrap();
}

#[test]
fn a_purge_empties_the_archive_and_what_is_in_flight_counts_if_it_settles() {
    let postgres = Postgres::start();
    let site = Site::new();
    let writer = site.writer();
    writer.write(0..1000);
    writer.accept(1, 1000..1001);
    writer.dispatch(1, 1000);
    writer.accept(2, 1001..1002);
    drop(writer);
    let store = Store::archiving(&site, &postgres);
    postgres.wait_for_payments(settled_count(0..1000));
    assert_eq!(store.ask(&Request::Purge), Response::Purged);
    wait_for("an empty archive", || (postgres.payments_count() == 0).then_some(()));
    let writer = site.writer();
    writer.close(1, 1000..1001);
    writer.write(2000..2100);
    drop(writer);
    let numbers = || (1000..1001).chain(2000..2100);
    postgres.wait_for_payments(1 + settled_count(2000..2100));
    check_archive(&postgres, numbers());
    assert_eq!(store.ask(&Request::Summarize(RangeMs::ALL)), Response::Summary(totals(numbers())));
    store.kill();
    // One that the archive hears of later, while there is more to archive behind it.
    let unarchived = Store::start(&site, &[]);
    site.write(3000..3100);
    assert_eq!(unarchived.ask(&Request::Purge), Response::Purged);
    site.write(4000..4100);
    unarchived.kill();
    let _store = Store::archiving(&site, &postgres);
    wait_for("the payments after the purge alone", || {
        (postgres.payments_count() == settled_count(4000..4100)).then_some(())
    });
    check_archive(&postgres, 4000..4100);
    assert_eq!(postgres.number("SELECT purge FROM archive"), 2);
}

#[test]
fn of_two_stores_on_copies_of_a_volume_one_stops() {
    let postgres = Postgres::start();
    let site = Site::new();
    site.write(0..200);
    let first = Store::archiving(&site, &postgres);
    postgres.wait_for_payments(settled_count(0..200));
    let copy = site.copy();
    let second = Store::archiving(&copy, &postgres);
    wait_for("two connections", || {
        let here = "SELECT count(*) FROM pg_stat_activity \
                    WHERE application_name = 'payment-router-store'";
        (postgres.number(here) == 2).then_some(())
    });
    site.write(200..300);
    postgres.wait_for_payments(settled_count(0..300));
    copy.write(300..400);
    second.wait_for_line("another store has archived beyond api-1 at 1:");
    // It goes on with everything else, and the right one with everything.
    assert_eq!(
        second.ask(&Request::Summarize(RangeMs::ALL)),
        Response::Summary(totals((0..200).chain(300..400)))
    );
    site.write(400..500);
    let archived = || (0..300).chain(400..500);
    postgres.wait_for_payments(settled_count(0..300) + settled_count(400..500));
    check_archive(&postgres, archived());
    drop(first);
    // The copy has less than the archive by now.
    drop(second);
    let older = Store::archiving(&copy, &postgres);
    older.wait_for_line("the archive has more than this volume");
}

#[test]
fn the_archive_of_another_volume_is_left_alone() {
    let postgres = Postgres::start();
    let site = Site::new();
    site.write(0..100);
    drop(archived(&site, &postgres, 0..100));
    let other = Site::new();
    other.write(500..600);
    let store = Store::archiving(&other, &postgres);
    store.wait_for_line("the database has the archive of volume");
    check_archive(&postgres, 0..100);
    assert!(store.end().success());
}

/// A store that has archived these payments.
fn archived(site: &Site, postgres: &Postgres, numbers: std::ops::Range<u32>) -> Store {
    let store = Store::archiving(site, postgres);
    postgres.wait_for_payments(settled_count(numbers));
    store
}

#[test]
fn a_payment_that_someone_else_wrote_stops_the_archive() {
    let postgres = Postgres::start();
    let site = Site::new();
    site.write(0..100);
    let store = archived(&site, &postgres, 0..100);
    let (id, requested) = (site::payment(100).0, moments(100)[1]);
    postgres.query(&format!(
        "INSERT INTO payments VALUES ('{id}', 1, 'default', to_timestamp({} / 1000.0), NULL, now())",
        requested.get()
    ));
    site.write(100..200);
    store.wait_for_line("nothing is archived any more: the archive has a payment already");
    store.wait_for_line(&id.to_string());
}

/// Makes an authority, and a certificate that it gave to `localhost`.
fn make_certificates(folder: &Path) {
    let make = |name: &str, arguments: &[&str]| {
        let made = Command::new("openssl")
            .current_dir(folder)
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
            .args(["-nodes", "-days", "2"])
            .args(["-keyout", &format!("{name}.key"), "-out", &format!("{name}.pem")])
            .args(arguments)
            .output()
            .expect("openssl comes with Debian's PostgreSQL");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    make("authority", &["-subj", "/CN=authority"]);
    let given = ["-CA", "authority.pem", "-CAkey", "authority.key", "-subj", "/CN=localhost"];
    let of_localhost = ["subjectAltName=DNS:localhost", "basicConstraints=critical,CA:FALSE"];
    let of_localhost = of_localhost.iter().flat_map(|what| ["-addext", what]);
    make("server", &given.into_iter().chain(of_localhost).collect::<Vec<_>>());
}

#[test]
fn tls_is_used_where_the_url_says_so_and_only_with_whom_is_trusted() {
    let (trusted, stranger) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(trusted.path());
    make_certificates(stranger.path());
    let postgres = Postgres::with_settings(|folder| {
        for name in ["server.pem", "server.key"] {
            std::fs::copy(trusted.path().join(name), folder.join(name)).unwrap();
        }
        "ssl = on\nssl_cert_file = '../server.pem'\nssl_key_file = '../server.key'\n".to_owned()
    });
    let site = Site::new();
    site.write(0..100);
    let start = |authority: &Path| {
        let (url, ca) = (postgres.url_over_tls(), authority.join("authority.pem"));
        Store::start(&site, &["--archive", &url, "--archive-ca", ca.to_str().unwrap()])
    };
    let store = start(stranger.path());
    store.wait_for_line("nothing is archived: the database cannot let us connect");
    assert!(store.log().contains("TLS"), "{}", store.log());
    assert!(store.end().success());
    assert_eq!(postgres.payments_count(), 0);
    let store = start(trusted.path());
    postgres.wait_for_payments(settled_count(0..100));
    let encrypted = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND application_name = 'payment-router-store'";
    assert_eq!(postgres.number(encrypted), 1);
    assert!(store.end().success());
}
