//! Keeps `SEMANTICS.md` true: every promise names a test, and that test exists.

use std::path::{Path, PathBuf};

/// Everything in backquotes of a table's last column that looks like `path::test`.
fn named(document: &str) -> Vec<(String, String)> {
    let mut tests = Vec::new();
    for line in document.lines().filter(|line| line.starts_with("| ") && !line.contains("---")) {
        let Some(cell) = line.trim_end_matches('|').rsplit('|').next() else { continue };
        for part in cell.split('`').skip(1).step_by(2) {
            if let Some((file, test)) = part.split_once("::") {
                tests.push((file.to_owned(), test.to_owned()));
            }
        }
    }
    tests
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A function, or a sentence of a macro that makes tests of it.
fn has_test(source: &str, test: &str) -> bool {
    source.contains(&format!("fn {test}(")) || source.contains(&format!("{test} =>"))
}

#[test]
fn every_promise_names_a_test_that_exists() {
    let document = include_str!("../SEMANTICS.md");
    let named = named(document);
    assert!(named.len() > 20, "the tables are read");
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, test)| {
            let source = std::fs::read_to_string(root().join(file)).unwrap_or_default();
            !has_test(&source, test)
        })
        .collect();
    assert!(missing.is_empty(), "tests that do not exist: {missing:#?}");
}

#[test]
fn every_promise_names_a_test_or_says_that_it_has_none_yet() {
    let document = include_str!("../SEMANTICS.md");
    let mut rows = 0;
    for line in document.lines().filter(|line| line.starts_with("| ") && !line.contains("---")) {
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap_or_default().trim();
        if cell == "executed by" || cell == "holds" {
            continue;
        }
        rows += 1;
        assert!(cell.contains("::") || cell.starts_with("not yet: "), "{line}");
    }
    assert!(rows > 20, "the tables are read");
}
