//! What a run leaves: `result.json`, and a page that opens offline.

pub mod table;

mod page;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use sonic_rs::Value;

use crate::scenario::Scenario;
use crate::stress::Summary;
use crate::stress::figures::{Figures, Round};

/// The name of the file of the figures.
pub const RESULT: &str = "result.json";

/// The name of the page.
pub const PAGE: &str = "report.html";

/// The report cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {cause}", path = .path.display())]
pub struct ReportError {
    path: PathBuf,
    cause: io::Error,
}

/// One system in `result.json`.
#[derive(Serialize)]
struct SubjectResult<'a> {
    subject: &'a str,
    rounds: usize,
    #[serde(flatten)]
    figures: BTreeMap<&'a str, &'a Value>,
    /// The least and the most of each figure over the rounds.
    spread: BTreeMap<&'a str, [f64; 2]>,
    findings: Vec<&'a str>,
    each: Vec<&'a Figures>,
}

/// `result.json` of a single system.
#[derive(Serialize)]
struct RunResult<'a> {
    scenario: &'a str,
    #[serde(flatten)]
    result: SubjectResult<'a>,
}

/// `result.json` of several systems.
#[derive(Serialize)]
struct CompareResult<'a> {
    scenario: &'a str,
    backends: Vec<SubjectResult<'a>>,
}

/// What the page draws.
#[derive(Serialize)]
struct PageData<'a> {
    scenario: &'a str,
    description: &'a str,
    subjects: Vec<PageSubject<'a>>,
}

#[derive(Serialize)]
struct PageSubject<'a> {
    subject: &'a str,
    figures: BTreeMap<&'a str, &'a Value>,
    spread: BTreeMap<&'a str, [f64; 2]>,
    rounds: &'a [Round],
}

fn values(summary: &Summary) -> BTreeMap<&str, &Value> {
    summary.figures.iter().map(|figure| (figure.key.as_str(), &figure.value)).collect()
}

fn spreads(summary: &Summary) -> BTreeMap<&str, [f64; 2]> {
    let spread = |figure: &'_ crate::stress::Folded| figure.spread;
    summary.figures.iter().filter_map(|f| Some((f.key.as_str(), spread(f)?))).collect()
}

fn subject_result(summary: &Summary) -> SubjectResult<'_> {
    SubjectResult {
        subject: &summary.subject,
        rounds: summary.rounds.len(),
        figures: values(summary),
        spread: spreads(summary),
        findings: summary.rounds.iter().flat_map(|r| &r.findings).map(String::as_str).collect(),
        each: summary.rounds.iter().map(|round| &round.figures).collect(),
    }
}

fn page_subject(summary: &Summary) -> PageSubject<'_> {
    PageSubject {
        subject: &summary.subject,
        figures: values(summary),
        spread: spreads(summary),
        rounds: &summary.rounds,
    }
}

/// Writes `result.json` and `report.html` into a folder.
///
/// # Errors
/// They cannot be written.
pub fn write(folder: &Path, scenario: &Scenario, summaries: &[Summary]) -> Result<(), ReportError> {
    let name = scenario.name.as_str();
    let result = if let [summary] = summaries {
        let result = subject_result(summary);
        sonic_rs::to_string_pretty(&RunResult { scenario: name, result })
    } else {
        let backends = summaries.iter().map(subject_result).collect();
        sonic_rs::to_string_pretty(&CompareResult { scenario: name, backends })
    };
    let data = PageData {
        scenario: name,
        description: &scenario.description,
        subjects: summaries.iter().map(page_subject).collect(),
    };
    let data = sonic_rs::to_string(&data);
    write_file(folder, RESULT, result.map(|text| text + "\n"))?;
    write_file(
        folder,
        PAGE,
        data.map(|data| page::page(&format!("{name}: {}", scenario.description), &data)),
    )
}

fn write_file(
    folder: &Path,
    name: &str,
    text: Result<String, sonic_rs::Error>,
) -> Result<(), ReportError> {
    let path = folder.join(name);
    let written = text.map_err(io::Error::other).and_then(|text| std::fs::write(&path, text));
    written.map_err(|cause| ReportError { path, cause })
}
