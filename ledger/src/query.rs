//! Parameters of a URL's query.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// What is wrong with a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// It does not say which of the two counts.
    #[error("{0} is given twice")]
    Twice(&'static str),
    /// What is encoded is no text.
    #[error("{0} is not UTF-8")]
    NotText(&'static str),
}

/// The decoded value of a parameter. One without a value counts as missing. A plus stays a plus: it
/// is the sign of a time's offset here, never a space.
///
/// # Errors
/// See [`QueryError`].
pub fn parameter<'a>(
    query: &'a str,
    name: &'static str,
) -> Result<Option<Cow<'a, str>>, QueryError> {
    let mut values = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(key, value)| (key == name && !value.is_empty()).then_some(value));
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(QueryError::Twice(name));
    }
    percent_decode_str(value).decode_utf8().map(Some).map_err(|_| QueryError::NotText(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_by_name_and_decoded() {
        for (query, expected) in [
            ("", None),
            ("a", None),
            ("a=", None),
            ("b=1&a=2&aa=3", Some("2")),
            ("a=x%3Ay+z%2B", Some("x:y+z+")),
            ("a=1=2", Some("1=2")),
            ("a=%zz", Some("%zz")),
        ] {
            assert_eq!(parameter(query, "a").unwrap().as_deref(), expected, "{query}");
        }
        assert_eq!(parameter("a=1&a=1", "a"), Err(QueryError::Twice("a")));
        assert_eq!(parameter("a=%ff", "a"), Err(QueryError::NotText("a")));
    }
}
