//! The books: what our router says was settled, and what the processors say they recorded.

pub mod processor;
pub mod router;

mod money;

pub use self::money::{TotalError, parse_total};
use crate::http::HttpError;

/// Why books could not be read, or a processor not be configured.
#[derive(Debug, thiserror::Error)]
pub enum BooksError {
    /// There was no answer.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The answer has another status than it should.
    #[error("{what} answers {status}: {body}")]
    Status {
        /// What was asked, and of whom.
        what: String,
        /// The status.
        status: u16,
        /// The start of the body.
        body: String,
    },
    /// The answer cannot be read.
    #[error("{what} answers what cannot be read: {cause}")]
    Body {
        /// What was asked, and of whom.
        what: String,
        /// Why it cannot be read.
        cause: String,
    },
}

/// Characters of a body that an error quotes.
const QUOTE_CHARACTERS_MAX: usize = 200;

fn wrong_status(what: &str, answer: &crate::http::Answer) -> BooksError {
    let body = String::from_utf8_lossy(&answer.body);
    BooksError::Status {
        what: what.to_owned(),
        status: answer.status,
        body: body.chars().take(QUOTE_CHARACTERS_MAX).collect(),
    }
}

fn wrong_body(what: &str, cause: &impl ToString) -> BooksError {
    BooksError::Body { what: what.to_owned(), cause: cause.to_string() }
}
