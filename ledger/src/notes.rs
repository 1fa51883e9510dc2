//! Notes: what an API instance has decided lately, in words. It tells them to whoever connects to
//! `DIR/run/NAME.notes`, a line of JSON each, the oldest first.

use serde::{Deserialize, Serialize};

use crate::json::{ObjectError, object};

/// The end of the names of these sockets, in the folder of sockets.
pub const NOTES_SUFFIX: &str = ".notes";

/// Notes that an instance keeps, and tells.
pub const NOTES_MAX: usize = 64;

/// Whether what was noted is good for payments.
#[derive(Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Tone {
    /// Something works again.
    Good,
    /// Neither.
    Plain,
    /// Something fails, or payments wait.
    Bad,
}

/// Something that was decided or seen, once or several times within a few seconds.
#[derive(Serialize, Deserialize, Clone, PartialEq, Eq, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// When it was so first, in milliseconds since 1970.
    pub first_ms: i64,
    /// When it was so last.
    pub last_ms: i64,
    /// How often.
    pub times: u64,
    /// Whether that is good.
    pub tone: Tone,
    /// What it is, in a sentence without an end.
    pub words: String,
}

/// Why lines are not notes.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum NotesError {
    /// One is not understood.
    #[error("note {number} is not understood: {error}")]
    Line {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        error: ObjectError,
    },
    /// There are more than any instance tells.
    #[error("there are more than {NOTES_MAX} notes")]
    TooMany,
}

/// Writes notes as lines.
#[must_use]
pub fn write(notes: impl IntoIterator<Item = Note>) -> String {
    let mut text = String::new();
    for note in notes {
        text += &sonic_rs::to_string(&note).expect("numbers and texts can be written as JSON");
        text.push('\n');
    }
    text
}

/// Reads lines.
///
/// # Errors
/// They are not notes.
pub fn read(text: &str) -> Result<Vec<Note>, NotesError> {
    let mut notes = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if notes.len() == NOTES_MAX {
            return Err(NotesError::TooMany);
        }
        let note = object(line.as_bytes());
        notes.push(note.map_err(|error| NotesError::Line { number, error })?);
    }
    Ok(notes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(words: &str) -> Note {
        let words = words.to_owned();
        Note { first_ms: 1, last_ms: 2, times: 3, tone: Tone::Bad, words }
    }

    #[test]
    fn what_is_written_is_read() {
        let notes = vec![note("a \"quoted\"\nword"), note("")];
        let text = write(notes.clone());
        assert_eq!(text.lines().count(), 2);
        assert_eq!(read(&text), Ok(notes));
        assert_eq!(read(""), Ok(vec![]));
    }

    #[test]
    fn what_no_instance_tells_is_refused() {
        let whole = write([note("a")]);
        let error = read(&format!("{whole}{}", &whole[..20])).unwrap_err().to_string();
        assert!(error.starts_with("note 2 is not understood: "), "{error}");
        let many = write((0..=NOTES_MAX).map(|_| note("a")));
        assert_eq!(read(&many), Err(NotesError::TooMany));
    }
}
