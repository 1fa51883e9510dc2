//! One round: a system is started, put under load, audited, judged and ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ledger::clock;
use ledger::{Processor, RangeMs, TimestampMs, Totals};

use super::StressError;
use super::figures::{Figures, Round};
use super::floor::Floor;
use super::judge::{self, Evidence, milliseconds, per, percentiles, quantile_ms};
use super::k6::{K6, K6Result};
use super::settings::authority;
use super::subject::{Ready, Subject, Surroundings, folder_bytes};
use super::timeline::{AuditSeen, Back, Others, StageSeen, Timeline, ask_all, configure};
use super::watch::Watch;
use crate::audit::bounds::{self, Answered, BoundsFound};
use crate::audit::compare::{Books, ById, by_id, by_list, by_totals, increase};
use crate::audit::settle::{Bookkeepers, Settled, wait};
use crate::books::processor::{ProcessorAdmin, Recorded};
use crate::books::router::Router;
use crate::load::payments::Payments;
use crate::load::{LoadError, Measured, Meter, Shape, Traffic, drive};
use crate::machine::cgroup::GroupUsage;
use crate::scenario::{ProcessorState, Scenario, ScenarioError};

/// How often the end of the load is looked for.
pub(super) const POLL: Duration = Duration::from_millis(10);

/// What every round of a run does.
pub(super) struct Plan {
    pub(super) scenario: Scenario,
    pub(super) scale: f64,
    pub(super) seed: u64,
    pub(super) token: String,
    /// The k6 program, if it puts the load on.
    pub(super) k6: Option<PathBuf>,
    /// Set once the user wants an end.
    pub(super) stop: Arc<AtomicBool>,
}

/// What the load saw, whoever put it on.
struct Seen {
    measured: Measured,
    accepted: u64,
    k6: Option<K6Result>,
    stages: Vec<StageSeen>,
    audits: Vec<AuditSeen>,
    bounds: Vec<Answered>,
    failures: Vec<String>,
}

impl Plan {
    fn wrong(&self, cause: String) -> StressError {
        ScenarioError::Value { name: self.scenario.name.clone(), cause }.into()
    }

    fn shape(&self, scale: f64) -> Result<Shape, StressError> {
        let load = self.scenario.load.as_ref().expect("chaos has rounds of its own");
        load.shape(scale).map_err(|cause| self.wrong(cause))
    }

    fn traffic(&self, seed: u64) -> Result<Traffic, StressError> {
        let load = self.scenario.load.as_ref().expect("chaos has rounds of its own");
        let amount = load.amount().map_err(|cause| self.wrong(cause))?;
        Ok(Traffic {
            payments: Payments::new(seed, amount),
            timeout: Duration::from_millis(u64::from(load.timeout_ms)),
            duplicates: load.duplicates,
            in_pieces: load.in_pieces,
        })
    }

    fn check_stop(&self) -> Result<(), StressError> {
        if self.stop.load(Ordering::Relaxed) { Err(StressError::Interrupted) } else { Ok(()) }
    }

    fn patience(&self) -> Duration {
        Duration::from_secs_f64(self.scenario.end.patience_s)
    }
}

/// Makes a round. What was started is ended, and the processors are set back, whatever comes.
pub(super) fn run(
    plan: &Plan,
    subject: &Subject,
    number: u32,
    surroundings: &Surroundings,
) -> Result<Round, StressError> {
    plan.check_stop()?;
    let ready = subject.start(surroundings)?;
    let result = put_under_load(plan, &ready, number, surroundings);
    let ended = ready.end();
    let round = result?;
    ended?;
    Ok(round)
}

/// Sets the processors back when it is dropped.
struct SetBack<'a>(&'a [ProcessorAdmin; 2]);

impl SetBack<'_> {
    fn now(&self) -> Vec<String> {
        let results = self.0.iter().map(|admin| configure(admin, ProcessorState::default()));
        results.filter_map(|r| Some(format!("a processor is not set back: {}", r.err()?))).collect()
    }
}

impl Drop for SetBack<'_> {
    fn drop(&mut self) {
        for failure in self.now() {
            eprintln!("{failure}");
        }
    }
}

fn put_under_load(
    plan: &Plan,
    ready: &Ready,
    number: u32,
    surroundings: &Surroundings,
) -> Result<Round, StressError> {
    let scenario = &plan.scenario;
    let begun = clock::now();
    let seed = plan.seed.wrapping_add(u64::from(number));
    let traffic = plan.traffic(seed)?;
    let processors = ready.processors.each_ref().map(|url| ProcessorAdmin::new(url, &plan.token));
    let bookkeepers =
        Bookkeepers { router: Router::new(&ready.url), processors: processors.clone() };
    let mut floor = match scenario.floor.share {
        share if share > 0.0 => Some(Floor::start(surroundings)?),
        _ => None,
    };
    load_floor(plan, &mut floor, traffic)?;
    let set_back = SetBack(&processors);
    if plan.k6.is_none() {
        prepare(plan, &bookkeepers, ready)?;
    }
    let before = if plan.k6.is_some() { Books::default() } else { bookkeepers.read()? };
    let cost_before = ready.gauge.read().map(|reading| reading.total);
    let disk_before = ready.data.as_deref().map(folder_bytes);
    let meter = Arc::new(Meter::start());
    let others = Others {
        router: bookkeepers.router.clone(),
        processors: processors.clone(),
        meter: Arc::clone(&meter),
    };
    let mut watch = Watch::start(
        Arc::clone(&meter),
        processors.clone(),
        ready.gauge.clone(),
        ready.data.clone(),
        scenario.fees,
        before,
        duration(plan.shape(plan.scale)?),
    );
    let start = clock::now();
    let mut seen = match &plan.k6 {
        Some(k6) => load_with_k6(plan, k6, ready, surroundings, &mut watch)?,
        None => load_ourselves(plan, ready, &others, traffic, start, &mut watch)?,
    };
    let at_once =
        (plan.k6.is_none() && !scenario.end.late_counts).then(|| last_window(plan, &others, start));
    seen.failures.extend(set_back.now());
    let patience = plan.patience();
    let settled = wait(&bookkeepers, before, seen.accepted, patience, &mut |_| {
        watch.look("settling", None);
        !plan.stop.load(Ordering::Relaxed)
    })?;
    watch.end();
    plan.check_stop()?;
    let cost = watch.read_gauge();
    let disk = ready.data.as_deref().map(folder_bytes);
    let last = match (&seen.k6, at_once) {
        (Some(k6), _) => k6.last(),
        (None, Some((last, failures))) => {
            seen.failures.extend(failures);
            last
        }
        (None, None) => increase(settled.books.ours, before.ours),
    };
    let lists = lists(&processors)?;
    let lists = lists.as_ref().map(|[default, fallback]| [&default[..], &fallback[..]]);
    let by_id = match lists {
        Some(lists) if seen.k6.is_some() => by_list(seen.accepted, lists),
        Some(lists) => by_id(&traffic.payments, &seen.measured.outcomes, lists),
        None => {
            let posted = seen.measured.counts.requested - seen.measured.counts.duplicates;
            by_totals(seen.accepted, posted, before, settled.books)
        }
    };
    let bounds = judge_bounds(plan, &bookkeepers, lists, &mut seen);
    load_floor(plan, &mut floor, traffic)?;
    let evidence =
        evidence(plan, &seen, last, &settled, before, &by_id, lists.is_some(), &bounds, &watch);
    let mut figures = judge::figures(&evidence);
    add_costs(&mut figures, cost_before, cost, &watch, ready.gauge.is_exact());
    figures.ready_ms = ready.ready_after.map(|time| time.as_secs_f64() * 1e3);
    figures.disk_bytes_per_payment = disk_before
        .zip(disk)
        .and_then(|(before, after)| per(whole(after.saturating_sub(before)), figures.accepted));
    let floor_latency = floor.map(|floor| add_floor(&mut figures, floor)).unwrap_or_default();
    let findings = judge::findings(&figures, &evidence);
    figures.right = findings.is_empty();
    Ok(Round {
        subject: ready.name.clone(),
        scenario: scenario.name.clone(),
        begun: begun.to_string(),
        client: if plan.k6.is_some() { "k6" } else { "rinha-test" }.to_owned(),
        limits: limits(ready, surroundings),
        seed,
        figures,
        findings,
        stages: seen.stages,
        audits: seen.audits,
        samples: watch.samples,
        latency: percentiles(&seen.measured.latency_ns),
        floor_latency,
        groups: watch.peaks.groups(),
        processes: watch.peaks.processes(),
    })
}

// Bytes on disks of today are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn whole(bytes: u64) -> f64 {
    bytes as f64
}

fn limits(ready: &Ready, surroundings: &Surroundings) -> String {
    match surroundings.limits {
        _ if !ready.is_own() => "those of the system there".to_owned(),
        Some(limits) if ready.has_box => {
            format!("{} CPUs, {} MiB", limits.cpus, limits.memory_bytes >> 20)
        }
        _ => "none".to_owned(),
    }
}

fn duration(shape: Shape) -> Duration {
    use crate::load::Until;
    match shape {
        Shape::Users(users) => users.duration,
        Shape::Rate { duration, .. } | Shape::Flood { until: Until::Elapsed(duration), .. } => {
            duration
        }
        Shape::Flood { until: Until::Count(_), .. } => Duration::ZERO,
    }
}

fn load_floor(plan: &Plan, floor: &mut Option<Floor>, traffic: Traffic) -> Result<(), StressError> {
    let Some(floor) = floor else { return Ok(()) };
    eprintln!("the floor: the same load against a server that answers a constant");
    let share = plan.scenario.floor.share / 2.0;
    match &plan.k6 {
        Some(k6) => floor.load_with_k6(k6, [plan.scale, share], &plan.stop)?,
        None => floor.load(plan.shape(plan.scale * share)?, traffic, &plan.stop)?,
    }
    plan.check_stop()
}

/// Books as they are to be at the start.
fn prepare(plan: &Plan, bookkeepers: &Bookkeepers, ready: &Ready) -> Result<(), StressError> {
    if plan.scenario.start.purge && !bookkeepers.router.purge()? {
        // It need not be able to, if there is nothing to empty.
        let ours = bookkeepers.router.summary(RangeMs::ALL)?;
        if ours != [Totals::default(); 2] {
            return Err(StressError::NotEmptied(ready.url.clone()));
        }
    }
    for admin in &bookkeepers.processors {
        configure(admin, ProcessorState::default())?;
        if plan.scenario.start.purge {
            admin.purge()?;
        }
    }
    Ok(())
}

fn load_ourselves(
    plan: &Plan,
    ready: &Ready,
    others: &Others,
    traffic: Traffic,
    start: TimestampMs,
    watch: &mut Watch,
) -> Result<Seen, StressError> {
    let shape = plan.shape(plan.scale)?;
    let meter = &others.meter;
    let timeline = Timeline::start(&plan.scenario, others.clone(), plan.scale, duration(shape));
    let bounds_stop = AtomicBool::new(false);
    let (loaded, bounds) = std::thread::scope(|scope| {
        let load = scope.spawn(|| drive(shape, traffic, authority(&ready.url), meter, &plan.stop));
        let bounds = plan.scenario.bounds.map(|bounds| {
            let age = Duration::from_secs_f64(bounds.until_s);
            let (router, seed, stop) = (&others.router, traffic.payments.seed(), &bounds_stop);
            scope.spawn(move || bounds::ask(router, start, bounds.per_second, age, seed, stop))
        });
        while !load.is_finished() {
            watch.look("load", timeline.current());
            std::thread::sleep(POLL);
        }
        bounds_stop.store(true, Ordering::Relaxed);
        let bounds =
            bounds.map(|thread| thread.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
        let loaded: Result<(), LoadError> =
            load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (loaded, bounds.unwrap_or_default())
    });
    let timeline = timeline.end();
    plan.check_stop()?;
    loaded?;
    let measured = meter.measured();
    let accepted = measured.accepted();
    Ok(Seen {
        measured,
        accepted,
        k6: None,
        stages: timeline.stages,
        audits: timeline.audits,
        bounds,
        failures: timeline.failures,
    })
}

fn load_with_k6(
    plan: &Plan,
    program: &Path,
    ready: &Ready,
    surroundings: &Surroundings,
    watch: &mut Watch,
) -> Result<Seen, StressError> {
    let mut k6 = K6::start(program, ready, surroundings, &plan.token, plan.scale)?;
    k6.wait(&plan.stop, || watch.look("k6", None))?;
    let result = k6.end()?;
    let every = plan.scenario.audit.map_or(0.0, |audit| audit.every_s) * plan.scale;
    let mut measured = Meter::start().measured();
    measured.counts.requested = result.requested;
    measured.counts.accepted = result.accepted;
    // It does not tell them apart.
    measured.counts.refused = result.failed;
    measured.elapsed = duration(plan.shape(plan.scale)?);
    let failures = match result.test_faults {
        0 => Vec::new(),
        count => vec![format!("k6 met {count} faults of the processors; see k6.log")],
    };
    Ok(Seen {
        measured,
        accepted: result.accepted,
        stages: Vec::new(),
        audits: result.audits(Duration::from_secs_f64(every)),
        bounds: Vec::new(),
        failures,
        k6: Some(result),
    })
}

/// What our summary says at once after the last payment.
fn last_window(plan: &Plan, others: &Others, start: TimestampMs) -> ([Totals; 2], Vec<String>) {
    let now = clock::now();
    let from = match plan.scenario.end.window_s {
        Some(window_s) => now.back(Duration::from_secs_f64(window_s * plan.scale.max(1.0))),
        None => start,
    };
    let totals = ask_all(others, RangeMs { from, to: now });
    (totals.ours, totals.failures)
}

/// What the processors list, by [`Processor::index`]; nothing if one of them does not.
fn lists(processors: &[ProcessorAdmin; 2]) -> Result<Option<[Vec<Recorded>; 2]>, StressError> {
    let [default, fallback] = Processor::ALL.map(|processor| processors[processor.index()].books());
    Ok(default?.zip(fallback?).map(|(default, fallback)| [default, fallback]))
}

fn judge_bounds(
    plan: &Plan,
    bookkeepers: &Bookkeepers,
    lists: Option<[&[Recorded]; 2]>,
    seen: &mut Seen,
) -> BoundsFound {
    if plan.scenario.bounds.is_none() {
        return BoundsFound::default();
    }
    let Some(lists) = lists else {
        seen.failures.push("the processors list nothing to compare summaries with".to_owned());
        return BoundsFound::default();
    };
    seen.bounds.extend(bounds::ask_at_edges(&bookkeepers.router, lists, plan.seed));
    bounds::compare(&seen.bounds, lists)
}

#[allow(clippy::too_many_arguments)]
fn evidence<'a>(
    plan: &Plan,
    seen: &'a Seen,
    last: [Totals; 2],
    settled: &Settled,
    before: Books,
    by_id: &'a ById,
    compared_by_id: bool,
    bounds: &'a BoundsFound,
    watch: &'a Watch,
) -> Evidence<'a> {
    let latency = &seen.measured.latency_ns;
    let of_k6 = |value: fn(&K6Result) -> f64| seen.k6.as_ref().map(value);
    Evidence {
        fees: plan.scenario.fees,
        expect: plan.scenario.expect,
        counts: seen.measured.counts,
        accepted: seen.accepted,
        elapsed: seen.measured.elapsed,
        p50_ms: of_k6(|k6| k6.p50_ms).or(quantile_ms(latency, 0.5)).unwrap_or_default(),
        p99_ms: of_k6(|k6| k6.p99_ms).or(quantile_ms(latency, 0.99)).unwrap_or_default(),
        p999_ms: quantile_ms(latency, 0.999),
        max_ms: (!latency.is_empty()).then(|| milliseconds(latency.max())),
        last,
        failures: &seen.failures,
        audits: &seen.audits,
        bounds,
        by_id,
        compared_by_id,
        books_equal: settled.books.to_compare(&before).are_equal(),
        settled_in_time: settled.in_time,
        settle: settled.elapsed,
        samples: &watch.samples,
    }
}

fn add_costs(
    figures: &mut Figures,
    before: Option<GroupUsage>,
    after: Option<GroupUsage>,
    watch: &Watch,
    is_exact: bool,
) {
    let (Some(before), Some(after)) = (before, after) else { return };
    let cpu = after.cpu.saturating_sub(before.cpu);
    figures.cpu_us_per_payment = per(cpu.as_secs_f64() * 1e6, figures.accepted);
    let peak = watch.peaks.total;
    figures.memory_peak_bytes = Some(peak.anonymous_bytes.max(after.anonymous_bytes));
    if is_exact {
        figures.memory_cache_peak_bytes = Some(peak.cache_bytes);
        let at_end = after.anonymous_bytes + after.cache_bytes;
        figures.memory_with_cache_peak_bytes = Some(watch.peaks.memory_bytes.max(at_end));
        figures.throttled_periods =
            Some(after.throttled_periods.saturating_sub(before.throttled_periods));
        let throttled = after.throttled.saturating_sub(before.throttled);
        figures.throttled_ms = Some(throttled.as_secs_f64() * 1e3);
    }
}

fn add_floor(figures: &mut Figures, floor: Floor) -> Vec<super::figures::Percentile> {
    figures.floor_cpu_us_per_request = floor.cpu_us_per_request();
    figures.floor_p50_ms = floor.p50_ms();
    figures.floor_p99_ms = floor.p99_ms();
    let ratio = |ours: f64, floor: Option<f64>| floor.filter(|ms| *ms > 0.0).map(|ms| ours / ms);
    figures.p50_over_floor = ratio(figures.p50_ms, figures.floor_p50_ms);
    figures.p99_over_floor = ratio(figures.p99_ms, figures.floor_p99_ms);
    percentiles(&floor.end())
}
