//! Where this run finds programs: the only reader of the environment in the harness.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The profile's folder, `target/<profile>`, in which the workspace's binaries lie beside the test's own executable.
pub(crate) fn profile_folder() -> Result<PathBuf> {
    let executable = env::current_exe().context("the test executable's own path is not known")?;
    let folder = executable.parent().context("the test executable lies in no folder")?;
    Ok(if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}

/// The path of one of the workspace's own binaries.
pub(crate) fn workspace_binary(name: &str) -> Result<PathBuf> {
    let path = profile_folder()?.join(name);
    if !path.is_file() {
        bail!("{} does not exist: run `cargo build --workspace` first", path.display());
    }
    Ok(path)
}

/// The first executable called `name` on the search path, or in `target/tools/bin`, where `tests/install.sh` puts what it adds.
pub(crate) fn find_tool(name: &str) -> Result<Option<PathBuf>> {
    Ok(env::split_paths(&search_path()?).map(|folder| folder.join(name)).find(|path| is_executable(path)))
}

/// The executables called `PREFIX…` on the search path, in `target/tools/bin`, and beside the file which the tool `name` really
/// is, following symbolic links.
pub(crate) fn siblings_of_tool(name: &str, prefix: &str) -> Result<Vec<PathBuf>> {
    let beside = find_tool(name)?.and_then(|path| path.canonicalize().ok()?.parent().map(Path::to_owned));
    let mut found = Vec::new();
    for folder in env::split_paths(&search_path()?).chain(beside) {
        // A search path may name folders that are not there.
        let Ok(entries) = folder.read_dir() else { continue };
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) && is_executable(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    Ok(found)
}

/// `target/tools`, where `tests/install.sh` puts what it adds.
pub(crate) fn tools_folder() -> Result<PathBuf> {
    Ok(profile_folder()?.with_file_name("tools"))
}

/// `PATH` as child processes get it: this process' own, then `target/tools/bin`.
#[expect(clippy::disallowed_methods, reason = "a test's own environment")]
pub(crate) fn search_path() -> Result<OsString> {
    let inherited = env::var_os("PATH").unwrap_or_default();
    let tools = tools_folder()?.join("bin");
    env::join_paths(env::split_paths(&inherited).chain([tools])).context("PATH cannot be extended")
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_says_how_to_build_it() {
        let error = workspace_binary("no-such-binary").unwrap_err();
        assert!(error.to_string().ends_with("run `cargo build --workspace` first"), "{error}");
    }

    #[test]
    fn a_shell_is_found_and_nonsense_is_not() -> Result<()> {
        assert!(find_tool("sh")?.is_some());
        assert_eq!(find_tool("no-such-tool")?, None);
        Ok(())
    }
}
