//! The documents: none is empty, and what they point to is there.
#![allow(clippy::unwrap_used)]

mod markdown;

use std::path::{Path, PathBuf};

use markdown::{anchors, prose};

/// Folders in which nothing is ours.
const NOT_OURS: [&str; 4] = ["target", ".venv", ".tools", ".git"];

/// All files under a folder that are called like this.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && !NOT_OURS.contains(&name.as_str()) {
            files(&path, ending, found);
        } else if path.is_file() && name.ends_with(ending) {
            found.push(path);
        }
    }
}

/// Where the links of a text lead: `[text](target)`.
fn targets(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)).collect()
}

/// What is wrong with a document.
fn faults(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap();
    if text.trim().is_empty() {
        return vec![format!("{}: empty", path.display())];
    }
    let text = prose(&text);
    let mut faults = Vec::new();
    for target in targets(&text).into_iter().filter(|target| !target.contains("://")) {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let other = if file.is_empty() { path.into() } else { path.parent().unwrap().join(file) };
        let is_there = match anchor {
            "" => other.exists(),
            anchor => std::fs::read_to_string(&other)
                .is_ok_and(|text| anchors(&prose(&text)).contains(anchor)),
        };
        if !is_there {
            faults.push(format!("{}: {target}", path.display()));
        }
    }
    faults
}

#[test]
fn no_document_is_empty_and_all_their_links_lead_somewhere() {
    let mut documents = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), ".md", &mut documents);
    assert!(documents.len() > 20, "{documents:?}");
    let faults: Vec<_> = documents.iter().flat_map(|path| faults(path)).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn what_is_wrong_with_a_document_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let empty = write("empty.md", "\n");
    assert_eq!(faults(&empty).len(), 1);
    write("other.md", "# One `Heading`, of two\n```\n# not one\n```\n");
    let good = "[a](other.md) [b](other.md#one-heading-of-two) [c](#here) [d](https://a.example/)\n# Here\n\
                ```\n[e](nowhere.md)\n```\n";
    assert_eq!(faults(&write("good.md", good)), Vec::<String>::new());
    let bad = "[a](nowhere.md) [b](other.md#not-one) [c](#there)\n";
    assert_eq!(faults(&write("bad.md", bad)).len(), 3);
}
