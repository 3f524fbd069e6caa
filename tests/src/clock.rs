//! A clock of its own for a process: the program `faketime` has it read from a file, and it may be set at any time.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The line for a process' shell that has it tell the time by `file`, and the right one at first.
pub fn read_from(file: &Path) -> Result<String> {
    set(file, "+0")?;
    Ok(format!(
        "export LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={} FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1",
        library()?.display(),
        file.display()
    ))
}

/// Sets it by so much, e.g. `-20h` or `+3d`; it takes a second.
pub fn set(file: &Path, offset: &str) -> Result<()> {
    fs::write(file, offset).with_context(|| format!("{} cannot be written", file.display()))
}

/// That of the program `faketime`.
fn library() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib")?.filter_map(|folder| Some(folder.ok()?.path().join("faketime")));
    let library = folders.map(|folder| folder.join("libfaketimeMT.so.1")).find(|library| library.is_file());
    library.context("faketime is not installed: run `tests/install.sh`, which installs it")
}
