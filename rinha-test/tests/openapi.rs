//! The running router against its description, `docs/openapi.yaml`, by requests that schemathesis makes up.

#![allow(clippy::unwrap_used)]

mod live;
mod support;

use std::path::Path;
use std::process::Command;

use live::Live;
use support::python_tool_for;

const DESCRIPTION: &str = include_str!("../../docs/openapi.yaml");

/// Requests that schemathesis makes up for an operation in a phase. In all that is more than 2,000.
const CASES: &str = "1000";

/// Whether the router does what this description says, and what schemathesis tells of it.
fn conforms(schemathesis: &Path, live: &Live, description: &str, more: &[&str]) -> (bool, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("openapi.yaml");
    std::fs::write(&file, description).unwrap();
    let url = format!("http://127.0.0.1:{}", live.port());
    let output = Command::new(schemathesis)
        .current_dir(folder.path())
        .arg("run")
        .arg(&file)
        .args(["--url", &url, "--seed", "1", "--no-color"])
        .env("NO_PROXY", "127.0.0.1")
        .args(more)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), text)
}

/// The number before a word.
fn number_before(text: &str, word: &str) -> u32 {
    let (before, _) = text.split_once(word).unwrap_or_else(|| panic!("no {word:?} in {text}"));
    before.split_whitespace().next_back().unwrap().parse().unwrap()
}

#[test]
fn the_router_does_what_its_description_says_and_the_check_can_fail() {
    let unchecked = "docs/openapi.yaml is not checked";
    let Some(schemathesis) = python_tool_for("schemathesis", unchecked) else { return };
    let live = Live::with_api(&["--allow-purge"]);
    let (passed, text) = conforms(&schemathesis, &live, DESCRIPTION, &["--max-examples", CASES]);
    assert!(passed, "{text}");
    let count = number_before(&text, " generated,");
    eprintln!("{count} requests");
    assert!(count >= 2_000, "{text}");

    let few = ["--phases", "coverage", "--include-path", "/payments-summary"];
    let wrong = DESCRIPTION.replace("required: [totalRequests, totalAmount]", "required: [fee]");
    assert_ne!(wrong, DESCRIPTION);
    let (passed, text) = conforms(&schemathesis, &live, &wrong, &few);
    assert!(!passed && text.contains("\"fee\" is a required property"), "{text}");
}
