//! The identity of a payment.

use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use uuid::Uuid;

/// Bytes of a [`CorrelationId`] on disk and on the wire.
pub const CORRELATION_ID_BYTES: usize = 16;

/// Characters of a UUID in its hyphenated form.
pub const HYPHENATED_CHARACTERS: usize = uuid::fmt::Hyphenated::LENGTH;

/// The `correlationId` of a payment: a UUID that its client chose, unique to that payment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CorrelationId([u8; CORRELATION_ID_BYTES]);

/// A map by identity. Clients choose ids, so they are hashed with a key that nobody knows.
pub type IdMap<V> = HashMap<CorrelationId, V, ahash::RandomState>;

impl Hash for CorrelationId {
    /// As one number, which takes one step where 16 bytes and their length take many.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(u128::from_ne_bytes(self.0));
    }
}

/// A text that is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("correlationId must be a UUID such as 4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3")]
pub struct CorrelationIdError;

impl CorrelationId {
    /// The identity with these bytes, in the order in which a UUID is written.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; CORRELATION_ID_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes, in the order in which a UUID is written.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; CORRELATION_ID_BYTES] {
        self.0
    }

    /// The hyphenated form, in lower case.
    #[must_use]
    pub fn to_hyphenated(self) -> [u8; HYPHENATED_CHARACTERS] {
        let mut characters = [0; HYPHENATED_CHARACTERS];
        Uuid::from_bytes(self.0).hyphenated().encode_lower(&mut characters);
        characters
    }

    /// Reads the hyphenated form, in either case.
    ///
    /// # Errors
    /// Anything but 36 characters of a hyphenated UUID.
    pub fn parse_ascii(text: &[u8]) -> Result<Self, CorrelationIdError> {
        // `Uuid` also reads bare, braced and URN forms; the contract knows one form.
        if text.len() != HYPHENATED_CHARACTERS {
            return Err(CorrelationIdError);
        }
        Uuid::try_parse_ascii(text)
            .map(|uuid| Self(uuid.into_bytes()))
            .map_err(|_| CorrelationIdError)
    }
}

impl FromStr for CorrelationId {
    type Err = CorrelationIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_ascii(text.as_bytes())
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; HYPHENATED_CHARACTERS];
        formatter.write_str(Uuid::from_bytes(self.0).hyphenated().encode_lower(&mut buffer))
    }
}

impl fmt::Debug for CorrelationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hyphenated_uuid_is_read_in_either_case_and_printed_in_lower() {
        let id: CorrelationId = "4A7901B8-7d26-4d9d-aa19-4dc1c7cf60b3".parse().unwrap();
        assert_eq!(id.to_string(), "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3");
        assert_eq!(id.to_bytes()[0], 0x4a);
        assert_eq!(CorrelationId::from_bytes(id.to_bytes()), id);
    }

    #[test]
    fn no_other_form_of_a_uuid_is_accepted() {
        for text in [
            "",
            "4a7901b87d264d9daa194dc1c7cf60b3",
            "{4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3}",
            "urn:uuid:4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b3",
            "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60bg",
            "4a7901b8-7d26-4d9d-aa19-4dc1c7cf60b",
            "4a7901b8-7d26-4d9d-aa194-dc1c7cf60b3",
        ] {
            assert_eq!(text.parse::<CorrelationId>(), Err(CorrelationIdError), "{text}");
        }
    }
}
