//! A store that decides by itself: what every store does, and what only this one does.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod suite;

use std::process::Command;

/// Nothing but the store itself.
struct Backing {
    arguments: Vec<String>,
}

impl Backing {
    fn start() -> Self {
        Self { arguments: Vec::new() }
    }

    fn arguments(&self) -> Vec<String> {
        self.arguments.clone()
    }
}

#[test]
fn settings_that_cannot_be_used_end_it_with_64() {
    for arguments in [&["--cache-mib=0"][..], &["--dta=x"], &["--log-format=xml"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_store")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(64), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_store")).arg("--help").output().unwrap();
    assert_eq!(help.status.code(), Some(0));
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(text.contains("PAYROUTER_STORE_CACHE_MIB"), "{text}");
}
