//! The text format of metrics: read as the daemons write it (`OpenMetrics` 1.0), written as
//! Prometheus and everything like it reads it (the text format 0.0.4).
//!
//! The two differ little: in the second one the family of a counter has the `_total` of its samples
//! in its name, and there is no `# EOF`. A text that is not whole, or has anything in it that is
//! not understood, is refused as a whole, with the number of the line.
//!
//! A text that was read stays as it is, and families, samples and labels are places in it: all daemons are read
//! every second while somebody watches, and pieces of their own would cost more than all else.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

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
    /// How the format calls it.
    #[must_use]
    pub fn word(self) -> &'static str {
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

/// What a daemon tells, all of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exposition {
    text: String,
    families: Vec<FamilyPlace>,
    samples: Vec<SamplePlace>,
    labels: Vec<LabelPlace>,
    /// The families in the order of their names.
    by_name: Vec<usize>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct FamilyPlace {
    name: Range<usize>,
    kind: Kind,
    help: Range<usize>,
    samples: Range<usize>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct SamplePlace {
    suffix: &'static str,
    labels: Range<usize>,
    value: Range<usize>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct LabelPlace {
    name: Range<usize>,
    value: Range<usize>,
}

/// One line with a value.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// What follows the name of the family in this line.
    pub suffix: &'static str,
    /// The value, as it is written.
    pub value: &'a str,
    text: &'a str,
    labels: &'a [LabelPlace],
}

impl<'a> Sample<'a> {
    /// Names and values, these as they are written: with a backslash before backslashes, quotes and the `n`
    /// of a line end.
    pub fn labels(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.labels.iter().map(move |LabelPlace { name, value }| {
            (&self.text[name.clone()], &self.text[value.clone()])
        })
    }

    /// The value of a label, as it is written.
    #[must_use]
    pub fn label(self, name: &str) -> Option<&'a str> {
        self.labels().find(|(other, _)| *other == name).map(|(_, value)| value)
    }

    /// The same for samples of a family with the same suffix and labels, whatever the order of these, and
    /// nearly always another one for others.
    fn fingerprint(self) -> u64 {
        let label = |(name, value): (&str, &str)| {
            u64::from(crc32c::crc32c_append(crc32c::crc32c(name.as_bytes()), value.as_bytes()))
        };
        self.labels().map(label).fold(self.suffix.len() as u64, u64::wrapping_add)
    }
}

/// All samples of a name.
#[derive(Clone, Copy, Debug)]
pub struct Family<'a> {
    /// The name, without `_total`.
    pub name: &'a str,
    /// What the samples are.
    pub kind: Kind,
    /// What the family is about, as it is written.
    pub help: &'a str,
    exposition: &'a Exposition,
    samples: &'a [SamplePlace],
}

impl<'a> Family<'a> {
    /// The samples, in their order.
    pub fn samples(self) -> impl Iterator<Item = Sample<'a>> {
        let Exposition { text, labels, .. } = self.exposition;
        self.samples.iter().map(move |place| Sample {
            suffix: place.suffix,
            value: &text[place.value.clone()],
            text,
            labels: &labels[place.labels.clone()],
        })
    }

    /// All names that nobody else may use: its own, and those of its samples, by which the text
    /// that is written calls it.
    pub fn names(self) -> impl Iterator<Item = Name<'a>> {
        let name = move |suffix: &&'static str| Name { family: self.name, suffix };
        let of_samples = self.kind.suffixes().iter().filter(|suffix| !suffix.is_empty()).map(name);
        std::iter::once(name(&"")).chain(of_samples)
    }
}

/// A name that is made of two parts: all that counts is what it is as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Name<'a> {
    family: &'a str,
    suffix: &'static str,
}

impl Ord for Name<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        // Most differ within what both have of a family's name.
        let common = self.family.len().min(other.family.len());
        let (one, one_rest) = self.family.as_bytes().split_at(common);
        let (two, two_rest) = other.family.as_bytes().split_at(common);
        let one_rest = one_rest.iter().chain(self.suffix.as_bytes());
        let two_rest = two_rest.iter().chain(other.suffix.as_bytes());
        one.cmp(two).then_with(|| one_rest.cmp(two_rest))
    }
}

impl PartialOrd for Name<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Name<'_> {}

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

impl Exposition {
    /// Reads what a daemon tells.
    ///
    /// # Errors
    /// It is not what a daemon tells, or not all of it.
    pub fn parse(text: String) -> Result<Self, TextError> {
        let mut reader = Reader { text: &text, ..Reader::default() };
        let mut lines = (1..).zip(text.lines());
        let end = lines.by_ref().try_fold((), |(), (line, content)| {
            if content == END {
                return Err(None);
            }
            reader.read(content).map_err(|what| Some(TextError::Line { line, what }))
        });
        match end {
            Ok(()) => return Err(TextError::BreaksOff),
            Err(Some(error)) => return Err(error),
            Err(None) => {}
        }
        if let Some((line, _)) = lines.next() {
            return Err(TextError::Line { line, what: "follows the end" });
        }
        let Reader { families, samples, labels, .. } = reader;
        let mut by_name: Vec<_> = (0..families.len()).collect();
        by_name.sort_unstable_by_key(|index| &text[families[*index].name.clone()]);
        let exposition = Self { text, families, samples, labels, by_name };
        exposition.refuse_repetitions()?;
        Ok(exposition)
    }

    /// All of it, as it was told.
    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The families, in their order.
    pub fn families(&self) -> impl Iterator<Item = Family<'_>> {
        self.families.iter().map(|place| self.family_at(place))
    }

    /// The family of this name.
    #[must_use]
    pub fn family(&self, name: &str) -> Option<Family<'_>> {
        let name_of = |index: &usize| &self.text[self.families[*index].name.clone()];
        let found = self.by_name.binary_search_by(|index| name_of(index).cmp(name)).ok()?;
        Some(self.family_at(&self.families[self.by_name[found]]))
    }

    fn family_at(&self, place: &FamilyPlace) -> Family<'_> {
        Family {
            name: &self.text[place.name.clone()],
            kind: place.kind,
            help: &self.text[place.help.clone()],
            exposition: self,
            samples: &self.samples[place.samples.clone()],
        }
    }

    /// A name means one family, and a sample's labels are its alone.
    fn refuse_repetitions(&self) -> Result<(), TextError> {
        let at = |place: &Range<usize>, what| {
            let line = self.text[..place.start].lines().count();
            Err(TextError::Line { line, what })
        };
        let named = self
            .families
            .iter()
            .flat_map(|place| self.family_at(place).names().map(|name| (name, &place.name)));
        let mut names: Vec<_> = named.collect();
        names.sort_unstable_by_key(|(name, place)| (*name, place.start));
        let repeated = names.windows(2).filter(|pair| pair[0].0 == pair[1].0);
        if let Some(place) = repeated.map(|pair| pair[1].1).min_by_key(|place| place.start) {
            return at(place, "begins a family that was there before, or with a name of another");
        }
        for family in self.families() {
            let samples = family.samples.iter().zip(family.samples());
            let mut samples: Vec<_> =
                samples.map(|(place, sample)| (sample.fingerprint(), place, sample)).collect();
            samples
                .sort_unstable_by_key(|(fingerprint, place, _)| (*fingerprint, place.value.start));
            for alike in samples.chunk_by(|one, other| one.0 == other.0) {
                if alike.len() == 1 {
                    continue;
                }
                let mut series = BTreeSet::new();
                for (_, place, sample) in alike {
                    // The order of labels says nothing.
                    let labels: BTreeMap<_, _> = sample.labels().collect();
                    if !series.insert((sample.suffix, labels)) {
                        return at(&place.value, "has a sample that was there before");
                    }
                }
            }
        }
        Ok(())
    }
}

#[derive(Default)]
struct Reader<'a> {
    text: &'a str,
    families: Vec<FamilyPlace>,
    samples: Vec<SamplePlace>,
    labels: Vec<LabelPlace>,
    /// Name and help of a family whose type was not read yet.
    help: Option<(&'a str, &'a str)>,
}

impl<'a> Reader<'a> {
    fn read(&mut self, line: &'a str) -> Result<(), &'static str> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            self.help = Some(rest.split_once(' ').unwrap_or_else(|| rest.split_at(rest.len())));
            Ok(())
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            self.begin(rest)
        } else if line.starts_with('#') {
            Err("is a comment that is not understood")
        } else {
            self.sample(line)
        }
    }

    fn begin(&mut self, rest: &'a str) -> Result<(), &'static str> {
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
        let samples = self.samples.len()..self.samples.len();
        let (name, help) = (self.place(name), self.place(help));
        self.families.push(FamilyPlace { name, kind, help, samples });
        Ok(())
    }

    fn sample(&mut self, line: &'a str) -> Result<(), &'static str> {
        let family = self.families.last().ok_or("has a sample of no family")?;
        let name_end = line.find(['{', ' ']).ok_or("has no value")?;
        let (name, rest) = line.split_at(name_end);
        let suffix = name.strip_prefix(&self.text[family.name.clone()]);
        let suffix = suffix.ok_or("has a sample of another family")?;
        let suffixes = family.kind.suffixes().iter();
        let suffix = suffixes.copied().find(|known| *known == suffix);
        let suffix = suffix.ok_or("has a sample that its type does not have")?;
        let labels_start = self.labels.len();
        let rest = match rest.strip_prefix('{') {
            Some(rest) => self.labels(rest)?,
            None => rest,
        };
        let value = rest.strip_prefix(' ').ok_or("has no value")?;
        if value.parse::<f64>().is_err() {
            return Err("has a value that is no number");
        }
        let (labels, value) = (labels_start..self.labels.len(), self.place(value));
        self.samples.push(SamplePlace { suffix, labels, value });
        if let Some(family) = self.families.last_mut() {
            family.samples.end = self.samples.len();
        }
        Ok(())
    }

    /// Reads labels up to the brace that ends them, and gives what follows it.
    fn labels(&mut self, mut rest: &'a str) -> Result<&'a str, &'static str> {
        let start = self.labels.len();
        loop {
            let (name, after) = rest.split_once("=\"").ok_or("has a label without a value")?;
            if !is_name(name) || name.contains(':') {
                return Err("has a label with a name that is none");
            }
            let mut others = self.labels[start..].iter();
            if name == DAEMON_LABEL || others.any(|other| self.text[other.name.clone()] == *name) {
                return Err("has a label that it must not have, or has it twice");
            }
            if self.labels.len() - start == LABELS_MAX {
                return Err("has more labels than a sample may have");
            }
            let (value, after) = after.split_at(quoted_length(after)?);
            self.labels.push(LabelPlace { name: self.place(name), value: self.place(value) });
            let after = &after[1..];
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => return after.strip_prefix('}').ok_or("has labels without an end"),
            }
        }
    }

    /// Where a part of the text is in it.
    fn place(&self, part: &str) -> Range<usize> {
        let start = part.as_ptr().addr() - self.text.as_ptr().addr();
        start..start + part.len()
    }
}

/// How long the value of a label is, up to the quote that ends it.
fn quoted_length(text: &str) -> Result<usize, &'static str> {
    let mut bytes = text.bytes().enumerate();
    while let Some((place, byte)) = bytes.next() {
        match byte {
            b'"' => return Ok(place),
            b'\\' if !matches!(bytes.next(), Some((_, b'n' | b'\\' | b'"'))) => {
                return Err("has an escape that is none");
            }
            _ => {}
        }
    }
    Err("has a label whose value does not end")
}

fn is_name(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
    let is_other = |byte: u8| is_first(byte) || byte.is_ascii_digit();
    text.bytes().next().is_some_and(is_first) && text.bytes().all(is_other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "# HELP a About.\n# TYPE a gauge\n";

    fn parse(text: &str) -> Result<Exposition, TextError> {
        Exposition::parse(text.to_owned())
    }

    #[track_caller]
    fn refused(text: &str, part: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }

    #[test]
    fn what_is_read_is_found_by_name_and_label() {
        let text = "# HELP b About b.\n# TYPE b counter\nb_total{x=\"1\",y=\"a\\\"\\\\\"} 5\nb_total{x=\"2\"} 1.5\n\
                    # HELP a \n# TYPE a gauge\na -1\n# HELP c C\n# TYPE c gauge\n# EOF\n";
        let read = parse(text).unwrap();
        let names: Vec<_> = read.families().map(|family| (family.name, family.help)).collect();
        assert_eq!(names, [("b", "About b."), ("a", ""), ("c", "C")]);
        let told = |name: &str| -> Vec<_> {
            let samples = read.family(name).unwrap().samples();
            samples.map(|sample| (sample.suffix, sample.label("x"), sample.value)).collect()
        };
        assert_eq!(told("a"), [("", None, "-1")]);
        assert_eq!(told("b"), [("_total", Some("1"), "5"), ("_total", Some("2"), "1.5")]);
        assert_eq!(told("c"), []);
        assert!(read.family("b_total").is_none());
        let alike = parse(&format!("{HEAD}a{{ab=\"c\"}} 1\na{{a=\"bc\"}} 1\n# EOF\n")).unwrap();
        let fingerprints = alike.family("a").unwrap().samples().map(Sample::fingerprint);
        assert_eq!(fingerprints.collect::<BTreeSet<_>>().len(), 1, "they are told apart by more");
        let first = read.family("b").unwrap().samples().next().unwrap();
        assert_eq!(first.labels().collect::<Vec<_>>(), [("x", "1"), ("y", r#"a\"\\"#)]);
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
        assert_eq!(parse(&format!("{enough}# EOF\n")).unwrap().families().count(), FAMILIES_MAX);
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
