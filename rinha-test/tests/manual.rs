//! The manual pages and completions that `rinha-test manual` writes: they have every flag that the programs
//! really have, and shells take them.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use support::launcher;
use tempfile::TempDir;

/// Each program, with the first arguments that lead to another set of flags.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("lb", &[]),
    ("api", &[]),
    ("store", &["audit", "restore"]),
    ("monitor", &["serve", "status"]),
    ("payment-processor", &[]),
    ("rinha-test", &["up", "run", "compare", "chaos", "rules", "simulate", "manual"]),
];

fn manual() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let written = Command::new(launcher()).arg("manual").arg(folder.path()).status().unwrap();
    assert!(written.success());
    folder
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The flags that a program's help has.
fn told_by_help(program: &str, first: &[&str]) -> BTreeSet<String> {
    let program = launcher().with_file_name(program);
    let output = Command::new(program).args(first).arg("--help").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let help = String::from_utf8(output.stdout).unwrap();
    help.lines().filter_map(flag).map(str::to_owned).collect()
}

/// The flag that a line of a help is about: `-h, --help`, or `--data <DIR>`.
fn flag(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let long = match line.split_once(", ") {
        Some((short, long)) if short.len() == 2 && short.starts_with('-') => long,
        _ => line,
    };
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let end = long.find(|letter| !is_part(letter)).unwrap_or(long.len());
    let (flag, rest) = long.split_at(end);
    let is_flag = flag.starts_with("--") && flag.len() > 2;
    (is_flag && (rest.is_empty() || rest.starts_with([' ', '[', '=']))).then_some(flag)
}

/// Whether a text has this flag and not only a longer one.
fn has(text: &str, flag: &str) -> bool {
    text.match_indices(flag).any(|(place, _)| {
        let next = text[place + flag.len()..].chars().next();
        next.is_none_or(|next| !next.is_ascii_alphanumeric() && next != '-')
    })
}

#[test]
fn every_flag_of_every_program_is_in_its_page_and_its_completions() {
    let manual = manual();
    let mut count = 0;
    for (program, firsts) in PROGRAMS {
        let completions = manual.path().join("completions");
        let shells = [
            completions.join(format!("{program}.bash")),
            completions.join(format!("{program}.fish")),
            completions.join(format!("_{program}")),
        ];
        for first in firsts.iter().map(std::slice::from_ref).chain([&[][..]]) {
            let name = [&[program], first].concat().join("-");
            let page = read(&manual.path().join("man1").join(format!("{name}.1")));
            let page = page.replace("\\-", "-");
            if program == "monitor" && first.is_empty() {
                continue;
            }
            for flag in told_by_help(program, first) {
                assert!(has(&page, &flag), "{name}.1 has no {flag}");
                for shell in &shells {
                    let text = read(shell);
                    // fish has flags without their dashes.
                    let fish = format!("-l {}", flag.trim_start_matches('-'));
                    assert!(
                        has(&text, &flag) || has(&text, &fish),
                        "{} has no {flag}",
                        shell.display()
                    );
                }
                count += 1;
            }
        }
    }
    assert!(count > 100, "{count} flags");
    let page = read(&manual.path().join("man1/api.1"));
    assert!(page.contains("PAYROUTER_API_BACKLOG_MAX"), "{page}");
}

#[test]
fn bash_completes_what_comes_first_and_then_its_flags() {
    let manual = manual();
    let script = manual.path().join("completions/store.bash");
    let complete = |words: &str| {
        let ask = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \\
             _store store \"${{COMP_WORDS[$COMP_CWORD]}}\" \"${{COMP_WORDS[$COMP_CWORD - 1]}}\"; \\
             echo \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &ask]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("store au"), "audit");
    assert_eq!(complete("store --cache"), "--cache-mib");
    assert_eq!(complete("store audit --default"), "--default-url");
    assert_eq!(complete("store --log-format j"), "json");
}
