//! The shape of the workspace: which crate may import which, and what files are called and look like.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Which of our crates each may import. `tests`, `bench` and `fuzz` stand above all and may import anything.
const ARROWS: [(&str, &[&str]); 9] = [
    ("certs", &[]),
    ("links", &[]),
    ("process", &[]),
    ("tunnel", &[]),
    ("store", &["certs"]),
    ("registry", &["store", "certs"]),
    ("proxy-server", &["registry", "store", "tunnel", "certs", "process"]),
    ("proxy-agent", &["tunnel", "certs", "process"]),
    ("cli", &["certs", "registry", "tunnel", "process", "proxy-server", "proxy-agent"]),
];
const ABOVE_ALL: [&str; 3] = ["bench", "fuzz", "tests"];
/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 9] =
    ["util", "utils", "common", "helper", "helpers", "misc", "shared", "manager", "managers"];
/// Lines of a file before its tests.
const LONGEST_FILE: usize = 500;

/// One dependency as `cargo metadata` tells it.
struct Arrow {
    from: String,
    to: String,
    dev: bool,
}

#[test]
fn every_crate_imports_only_what_lies_below_it() -> Result<()> {
    let arrows = arrows()?;
    ensure!(!arrows.is_empty(), "cargo metadata tells of no dependency");
    let offences: Vec<String> = arrows.iter().filter_map(offence).collect();
    assert!(offences.is_empty(), "{}", offences.join("\n"));
    Ok(())
}

#[test]
fn quinn_is_known_to_the_tunnel_alone() -> Result<()> {
    // The bench compares the tunnel with quinn as it is, and the harness makes handshakes that go wrong.
    const KNOW: [&str; 3] = ["tunnel", "bench", "tests"];
    for Arrow { from, to, dev } in arrows()? {
        assert!(
            dev || !to.starts_with("quinn") || KNOW.contains(&from.as_str()),
            "{from} imports {to}: above tunnel there are streams"
        );
    }
    Ok(())
}

#[test]
fn the_command_imports_server_and_agent_in_its_demo_only() -> Result<()> {
    for file in sources()?.into_iter().filter(|file| file.starts_with("cli")) {
        let demo = file.starts_with("cli/src/demo") || file == Path::new("cli/src/demo.rs");
        let text = fs::read_to_string(root().join(&file))?;
        let imports = ["proxy_server::", "proxy_agent::"].iter().any(|import| text.contains(import));
        assert!(demo || !imports, "{} imports the server or the agent", file.display());
    }
    Ok(())
}

#[test]
fn no_name_is_empty_of_meaning() -> Result<()> {
    for path in files()? {
        for component in path.iter() {
            let name = Path::new(component).file_stem().unwrap_or(component).to_string_lossy();
            assert!(!EMPTY_NAMES.contains(&&*name), "{} is named for no noun", path.display());
        }
    }
    for file in sources()? {
        let text = fs::read_to_string(root().join(&file))?;
        let module = text.lines().filter_map(module_name).find(|module| EMPTY_NAMES.contains(module));
        assert!(module.is_none(), "{} has a module named for no noun: {module:?}", file.display());
    }
    Ok(())
}

#[test]
fn every_file_says_first_what_it_owns() -> Result<()> {
    for file in sources()? {
        let text = fs::read_to_string(root().join(&file))?;
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//! "), "{} does not begin with //!", file.display());
    }
    Ok(())
}

#[test]
fn no_production_file_is_long() -> Result<()> {
    for file in sources()?.into_iter().filter(|file| file.iter().any(|folder| folder == "src")) {
        let text = fs::read_to_string(root().join(&file))?;
        let lines = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).count();
        assert!(lines <= LONGEST_FILE, "{} has {lines} lines: a noun is missing, find its name", file.display());
    }
    Ok(())
}

#[test]
fn the_rules_find_what_breaks_them() {
    let arrow = |from: &str, to: &str, dev| offence(&Arrow { from: from.to_owned(), to: to.to_owned(), dev }).is_some();
    assert!(arrow("certs", "tunnel", false), "certs imports none of ours");
    assert!(arrow("tunnel", "proxy-agent", false) && arrow("tunnel", "proxy-agent", true), "upward");
    assert!(arrow("certs", "cli", true), "upward over several arrows");
    assert!(arrow("proxy-server", "proxy-agent", false), "sideways");
    assert!(arrow("newcomer", "certs", false), "a crate without a place");
    assert!(!arrow("proxy-server", "certs", false) && !arrow("tunnel", "certs", true) && !arrow("tests", "cli", false));
    assert!(!arrow("certs", "tokio", false), "others' crates are free");
    assert_eq!(module_name("    pub(crate) mod util {"), Some("util"));
    assert_eq!(module_name("// mod util;"), None);
}

/// Why that dependency must not be, if so.
fn offence(Arrow { from, to, dev }: &Arrow) -> Option<String> {
    let places = BTreeMap::from(ARROWS);
    let ours = |name: &str| places.contains_key(name) || ABOVE_ALL.contains(&name);
    if !ours(to) || ABOVE_ALL.contains(&from.as_str()) {
        return None;
    }
    let Some(below) = places.get(from.as_str()) else {
        return Some(format!("{from} has no place among the arrows: give it one"));
    };
    match dev {
        true if reaches(&places, to, from) => Some(format!("{from} tests with {to}, which lies above it")),
        false if !below.contains(&to.as_str()) => Some(format!("{from} imports {to}; it may import {below:?} only")),
        _ => None,
    }
}

/// Whether `from` may import `to`, directly or over others.
fn reaches(places: &BTreeMap<&str, &[&str]>, from: &str, to: &str) -> bool {
    ABOVE_ALL.contains(&from)
        || places.get(from).is_some_and(|below| below.iter().any(|next| *next == to || reaches(places, next, to)))
}

/// Every dependency of every crate of the workspace.
fn arrows() -> Result<Vec<Arrow>> {
    let mut arrows = Vec::new();
    for package in members()? {
        let from = package["name"].as_str().context("a package has no name")?;
        for dependency in package["dependencies"].as_array().context("a package has no dependencies")? {
            let to = dependency["name"].as_str().context("a dependency has no name")?.to_owned();
            arrows.push(Arrow { from: from.to_owned(), to, dev: dependency["kind"] == "dev" });
        }
    }
    Ok(arrows)
}

fn members() -> Result<Vec<Value>> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()?;
    ensure!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout)?;
    metadata["packages"].as_array().cloned().context("no packages")
}

/// The name in a line that declares a module.
fn module_name(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace().skip_while(|word| word.starts_with("pub"));
    (words.next()? == "mod").then(|| words.next().map(|name| name.trim_end_matches([';', '{'])))?
}

/// A walk names files relative to the folder that its line begins with, other texts by the end of their paths.
#[test]
fn every_source_file_that_a_document_names_exists() -> Result<()> {
    let sources = sources()?;
    let exists = |name: &Path| match name.components().count() > 2 && root().join(name.iter().next().unwrap()).is_dir()
    {
        true => sources.iter().any(|source| source == name),
        false => sources.iter().any(|source| source.ends_with(name)),
    };
    for file in files()?.into_iter().filter(|file| file.extension().is_some_and(|extension| extension == "md")) {
        let text = fs::read_to_string(root().join(&file))?;
        let quoted = text.split('`').skip(1).step_by(2).filter(|quoted| quoted.ends_with(".rs"));
        let missing: Vec<&str> =
            quoted.filter(|name| !name.contains(['{', '*', ' ']) && !exists(Path::new(name))).collect();
        assert!(missing.is_empty(), "{} names files that are not there: {missing:?}", file.display());
    }
    Ok(())
}

fn sources() -> Result<Vec<PathBuf>> {
    let mut files = files()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    ensure!(!files.is_empty(), "no source is found");
    Ok(files)
}

/// All files of the checkout, relative to its root, but those of tools and builds.
fn files() -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let name = entry.file_name();
            // A module may have the name of the folder in which cargo builds.
            let is_built = name == "target" && entry.path().join("CACHEDIR.TAG").exists();
            if name.as_encoded_bytes().starts_with(b".") || is_built {
                continue;
            }
            match entry.file_type()?.is_dir() {
                true => folders.push(entry.path()),
                false => files.push(entry.path().strip_prefix(root())?.to_owned()),
            }
        }
    }
    Ok(files)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member lies in the workspace's folder").to_owned()
}
