//! The routing laboratory: the real router against thousands of seeded outages, and against what
//! someone could earn who knows them beforehand. `docs/routing.md` explains it.

mod families;
mod picture;
mod policy;
mod processor;
mod report;
mod run;
mod score;
mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use api::router::{Router, RouterConfig};
pub use families::{FAMILIES, Family, rehearsal};
use ledger::clock::Monotonic;
use policy::{Fixed, Policy, Rule};
pub use report::Report;
use score::Score;
pub use trace::Trace;

/// What the laboratory is to do.
#[derive(clap::Args, Debug, Clone)]
pub struct LabSettings {
    /// Traces per family
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub seeds: u64,

    /// The first seed
    #[arg(long, default_value_t = 1)]
    pub from_seed: u64,

    /// Only this family; may be given again
    #[arg(long = "family", value_parser = known_family)]
    pub families: Vec<String>,

    /// Draw the first trace of each family in this folder, as pictures and pages
    #[arg(long, value_name = "DIR")]
    pub pictures: Option<PathBuf>,

    /// Write the figures to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// How long a payment may wait for the cheaper processor
    #[arg(long, default_value_t = 30_000)]
    pub patience_ms: u64,

    /// Calls in flight per processor and instance
    #[arg(long, default_value_t = 384)]
    pub in_flight_max: u32,
}

fn known_family(name: &str) -> Result<String, String> {
    if FAMILIES.iter().any(|family| family.name == name) {
        return Ok(name.to_owned());
    }
    let names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
    Err(format!("there is no such family; there are {}", names.join(", ")))
}

/// Who decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Contender {
    /// The router.
    Router,
    /// A fixed rule.
    Fixed(Rule),
}

impl Contender {
    /// The router first.
    pub const ALL: [Self; 4] = [
        Self::Router,
        Self::Fixed(Rule::DefaultOnly),
        Self::Fixed(Rule::FallbackAtFailure),
        Self::Fixed(Rule::LastHealth),
    ];

    /// The name in tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Router => "router",
            Self::Fixed(Rule::DefaultOnly) => "default only",
            Self::Fixed(Rule::FallbackAtFailure) => "at failure",
            Self::Fixed(Rule::LastHealth) => "last health",
        }
    }

    fn policy(self, config: &RouterConfig) -> Box<dyn Policy> {
        match self {
            Self::Router => Box::new(Router::new(*config)),
            Self::Fixed(rule) => Box::new(Fixed::new(rule, config)),
        }
    }
}

/// One run's result.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    /// Its score.
    pub score: Score,
    /// What someone would earn at most who knew the trace.
    pub clairvoyant: f64,
}

impl Judged {
    /// What was earned as a share of what could be.
    #[must_use]
    pub fn share(&self) -> f64 {
        if self.clairvoyant > 0.0 { self.score.net / self.clairvoyant } else { 1.0 }
    }
}

/// The router's settings in the laboratory, for a trace.
#[must_use]
pub fn router_config(settings: &LabSettings, trace: &Trace) -> RouterConfig {
    RouterConfig {
        fees_bp: trace.fees_bp,
        patience_ms: settings.patience_ms,
        in_flight_max: settings.in_flight_max,
        slow_ms: 1300,
    }
}

/// Runs one trace.
#[must_use]
pub fn judge(settings: &LabSettings, trace: &Trace, seed: u64, contender: Contender) -> Judged {
    let config = router_config(settings, trace);
    let outcomes = run::run(trace, seed, &|| contender.policy(&config));
    Judged { score: score::score(trace, seed, &outcomes), clairvoyant: score::clairvoyant(trace) }
}

/// The results of a family: by contender, one for each seed.
pub struct FamilyResult {
    /// Which family.
    pub family: &'static Family,
    /// By [`Contender::ALL`].
    pub judged: Vec<Vec<Judged>>,
}

/// Runs all traces of all families, over all cores.
#[must_use]
pub fn run_all(settings: &LabSettings) -> Vec<FamilyResult> {
    let chosen = FAMILIES.iter().filter(|family| {
        settings.families.is_empty() || settings.families.iter().any(|name| name == family.name)
    });
    let families: Vec<_> = chosen.collect();
    let jobs: Vec<_> = (0..families.len())
        .flat_map(|family| (0..settings.seeds).map(move |seed| (family, seed)))
        .collect();
    let results: Mutex<Vec<_>> = Mutex::default();
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((family, seed)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let seed = settings.from_seed + seed;
            let trace = (families[*family].make)(&mut fastrand::Rng::with_seed(seed));
            let judged = Contender::ALL.map(|contender| judge(settings, &trace, seed, contender));
            let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
            results.push((*family, seed, judged));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(family, seed, _)| (*family, *seed));
    families
        .iter()
        .enumerate()
        .map(|(number, family)| {
            let of_family = results.iter().filter(|(of, _, _)| *of == number);
            let runs: Vec<_> = of_family.map(|(_, _, judged)| judged).collect();
            let judged = (0..Contender::ALL.len())
                .map(|contender| runs.iter().map(|judged| judged[contender]).collect())
                .collect();
            FamilyResult { family, judged }
        })
        .collect()
}

/// Runs the laboratory, and prints and writes what was asked for.
///
/// # Errors
/// A file cannot be written.
pub fn main(settings: &LabSettings) -> anyhow::Result<()> {
    let clock = Monotonic::start();
    let results = run_all(settings);
    let report = Report::of(&results);
    print!("{report}");
    println!("{} runs in {} ms", 4 * results.len() as u64 * settings.seeds, clock.elapsed_ms());
    if let Some(path) = &settings.json {
        let json = sonic_rs::to_string(&report).context("the figures cannot be written as JSON")?;
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    if let Some(folder) = &settings.pictures {
        draw(settings, &results, folder)?;
    }
    Ok(())
}

/// Draws the first trace of each family.
fn draw(settings: &LabSettings, results: &[FamilyResult], folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for FamilyResult { family, .. } in results {
        let seed = settings.from_seed;
        let trace = (family.make)(&mut fastrand::Rng::with_seed(seed));
        let config = router_config(settings, &trace);
        let outcomes = run::run(&trace, seed, &|| Contender::Router.policy(&config));
        let page = picture::page(family.name, family.about, seed, &trace, &outcomes);
        let svg = picture::svg(&trace, &outcomes);
        for (kind, text) in [("html", page), ("svg", svg)] {
            let path = folder.join(format!("{}.{kind}", family.name));
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    println!("pictures: {}", folder.display());
    Ok(())
}

#[cfg(test)]
mod tests;
