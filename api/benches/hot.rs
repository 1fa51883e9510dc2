//! What the API's decisions cost: a payment read from its body, the router's word, and the way of a
//! payment through the engine.
//!
//! `cargo bench -p api --bench hot`

#![allow(clippy::unwrap_used, missing_docs, reason = "a measurement that cannot go on has failed")]

use std::hint::black_box;

use api::engine::{Accept, CallOutcome, Engine, EngineConfig};
use api::http::parse_payment;
use api::router::{Backlog, Router, RouterConfig};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ledger::journal::Position;
use ledger::protocol::PurgeNotice;
use ledger::{Cents, CorrelationId, TimestampMs};

const ROUTER: RouterConfig =
    RouterConfig { fees_bp: [500, 1500], patience_ms: 30_000, in_flight_max: 384, slow_ms: 1300 };

fn parse(criterion: &mut Criterion) {
    let body = br#"{"correlationId":"4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3","amount":19.90}"#;
    criterion.bench_function("read a payment from its body", |bencher| {
        bencher.iter(|| parse_payment(black_box(body)).unwrap());
    });
}

fn decide(criterion: &mut Criterion) {
    let mut router = Router::new(ROUTER);
    let backlog = Backlog { oldest_age_ms: 5, count: 100 };
    criterion.bench_function("ask the router", |bencher| {
        bencher.iter(|| router.decide(black_box(1000), black_box(backlog)));
    });
}

/// Payments from their acceptance to their settlement, with everyone else played.
fn live(criterion: &mut Criterion) {
    const COUNT: u32 = 32;
    let config = EngineConfig {
        backlog_max: 500_000,
        recent_max: 65_536,
        claim_delay_ms: 0,
        router: ROUTER,
    };
    let now = TimestampMs::clamped(0);
    let mut engine = Engine::new(config, &[], Position::START, 0, now);
    engine.connected(PurgeNotice { purge: 0, cut: Position::START });
    let (mut end, mut number) = (Position::START, 0_u128);
    let mut group = criterion.benchmark_group("the way through the engine");
    group.throughput(Throughput::Elements(u64::from(COUNT)));
    group.bench_function(format!("{COUNT} payments"), |bencher| {
        bencher.iter(|| {
            engine.begin_turn(0);
            for _ in 0..COUNT {
                number += 1;
                let id = CorrelationId::from_bytes(number.wrapping_mul(0x9e37_79b9).to_be_bytes());
                let accepted = engine.accept(id, Cents::new(1990), 0);
                assert!(matches!(accepted, Accept::Writing(_)));
            }
            engine.begin_turn(0);
            while let Some(batch) = {
                engine.pump(0, now);
                engine.take_batch(now)
            } {
                let count = batch.records.len();
                engine.written(batch, end, count, None, 0);
                // Positions of one segment are counted in 32 bits, and this goes on for long.
                end = if end.index > 1 << 27 { end.next_segment() } else { end };
                end = end.plus(u32::try_from(count).unwrap());
                if let Some(through) = engine.take_claim(0) {
                    engine.decided(through, &[]);
                }
                for call in engine.take_calls() {
                    engine.finished(&call, CallOutcome::Recorded, 1, 0);
                }
            }
            assert_eq!(engine.open_count(), 0);
        });
    });
    group.finish();
}

criterion_group!(benches, parse, decide, live);
criterion_main!(benches);
