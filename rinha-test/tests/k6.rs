//! `rinha-test run contest --client k6`: a short contest of the real system by the contest's own client.
#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use sonic_rs::{JsonValueTrait, Value};
use support::python_tool_for;

#[test]
fn k6_puts_its_load_on_the_floor_as_well_and_the_figures_are_compared() {
    let Some(k6) = python_tool_for("k6", "it runs no contest") else { return };
    let out = tempfile::tempdir().unwrap();
    // So short a contest may end before the last payments are settled, which is no fault here.
    let output = Command::new(env!("CARGO_BIN_EXE_rinha-test"))
        .args(["run", "contest", "--no-box", "--client", "k6", "--time-scale", "0.05"])
        .args(["--set", "floor.share=1", "--set", "expect.lag=100000"])
        .args(["--set", "expect.success_share=0"])
        .arg("--k6")
        .arg(k6)
        .arg("--out")
        .arg(out.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let result: Value = std::fs::read_to_string(out.path().join("result.json"))
        .ok()
        .and_then(|text| sonic_rs::from_str(&text).ok())
        .unwrap_or_else(|| panic!("{text}"));
    assert!(result["accepted"].as_u64().unwrap() > 0, "{text}");
    assert_eq!(
        (result["lost"].as_u64(), result["duplicated"].as_u64()),
        (Some(0), Some(0)),
        "{text}"
    );
    let [p99_ms, floor_p99_ms, ratio, floor_cpu_us] =
        ["p99_ms", "floor_p99_ms", "p99_over_floor", "floor_cpu_us_per_request"]
            .map(|key| result[key].as_f64().unwrap_or_else(|| panic!("{key}: {text}")));
    assert!(floor_p99_ms > 0.0 && floor_cpu_us > 0.0, "{text}");
    assert!((ratio - p99_ms / floor_p99_ms).abs() < 1e-6, "{text}");
    let halves = std::fs::read_to_string(out.path().join("k6-floor.json")).unwrap();
    assert!(sonic_rs::from_str::<Value>(&halves).unwrap()["accepted"].as_u64().unwrap() > 0);
}
