//! How many payments are archived a second, and how long a restore takes until the store answers for
//! them, with a real PostgreSQL on this machine that syncs every commit.
//!
//! `cargo bench -p store --bench archive -- --payments 1000000`

#![allow(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]

#[path = "../tests/journals/mod.rs"]
mod journals;
mod memory;
#[path = "../tests/postgres/mod.rs"]
mod postgres;
#[path = "../tests/site/mod.rs"]
mod site;

use clap::Parser;
use ledger::clock::Monotonic;
use ledger::journal::SEGMENT_BYTES_DEFAULT;
use ledger::protocol::{Request, Response};
use ledger::volume::Volume;
use ledger::{RangeMs, Totals};
use postgres::{Postgres, wait_for};
use site::{Site, Store, restore_command};
use store::archive::Archive;
use store::archive::url::DatabaseUrl;

/// Measures the archive and the restore from it.
#[derive(Parser)]
struct Settings {
    /// Payments in the journals
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    payments: u32,

    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let settings = Settings::parse();
    let postgres = Postgres::with_settings(|_| "fsync = on\n".to_owned());
    let lost = tempfile::tempdir().unwrap();
    let volume = Volume::new(lost.path());
    journals::write(&volume, ledger::daemon::boot_id(), settings.payments, SEGMENT_BYTES_DEFAULT);
    archive(&postgres, volume, settings.payments);
    restore(&postgres, journals::totals(0..settings.payments));
}

/// Archives all journals in this process.
fn archive(postgres: &Postgres, volume: Volume, payments_count: u32) {
    let clock = Monotonic::start();
    let url = DatabaseUrl::from(postgres.url());
    let archive = Archive::start(volume, ledger::daemon::boot_id(), &url, None).unwrap();
    let progress = archive.progress();
    wait_for("the archive", || {
        (progress.archived_payments() == u64::from(payments_count)).then_some(())
    });
    let seconds = clock.elapsed().as_secs_f64();
    println!(
        "{payments_count} payments archived in {seconds:.2} s, {:.0} a second; this process had at \
         most {} MiB",
        f64::from(payments_count) / seconds,
        memory::peak_mib(std::process::id())
    );
    assert_eq!(postgres.payments_count(), u64::from(payments_count));
}

/// Restores them, and starts a store on the volume.
fn restore(postgres: &Postgres, expected: [Totals; 2]) {
    let clock = Monotonic::start();
    let site = Site::without_folder();
    assert!(restore_command(&site.data, postgres).status().unwrap().success());
    let restored_ms = clock.elapsed_ms();
    let store = Store::start(&site, &[]);
    let answer = store.ask(&Request::Summarize(RangeMs::ALL));
    let answered_ms = clock.elapsed_ms();
    assert_eq!(answer, Response::Summary(expected));
    println!(
        "restored in {restored_ms} ms, and answered for after {answered_ms} ms; the store had at most \
         {} MiB",
        memory::peak_mib(store.pid())
    );
    assert!(store.end().success());
}
