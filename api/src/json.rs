//! Reading JSON objects.

use serde::Deserialize;

/// Why bytes are not the object that is looked for.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// They begin as something else does.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// They are not JSON, or lack a field.
    #[error(transparent)]
    Json(#[from] sonic_rs::Error),
}

/// Reads an object. An array of its values is none, although a derived reader would take it for one.
///
/// # Errors
/// See [`ObjectError`].
pub fn object<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ObjectError> {
    match bytes.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Ok(sonic_rs::from_slice(bytes)?),
        _ => Err(ObjectError::NotAnObject),
    }
}
