//! The text format of metrics: read as the daemons write it (`OpenMetrics` 1.0), written as
//! Prometheus and everything like it reads it (the text format 0.0.4).
//!
//! The two differ little: in the second one the family of a counter has the `_total` of its samples
//! in its name, and there is no `# EOF`. A text that is not whole, or has anything in it that is
//! not understood, is refused as a whole, with the number of the line.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write;

/// The content type of what is written.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The label that tells of which daemon a sample is. No daemon may use it itself.
pub const DAEMON_LABEL: &str = "daemon";

/// The name of the family that tells which daemons answer. No daemon may tell it itself.
pub const UP: &str = "router_up";

/// Families that a daemon may tell.
pub const FAMILIES_MAX: usize = 512;

/// Labels that a sample may have.
pub const LABELS_MAX: usize = 16;

/// The last line of a text that is whole.
const END: &str = "# EOF";

/// What the samples of a family are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Counts that only grow.
    Counter,
    /// Values that come and go.
    Gauge,
    /// Durations by their lengths.
    Histogram,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        [Self::Counter, Self::Gauge, Self::Histogram].into_iter().find(|kind| kind.word() == word)
    }

    /// What follows the name of the family in the names of samples.
    fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Counter => &["_total"],
            Self::Gauge => &[""],
            Self::Histogram => &["_sum", "_count", "_bucket"],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.word())
    }
}

/// The labels of a sample: names and values.
pub type Labels = Vec<(String, String)>;

/// One line with a value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sample {
    /// What follows the name of the family in this line.
    pub suffix: &'static str,
    /// Names and values.
    pub labels: Labels,
    /// The value, as it was written.
    pub value: String,
}

impl Sample {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }
}

/// All samples of a name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Family {
    /// The name, without `_total`.
    pub name: String,
    /// What the samples are.
    pub kind: Kind,
    /// What the family is about, as it was written.
    pub help: String,
    /// The samples, in their order.
    pub samples: Vec<Sample>,
}

impl Family {
    /// All names that nobody else may use: its own, and those of its samples, by which the text
    /// that is written calls it.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let suffixes = self.kind.suffixes().iter().filter(|suffix| !suffix.is_empty());
        let of_samples = suffixes.map(|suffix| format!("{}{suffix}", self.name));
        std::iter::once(self.name.clone()).chain(of_samples)
    }
}

/// Why a text is refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TextError {
    /// A line is not understood.
    #[error("line {line} {what}")]
    Line {
        /// Its number, from 1.
        line: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The text breaks off.
    #[error("it breaks off before its end, {END}")]
    BreaksOff,
}

/// Reads what a daemon tells.
///
/// # Errors
/// It is not what a daemon tells, or not all of it.
pub fn parse(text: &str) -> Result<Vec<Family>, TextError> {
    let mut reader = Reader::default();
    let mut lines = (1..).zip(text.lines());
    for (line, content) in lines.by_ref() {
        if content == END {
            return match lines.next() {
                None => Ok(reader.families),
                Some((line, _)) => Err(TextError::Line { line, what: "follows the end" }),
            };
        }
        reader.read(content).map_err(|what| TextError::Line { line, what })?;
    }
    Err(TextError::BreaksOff)
}

#[derive(Default)]
struct Reader {
    families: Vec<Family>,
    names: BTreeSet<String>,
    /// The suffixes and labels of the last family's samples.
    series: BTreeSet<(&'static str, Labels)>,
    /// Of a family whose type was not read yet.
    help: Option<(String, String)>,
}

impl Reader {
    fn read(&mut self, line: &str) -> Result<(), &'static str> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            self.help = Some((name.to_owned(), help.to_owned()));
            Ok(())
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            self.begin(rest)
        } else if line.starts_with('#') {
            Err("is a comment that is not understood")
        } else {
            let family = self.families.last_mut().ok_or("has a sample of no family")?;
            let sample = sample(line, family)?;
            let mut labels = sample.labels.clone();
            labels.sort_unstable();
            if !self.series.insert((sample.suffix, labels)) {
                return Err("has a sample that was there before");
            }
            family.samples.push(sample);
            Ok(())
        }
    }

    fn begin(&mut self, rest: &str) -> Result<(), &'static str> {
        let (name, kind) = rest.split_once(' ').ok_or("names no type")?;
        let kind = Kind::of_word(kind).ok_or("names a type that is not understood")?;
        if !is_name(name) {
            return Err("has a name that is none");
        }
        let help = match self.help.take() {
            Some((of, help)) if of == name => help,
            _ => return Err("has the type of a family without a help line before it"),
        };
        if name == UP {
            return Err("tells whether the daemon answers, which is for the monitor to tell");
        }
        if self.families.len() == FAMILIES_MAX {
            return Err("begins a family more than a daemon may tell");
        }
        let family = Family { name: name.to_owned(), kind, help, samples: Vec::new() };
        if !family.names().all(|name| self.names.insert(name)) {
            return Err("begins a family that was there before, or with a name of another");
        }
        self.families.push(family);
        self.series.clear();
        Ok(())
    }
}

fn sample(line: &str, family: &Family) -> Result<Sample, &'static str> {
    let name_end = line.find(['{', ' ']).ok_or("has no value")?;
    let (name, rest) = line.split_at(name_end);
    let suffix = name.strip_prefix(&family.name).ok_or("has a sample of another family")?;
    let suffixes = family.kind.suffixes().iter();
    let suffix = suffixes.copied().find(|known| *known == suffix);
    let suffix = suffix.ok_or("has a sample that its type does not have")?;
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.strip_prefix(' ').ok_or("has no value")?;
    if value.parse::<f64>().is_err() {
        return Err("has a value that is no number");
    }
    Ok(Sample { suffix, labels, value: value.to_owned() })
}

/// Reads labels up to the brace that ends them, and gives what follows it.
fn labels(mut rest: &str) -> Result<(Labels, &str), &'static str> {
    let mut labels = Labels::new();
    loop {
        let (name, after) = rest.split_once("=\"").ok_or("has a label without a value")?;
        if !is_name(name) || name.contains(':') {
            return Err("has a label with a name that is none");
        }
        if name == DAEMON_LABEL || labels.iter().any(|(other, _)| other == name) {
            return Err("has a label that it must not have, or has it twice");
        }
        if labels.len() == LABELS_MAX {
            return Err("has more labels than a sample may have");
        }
        let (value, after) = unquoted(after)?;
        labels.push((name.to_owned(), value));
        rest = match after.strip_prefix(',') {
            Some(more) => more,
            None => {
                return Ok((labels, after.strip_prefix('}').ok_or("has labels without an end")?));
            }
        };
    }
}

/// Reads the value of a label up to the quote that ends it, and gives what follows that.
fn unquoted(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[place + 1..])),
            '\\' => value.push(match characters.next() {
                Some((_, 'n')) => '\n',
                Some((_, escaped @ ('\\' | '"'))) => escaped,
                _ => return Err("has an escape that is none"),
            }),
            other => value.push(other),
        }
    }
    Err("has a label whose value does not end")
}

fn is_name(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    let is_other = |byte: u8| is_first(byte) || byte.is_ascii_digit();
    text.bytes().next().is_some_and(is_first) && text.bytes().all(is_other)
}

/// Writes families for Prometheus.
#[must_use]
pub fn write(families: &[Family]) -> String {
    let mut text = String::new();
    for family in families {
        write_family(&mut text, family).expect("a string takes any text");
    }
    text
}

fn write_family(text: &mut String, family: &Family) -> fmt::Result {
    let Family { name, kind, help, samples } = family;
    let suffix = if *kind == Kind::Counter { "_total" } else { "" };
    writeln!(text, "# HELP {name}{suffix} {help}")?;
    writeln!(text, "# TYPE {name}{suffix} {kind}")?;
    for Sample { suffix, labels, value } in samples {
        write!(text, "{name}{suffix}")?;
        for (place, (label, value)) in labels.iter().enumerate() {
            let before = if place == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            write!(text, "{before}{label}=\"{value}\"")?;
        }
        writeln!(text, "{} {value}", if labels.is_empty() { "" } else { "}" })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "# HELP a About.\n# TYPE a gauge\n";

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn a_counters_family_is_named_after_its_samples_and_the_end_is_left_out() {
        let text = "# HELP a About.\n# TYPE a counter\na_total{x=\"1\"} 5\na_total{x=\"2\"} 1.5\n\
                    # HELP b \n# TYPE b gauge\nb -1\n# EOF\n";
        let written = write(&parse(text).unwrap());
        assert_eq!(
            written,
            "# HELP a_total About.\n# TYPE a_total counter\na_total{x=\"1\"} 5\na_total{x=\"2\"} 1.5\n\
             # HELP b \n# TYPE b gauge\nb -1\n"
        );
    }

    #[test]
    fn what_is_not_whole_or_not_understood_is_refused_with_its_line() {
        refused("", "breaks off");
        refused(&format!("{HEAD}a 1\n"), "breaks off");
        refused(&format!("{HEAD}a 1\n# EOF\na 2\n"), "line 5 follows the end");
        refused(&format!("{HEAD}a 1\n{HEAD}a 2\n# EOF\n"), "line 5 begins a family that was there");
        refused("a 1\n# EOF\n", "line 1 has a sample of no family");
        refused("# TYPE a gauge\n# EOF\n", "without a help line");
        refused("# HELP b B\n# TYPE a gauge\n# EOF\n", "without a help line");
        refused("# HELP a A\n# TYPE a summary\n# EOF\n", "type that is not understood");
        refused("# HELP 1 A\n# TYPE 1 gauge\n# EOF\n", "name that is none");
        refused("# UNIT a seconds\n# EOF\n", "comment that is not understood");
        for (line, part) in [
            ("a", "no value"),
            ("a ", "no number"),
            ("a 1 2", "no number"),
            ("a one", "no number"),
            ("b 1", "another family"),
            ("a_total 1", "type does not have"),
            ("a{} 1", "label without a value"),
            ("a{x=\"1} 1", "value does not end"),
            ("a{x=\"1\" 1", "labels without an end"),
            ("a{x=\"1\"}1", "no value"),
            ("a{x=\"\\t\"} 1", "escape that is none"),
            ("a{1=\"1\"} 1", "name that is none"),
            ("a{x=\"1\",x=\"1\"} 1", "must not have"),
            ("a{daemon=\"api-9\"} 1", "must not have"),
            ("a 1\na 2", "line 4 has a sample that was there"),
            ("a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1", "line 4 has a sample that was there"),
        ] {
            refused(&format!("{HEAD}{line}\n# EOF\n"), part);
        }
    }

    #[test]
    fn a_daemon_tells_no_more_than_it_may_and_nothing_that_is_not_its_own() {
        let family = |name: &str, kind: &str| format!("# HELP {name} A\n# TYPE {name} {kind}\n");
        let families = |count| (0..count).map(|at| family(&format!("a{at}"), "gauge")).collect();
        let enough: String = families(FAMILIES_MAX);
        assert_eq!(parse(&format!("{enough}# EOF\n")).unwrap().len(), FAMILIES_MAX);
        let many: String = families(FAMILIES_MAX + 1);
        refused(&format!("{many}# EOF\n"), "line 1026 begins a family more than");

        let sample = |count| {
            let labels: Vec<_> = (0..count).map(|at| format!("l{at}=\"1\"")).collect();
            format!("{HEAD}a{{{}}} 1\n# EOF\n", labels.join(","))
        };
        assert!(parse(&sample(LABELS_MAX)).is_ok());
        refused(&sample(LABELS_MAX + 1), "line 3 has more labels");

        refused(&format!("{}# EOF\n", family("router_up", "gauge")), "for the monitor to tell");
        for (one, other) in [
            (("b", "counter"), ("b_total", "gauge")),
            (("b_total", "gauge"), ("b", "counter")),
            (("b", "histogram"), ("b_sum", "gauge")),
        ] {
            let text = format!("{}{}# EOF\n", family(one.0, one.1), family(other.0, other.1));
            refused(&text, "line 4 begins a family that was there before, or with a name of");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(text in "(# (HELP|TYPE|EOF) ?|a|[{}=,\" \\\\\n1é]){0,40}") {
            // What becomes of it does not matter here.
            let _ = parse(&text);
            let _ = parse(&format!("{HEAD}{text}\n# EOF\n"));
        }
    }
}
