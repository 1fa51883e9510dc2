//! Short runs of `rinha-test chaos` with the real processes.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::{Command, Output};

use support::launcher;

/// Two rounds with a torn record, garbage from a processor, the death of everything, a clock that
/// steps back and resets in the middle of answers, among others.
const SEED: &str = "9";

fn chaos(arguments: &[&str]) -> (Output, String) {
    let output = Command::new(launcher()).arg("chaos").args(arguments).output().unwrap();
    let said = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    (output, said)
}

#[test]
fn after_each_round_of_faults_all_books_agree() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("run");
    let arguments = ["--seed", SEED, "--rounds", "2", "--quick", "--data"];
    let (output, said) = chaos(&[&arguments[..], &[data.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with(&format!("seed {SEED}: ")), "{said}");
    for line in ["\nlost                   0\n", "\npaid twice             0\n", "\nall is right\n"]
    {
        assert!(said.contains(line), "{line}{said}");
    }
    assert!(!said.contains("\npayments accepted      0\n"), "{said}");
    // The folder is the caller's, and another run does not write over it.
    assert!(data.join("processes.log").exists());
    let (output, said) = chaos(&[&arguments[..], &[data.to_str().unwrap()]].concat());
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("is not empty"), "{said}");
}

#[test]
fn a_seed_prints_the_same_plan_and_another_one_another() {
    let plan = |seed: &str| {
        let (output, said) = chaos(&["--seed", seed, "--rounds", "20", "--plan"]);
        assert_eq!(output.status.code(), Some(0), "{said}");
        said
    };
    assert_eq!(plan("1"), plan("1"));
    let rounds = |text: String| text.split_once('\n').unwrap().1.to_owned();
    assert_ne!(rounds(plan("1")), rounds(plan("2")));
}
