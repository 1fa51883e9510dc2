//! What can be changed while the processor runs: how slow it is, whether it fails, and the token
//! that whoever changes it has to know.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

/// The longest delay: an hour.
pub const DELAY_MS_MAX: u64 = 3_600_000;

/// The longest token.
const TOKEN_CHARACTERS_MAX: usize = 128;

/// The secret that opens `/admin/`. It never shows in logs: its debug form hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// A text that cannot be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("token must be 1 to {TOKEN_CHARACTERS_MAX} visible ASCII characters without a space")]
pub struct TokenError;

impl FromStr for Token {
    type Err = TokenError;

    /// Reads a token that a header can carry unchanged.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=TOKEN_CHARACTERS_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| Self(text.to_owned())).ok_or(TokenError)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(hidden)")
    }
}

/// The processor's controls.
#[derive(Debug)]
pub struct Controls {
    delay_ms: AtomicU64,
    failing: AtomicBool,
    token: RwLock<Token>,
}

impl Controls {
    /// No delay, not failing, this token.
    #[must_use]
    pub const fn new(token: Token) -> Self {
        Self {
            delay_ms: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            token: RwLock::new(token),
        }
    }

    /// How long a payment takes.
    #[must_use]
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms())
    }

    /// How long a payment takes, in milliseconds.
    #[must_use]
    pub fn delay_ms(&self) -> u64 {
        self.delay_ms.load(Ordering::Relaxed)
    }

    /// Sets how long a payment takes, and returns what it was.
    pub fn set_delay_ms(&self, delay_ms: u64) -> u64 {
        self.delay_ms.swap(delay_ms, Ordering::Relaxed)
    }

    /// Whether payments fail.
    #[must_use]
    pub fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    /// Sets whether payments fail, and returns what it was.
    pub fn set_failing(&self, failing: bool) -> bool {
        self.failing.swap(failing, Ordering::Relaxed)
    }

    /// Whether this is the token.
    #[must_use]
    pub fn admits(&self, token: &[u8]) -> bool {
        let current = self.token.read().unwrap_or_else(PoisonError::into_inner);
        current.0.as_bytes() == token
    }

    /// Sets the token.
    pub fn set_token(&self, token: Token) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_a_header_can_carry() {
        let longest = "x".repeat(TOKEN_CHARACTERS_MAX);
        for text in ["123", "a-b_c~!", &longest] {
            assert!(text.parse::<Token>().is_ok(), "{text}");
        }
        let too_long = format!("{longest}x");
        for text in ["", " ", "a b", "a\n", "\u{e9}", "\u{7f}", &too_long] {
            assert_eq!(text.parse::<Token>(), Err(TokenError), "{text}");
        }
    }

    #[test]
    fn the_debug_form_of_a_token_hides_it() {
        let controls = Controls::new("open-sesame".parse().unwrap());
        assert!(!format!("{controls:?}").contains("sesame"));
    }

    #[test]
    fn only_the_current_token_is_admitted() {
        let controls = Controls::new("123".parse().unwrap());
        assert!(controls.admits(b"123"));
        controls.set_token("456".parse().unwrap());
        assert!(controls.admits(b"456"));
        for token in [&b"123"[..], b"4567", b"45", b""] {
            assert!(!controls.admits(token));
        }
    }
}
