//! The stock clients the scenarios run. One that is missing is an error with the command that installs it, never a skip.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

use crate::Program;
use crate::config;

/// curl, silent but for errors, and without the configuration of the machine.
pub fn curl() -> Result<Program> {
    Ok(find("curl")?.args(["--disable", "--silent", "--show-error"]))
}

/// The default kubectl of the machine, or the one in `target/tools/bin`.
pub fn kubectl() -> Result<Program> {
    find("kubectl")
}

/// The kubectl of each version that the machine or `target/tools/bin` has as `kubectl.1.MINOR`, oldest first, with its minor
/// version.
pub fn kubectls_by_minor() -> Result<Vec<(u32, Program)>> {
    let prefix = "kubectl.1.";
    let found = config::siblings_of_tool("kubectl", prefix)?.into_iter().filter_map(|path| {
        let minor = path.file_name()?.to_str()?.strip_prefix(prefix)?.parse().ok()?;
        Some((minor, Program::at(path)))
    });
    let mut found: Vec<(u32, Program)> = found.collect();
    found.sort_by_key(|(minor, _)| *minor);
    found.dedup_by_key(|(minor, _)| *minor);
    Ok(found)
}

/// The newest kubectl: the one that the installer put into `target/tools/bin`.
pub fn newest_kubectl() -> Result<Program> {
    find("kubectl.1.37")
}

/// Debian's kubectl: 1.20 in Debian 12, older than what the registry promises for writing.
pub fn old_kubectl() -> Result<Program> {
    find("kubectl-debian")
}

/// Prometheus.
pub fn prometheus() -> Result<Program> {
    find("prometheus")
}

/// Prometheus' tool that checks configurations and rules.
pub fn promtool() -> Result<Program> {
    find("promtool")
}

/// etcd.
pub fn etcd() -> Result<Program> {
    find("etcd")
}

/// Python with the stock Kubernetes client that `tests/install.sh` installs; it leaves no compiled files beside scripts.
pub fn python() -> Result<Program> {
    Ok(find("python3")?.arg("-B").env("PYTHONPATH", installed("python")?))
}

/// Python with the gRPC and HTTP/2 clients that `tests/install.sh` installs; it leaves no compiled files beside scripts.
pub fn grpc_python() -> Result<Program> {
    Ok(find("python3")?.arg("-B").env("PYTHONPATH", installed("grpc")?))
}

/// Node; scripts find the stock Kubernetes client that `tests/install.sh` installs by `CLIENT_NODE`.
pub fn node() -> Result<Program> {
    Ok(find("node")?.env("CLIENT_NODE", installed("node/node_modules/@kubernetes/client-node")?))
}

/// Chromium, Debian's.
pub fn chromium() -> Result<Program> {
    find("chromium")
}

/// The tools by which Chromium's certificates are kept (NSS).
pub fn certutil() -> Result<Program> {
    find("certutil")
}

/// Beside [`certutil`], for private keys.
pub fn pk12util() -> Result<Program> {
    find("pk12util")
}

/// OpenSSL's command.
pub fn openssl() -> Result<Program> {
    find("openssl")
}

fn installed(folder: &str) -> Result<PathBuf> {
    let path = config::tools_folder()?.join(folder);
    ensure!(path.is_dir(), "{} is missing: run `tests/install.sh`, which installs it", path.display());
    Ok(path)
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
