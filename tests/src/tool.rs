//! The stock clients the scenarios run. One that is missing is an error with the command that installs it, never a skip.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::Program;
use crate::config;

/// kubectl's minor versions of which the machine may have a copy as `kubectl.1.N` beside the default one.
const KUBECTL_MINORS: std::ops::RangeInclusive<u32> = 20..=60;

/// curl, silent but for errors, and without the configuration of the machine.
pub fn curl() -> Result<Program> {
    Ok(find("curl")?.args(["--disable", "--silent", "--show-error"]))
}

/// The default kubectl of the machine, or the one in `target/tools/bin`.
pub fn kubectl() -> Result<Program> {
    find("kubectl")
}

/// Every kubectl on the search path that names its minor version (`kubectl.1.N`), oldest first, with that minor version. There may be none.
pub fn kubectls_by_minor() -> Result<Vec<(u32, Program)>> {
    let found = KUBECTL_MINORS.map(|minor| {
        let path = config::find_tool(&format!("kubectl.1.{minor}"))?;
        Ok(path.map(|path: PathBuf| (minor, Program::at(path))))
    });
    found.filter_map(Result::transpose).collect()
}

/// Prometheus.
pub fn prometheus() -> Result<Program> {
    find("prometheus")
}

fn find(name: &str) -> Result<Program> {
    let path = config::find_tool(name)?;
    path.map(Program::at).with_context(|| format!("{name} is not installed: run `tests/install.sh`, which installs it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_names_the_command_that_installs_it() {
        let error = find("no-such-tool").unwrap_err();
        assert!(error.to_string().contains("run `tests/install.sh`"), "{error}");
    }
}
