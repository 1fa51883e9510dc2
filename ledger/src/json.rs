//! Reading JSON objects that come from outside.

use serde::Deserialize;

/// Brackets and braces that a text may open. The JSON library calls itself for every one within
/// another that it skips, without a limit, and a stack has one.
pub const OPENINGS_MAX: usize = 64;

/// Why bytes are not the object that is looked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// It begins as something else does.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// More than [`OPENINGS_MAX`].
    #[error("it opens more than {OPENINGS_MAX} brackets and braces")]
    TooNested,
    /// Its bytes are no text.
    #[error("it is not UTF-8")]
    NotText,
    /// It is not JSON, or lacks a field.
    #[error("{0}")]
    Json(String),
}

/// Reads an object. What stands in fields that `T` does not have is skipped, and the escapes in its
/// texts are not looked at. An array of its values is none, although a derived reader would take it for one.
///
/// # Errors
/// See [`ObjectError`].
pub fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ObjectError> {
    match bytes.trim_ascii_start().first() {
        None => return Err(ObjectError::Empty),
        Some(b'{') => {}
        Some(_) => return Err(ObjectError::NotAnObject),
    }
    let openings = bytes.iter().filter(|byte| matches!(byte, b'[' | b'{'));
    if openings.count() > OPENINGS_MAX {
        return Err(ObjectError::TooNested);
    }
    // The JSON library takes bytes as they come, and hands those of a field out as text unchecked.
    let text = std::str::from_utf8(bytes).map_err(|_| ObjectError::NotText)?;
    sonic_rs::from_str(text).map_err(|error| {
        // The first line says what is wrong; the others draw the place, with the text around it.
        let message = error.to_string();
        let line = message.lines().next().unwrap_or_default();
        ObjectError::Json(line.chars().filter(|c| !c.is_control()).take(120).collect())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sonic_rs::LazyValue;

    use super::*;

    #[derive(Deserialize, Debug)]
    struct Example<'a> {
        #[serde(borrow)]
        _value: LazyValue<'a>,
    }

    fn error(text: &str) -> ObjectError {
        object::<Example<'_>>(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn only_an_object_with_its_fields_is_read() {
        assert!(object::<Example<'_>>(br#" { "x": 1, "_value": [2] } "#).is_ok());
        assert_eq!(error(" \n"), ObjectError::Empty);
        for text in ["[1]", "null", "\"_value\"", "1"] {
            assert_eq!(error(text), ObjectError::NotAnObject, "{text}");
        }
        for text in
            ["{}", "{", r#"{"_value":1}x"#, r#"{"_value":1,"_value":2}"#, "{\"_value\":\u{1}}"]
        {
            let error = error(text).to_string();
            assert!(!error.is_empty() && !error.contains(char::is_control), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_text_that_is_nested_without_end_is_refused_before_it_is_read() {
        let text = format!("{{\"x\":{}", "[".repeat(1_000_000));
        assert_eq!(error(&text), ObjectError::TooNested);
        let deepest = OPENINGS_MAX - 1;
        let text = format!("{{\"_value\":{}{}}}", "[".repeat(deepest), "]".repeat(deepest));
        assert!(object::<Example<'_>>(text.as_bytes()).is_ok());
        let text = format!("{{\"_value\":[{}{}]}}", "[".repeat(deepest), "]".repeat(deepest));
        assert_eq!(error(&text), ObjectError::TooNested);
    }

    /// Found by fuzzing: the JSON library makes a text of whatever bytes stand between quotes.
    #[test]
    fn bytes_that_are_no_text_are_refused_wherever_they_stand() {
        for bytes in
            [&b"{\"_value\":\"\xff\"}"[..], b"{\"_value\":1,\"x\":\"\xc0\"}", b"{\"\xf8\":1}"]
        {
            assert_eq!(object::<Example<'_>>(bytes).unwrap_err(), ObjectError::NotText);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = object::<Example<'_>>(&bytes);
        }
    }
}
