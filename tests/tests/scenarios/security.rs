//! SECURITY.md: each promise names tests, and each test that it names is there.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// Promises without a test would not be noticed if fewer were read than are written.
const FEWEST: usize = 20;

#[test]
fn every_promise_names_a_test_that_exists() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies in the workspace's folder");
    let text = fs::read_to_string(root.join("SECURITY.md"))?;
    let mut sources = Vec::new();
    for member in
        ["certs", "cli", "fuzz", "process", "proxy-agent", "proxy-server", "registry", "store", "tests", "tunnel"]
    {
        collect(&root.join(member), &mut sources)?;
    }
    let mut named = 0;
    for row in text.lines().filter(|line| is_promise(line)) {
        let tests: Vec<&str> = row.split('`').skip(1).step_by(2).filter(|quoted| quoted.contains("::")).collect();
        ensure!(!tests.is_empty(), "a promise names no test: {row}");
        for test in &tests {
            ensure!(sources.iter().any(|(path, source)| holds(path, source, test)), "{test} is no test: {row}");
        }
        named += tests.len();
    }
    ensure!(named >= FEWEST, "SECURITY.md names {named} tests");
    Ok(())
}

/// A row of a table, but for its head.
fn is_promise(line: &str) -> bool {
    line.starts_with("| ") && !line.starts_with("| promise")
}

/// Whether the file has the test `…::module::function`: the module is the file, or in it.
fn holds(path: &Path, source: &str, test: &str) -> bool {
    let mut segments = test.rsplit("::");
    let (Some(function), Some(module)) = (segments.next(), segments.next()) else { return false };
    let here = path.iter().any(|part| Path::new(part).file_stem().is_some_and(|stem| stem == module));
    here && [format!("fn {function}("), format!("fn {function}<")].iter().any(|head| source.contains(head))
}

fn collect(folder: &Path, sources: &mut Vec<(PathBuf, String)>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push((path.clone(), fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

#[test]
fn a_test_that_is_not_there_is_noticed() {
    let path = Path::new("tests/tests/scenarios/gateway/identity.rs");
    assert!(holds(path, "async fn a_name() {", "gateway::identity::a_name"));
    assert!(!holds(path, "async fn a_name() {", "gateway::identity::another"));
    assert!(!holds(path, "async fn a_name() {", "gateway::kubectl::a_name"));
    assert!(
        is_promise("| nobody reads this | `a::b` |") && !is_promise("| promise | test |") && !is_promise("|---|---|")
    );
}
