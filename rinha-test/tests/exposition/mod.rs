//! A strict reader of Prometheus' text format 0.0.4: what is not exactly as it should be fails the test.
//! It shares nothing with the program that writes the text.

// Each test uses a part of this, and what cannot go on here should fail its test.
#![allow(dead_code, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

type Labels = BTreeMap<String, String>;

/// All samples of a text, by the name and the labels of each.
pub struct Exposition {
    samples: BTreeMap<(String, Labels), String>,
}

/// A family that is being read.
struct Family {
    name: String,
    kind: String,
}

impl Exposition {
    /// Reads a text.
    pub fn read(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line does not end");
        let mut samples = BTreeMap::new();
        let mut families: BTreeMap<String, String> = BTreeMap::new();
        let mut helped = BTreeSet::new();
        let mut current: Option<Family> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
                current = None;
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(helped.contains(name), "no help before: {line}");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                // So a family whose lines are apart would be there twice.
                assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
                current = Some(Family { name: name.to_owned(), kind: kind.to_owned() });
            } else {
                let family = current.as_ref().unwrap_or_else(|| panic!("of no family: {line}"));
                let (name, labels, value) = sample(line);
                family.check(&name, &labels);
                let number: f64 = value.parse().unwrap();
                assert!(!number.is_nan() && (family.kind != "counter" || number >= 0.0), "{line}");
                assert!(samples.insert((name, labels), value).is_none(), "twice: {line}");
            }
        }
        let exposition = Self { samples };
        for (name, _) in families.iter().filter(|(_, kind)| *kind == "histogram") {
            exposition.check_histogram(name);
        }
        exposition
    }

    /// The samples of this name that have these labels.
    fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a str> {
        let of_name = self.samples.iter().filter(move |((other, _), _)| other == name);
        let has = |others: &Labels| {
            labels.iter().all(|(name, value)| others.get(*name).is_some_and(|other| other == value))
        };
        of_name.filter(move |((_, others), _)| has(others)).map(|(_, value)| value.as_str())
    }

    /// The sum of the samples of this name that have these labels. There must be one, and all must be whole.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        assert!(self.matching(name, labels).next().is_some(), "there is no {name} {labels:?}");
        self.matching(name, labels).map(|value| value.parse::<u64>().unwrap()).sum()
    }

    /// The greatest of these samples.
    pub fn most(&self, name: &str) -> f64 {
        let values = self.matching(name, &[]).map(|value| value.parse::<f64>().unwrap());
        values.reduce(f64::max).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// The names of all samples.
    pub fn names(&self) -> BTreeSet<String> {
        self.samples.keys().map(|(name, _)| name.clone()).collect()
    }

    /// Whether there is any sample of a daemon besides the one that says whether it is up.
    pub fn tells_of(&self, daemon: &str) -> bool {
        let mut names = self.samples.keys();
        names.any(|(name, labels)| {
            name != "router_up" && labels.get("daemon").is_some_and(|other| other == daemon)
        })
    }

    /// For each set of labels buckets grow with their bounds up to the count, and there is a sum.
    fn check_histogram(&self, name: &str) {
        let mut buckets: BTreeMap<Labels, Vec<(f64, u64)>> = BTreeMap::new();
        let of_buckets = format!("{name}_bucket");
        for ((_, labels), count) in self.samples.iter().filter(|((of, _), _)| *of == of_buckets) {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap_or_else(|| panic!("{name} has no bound"));
            buckets
                .entry(labels)
                .or_default()
                .push((bound.parse().unwrap(), count.parse().unwrap()));
        }
        assert!(!buckets.is_empty(), "{name} has no buckets");
        for (labels, mut buckets) in buckets {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}: {buckets:?}");
            let (last_bound, last_count) = *buckets.last().unwrap();
            assert!(last_bound.is_infinite(), "{name} has no bucket for all");
            let count = self.samples.get(&(format!("{name}_count"), labels.clone()));
            assert_eq!(count, Some(&last_count.to_string()), "{name} {labels:?}");
            assert!(self.samples.contains_key(&(format!("{name}_sum"), labels)), "{name}");
        }
    }
}

impl Family {
    fn check(&self, sample: &str, labels: &Labels) {
        let suffix = sample.strip_prefix(&self.name);
        let suffix = suffix.unwrap_or_else(|| panic!("{sample} stands among {}", self.name));
        let is_bucket = suffix == "_bucket";
        match self.kind.as_str() {
            "histogram" => assert!(is_bucket || ["_sum", "_count"].contains(&suffix), "{sample}"),
            _ => assert_eq!(suffix, "", "{sample}"),
        }
        assert_eq!(labels.contains_key("le"), is_bucket, "{sample} {labels:?}");
        assert!(labels.contains_key("daemon"), "{sample} {labels:?}");
    }
}

/// A line's name, labels and value. No value of a label here has anything that is escaped.
fn sample(line: &str) -> (String, Labels, String) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let value = value.to_owned();
    let Some((name, labels)) = series.split_once('{') else {
        return (checked(series), Labels::new(), value);
    };
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("no end: {line}"));
    let mut read = Labels::new();
    for label in labels.split(',') {
        let (label, value) = label.split_once('=').unwrap();
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap();
        assert!(!value.contains(['"', '\\']), "{line}");
        assert!(read.insert(checked(label), value.to_owned()).is_none(), "twice: {line}");
    }
    (checked(name), read, value)
}

fn checked(name: &str) -> String {
    let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    assert!(!name.is_empty() && name.bytes().all(is_fine), "{name:?} is no name");
    name.to_owned()
}
