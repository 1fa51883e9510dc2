//! The formulas of `scoring.js`, by the same figures as those of `rinha_test::score`, which has them in Rust.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::process::Command;

use support::python_tool_for;

fn check(k6: &Path, folder: &Path) -> (bool, String) {
    let output = Command::new(k6)
        .args(["run", "--no-usage-report", "--quiet", "--address", ""])
        .arg(folder.join("scoring-check.js"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

#[test]
fn the_contests_script_scores_as_recorded_and_the_check_can_fail() {
    let Some(k6) = python_tool_for("k6", "scoring.js is not checked") else { return };
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (passed, text) = check(&k6, ours);
    assert!(passed, "{text}");

    // One cent more in one score of the fixture, and it must not pass.
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("fixtures")).unwrap();
    for file in ["scoring.js", "scoring-check.js"] {
        std::fs::copy(ours.join(file), copy.path().join(file)).unwrap();
    }
    let fixture = std::fs::read_to_string(ours.join("fixtures/scoring.json")).unwrap();
    let wrong = fixture.replacen("\"score_cents\": 38003587", "\"score_cents\": 38003588", 1);
    assert_ne!(fixture, wrong);
    std::fs::write(copy.path().join("fixtures/scoring.json"), wrong).unwrap();
    let (passed, text) = check(&k6, copy.path());
    assert!(!passed && text.contains("score: 38003587 instead of 38003588"), "{text}");
}
