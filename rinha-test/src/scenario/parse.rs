//! Reading of scenarios.

use std::path::Path;

use toml::{Table, Value};

use super::{Scenario, ScenarioError, ShapeName, time};

macro_rules! ours {
    ($($name:literal),*) => {
        /// The scenarios that come with the program.
        pub const NAMES: &[&str] = &[$($name),*];

        fn text_of_ours(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(include_str!(concat!("../../scenarios/", $name, ".toml"))),)*
                _ => None,
            }
        }
    };
}

ours!("contest", "users", "flood", "soak", "chaos", "bounds");

/// Loads a scenario by its name, or from a file, with settings in place of some of its own:
/// `load.seconds=10`.
///
/// # Errors
/// There is none, or it is not written as one, or makes no sense.
pub fn load(name_or_path: &str, set: &[String]) -> Result<Scenario, ScenarioError> {
    let path = Path::new(name_or_path);
    let text = match text_of_ours(name_or_path) {
        Some(text) => text.to_owned(),
        None if path.extension().is_some_and(|extension| extension == "toml") => {
            std::fs::read_to_string(path)
                .map_err(|cause| ScenarioError::Read { path: path.to_owned(), cause })?
        }
        None => return Err(ScenarioError::Unknown(name_or_path.to_owned())),
    };
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    parse(name, &text, set)
}

/// Reads a scenario.
pub(super) fn parse(name: String, text: &str, set: &[String]) -> Result<Scenario, ScenarioError> {
    let wrong = |cause: toml::de::Error| ScenarioError::Syntax {
        name: name.clone(),
        cause: cause.to_string().trim_end().to_owned(),
    };
    // Read even where settings are changed: only here does an error know its line.
    let mut scenario: Scenario = toml::from_str(text).map_err(wrong)?;
    if !set.is_empty() {
        let mut table: Table = text.parse().map_err(wrong)?;
        for given in set {
            put(&mut table, given)
                .map_err(|cause| ScenarioError::Set { given: given.clone(), cause })?;
        }
        scenario = table.try_into().map_err(wrong)?;
    }
    scenario.name = name;
    match check(&scenario) {
        Ok(()) => Ok(scenario),
        Err(cause) => Err(ScenarioError::Value { name: scenario.name, cause }),
    }
}

/// Puts a setting such as `load.seconds=10` in its place.
fn put(table: &mut Table, given: &str) -> Result<(), String> {
    let (path, text) = given.split_once('=').ok_or("it is written as in load.seconds=10")?;
    // What is no number, no truth and not quoted is a text.
    let value = match format!("value = {text}").parse::<Table>() {
        Ok(mut read) => read.remove("value").unwrap_or_else(|| Value::String(text.to_owned())),
        Err(_) => Value::String(text.to_owned()),
    };
    let mut place = table;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        if names.peek().is_none() {
            place.insert(name.to_owned(), value);
            break;
        }
        let inner = place.entry(name).or_insert_with(|| Value::Table(Table::new()));
        place = inner.as_table_mut().ok_or_else(|| format!("{name} has no settings of its own"))?;
    }
    Ok(())
}

fn check(scenario: &Scenario) -> Result<(), String> {
    match (&scenario.load, &scenario.chaos) {
        (Some(_), None) | (None, Some(_)) => {}
        _ => return Err("a scenario has either [load] or [chaos]".to_owned()),
    }
    if let Some(load) = &scenario.load {
        load.shape(1.0)?;
        load.amount()?;
        if load.shape == ShapeName::Users && load.from > load.to.unwrap_or(0) {
            return Err("load.from is at most load.to".to_owned());
        }
        if load.connections == 0 {
            return Err("load.connections is at least 1".to_owned());
        }
        for (name, share) in [("duplicates", load.duplicates), ("in_pieces", load.in_pieces)] {
            if !(0.0..=0.9).contains(&share) {
                return Err(format!("load.{name} is a share from 0 to 0.9"));
            }
        }
        if load.timeout_ms == 0 {
            return Err("load.timeout_ms is at least 1".to_owned());
        }
    }
    for stage in &scenario.stages {
        time(stage.at_s).map_err(|cause| format!("stage.at_s: {cause}"))?;
    }
    if let Some(audit) = scenario.audit {
        if !(audit.every_s > 0.0 && audit.until_s >= 0.0 && audit.from_s > audit.until_s) {
            let wanted = "audit.every_s is above 0, and audit.from_s further back than until_s";
            return Err(wanted.to_owned());
        }
        time(audit.from_s).map_err(|cause| format!("audit.from_s: {cause}"))?;
    }
    if let Some(bounds) = scenario.bounds
        && !((0.1..=10_000.0).contains(&bounds.per_second) && bounds.until_s >= 0.0)
    {
        return Err("bounds.per_second is from 0.1 to 10000, and until_s not negative".to_owned());
    }
    for (name, fee) in [("default", scenario.fees.default), ("fallback", scenario.fees.fallback)] {
        if !(0.0..1.0).contains(&fee)
            || (fee * 1e4).fract() > 1e-6 && (fee * 1e4).fract() < 1.0 - 1e-6
        {
            return Err(format!("fees.{name} is a share below 1 with at most four places"));
        }
    }
    if !(0.0..=2.0).contains(&scenario.floor.share) {
        return Err("floor.share is from 0 to 2".to_owned());
    }
    time(scenario.end.patience_s).map_err(|cause| format!("end.patience_s: {cause}"))?;
    let window = scenario.end.window_s.unwrap_or(1.0);
    time(window).map_err(|cause| format!("end.window_s: {cause}"))?;
    Ok(())
}
