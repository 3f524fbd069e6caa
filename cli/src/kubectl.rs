//! `kubectl`: the machine's kubectl against one cluster, as if it had been called itself.

use std::{
    ffi::OsString,
    fs::Permissions,
    io::{self, IsTerminal},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{ExitCode, ExitStatus},
};

use certs::{ClusterName, write_secret};
use clap::Args;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
};

use crate::{
    credentials::Located,
    failure::{Exit, Failure},
    kubeconfig,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy kubectl -C edge-1 get pods --namespace web\n  \
    cluster-proxy kubectl -C edge-1 -- --namespace web exec -it shell -- sh\n\n\
    Input, output, signals and exit code are kubectl's own. What stands behind the cluster is kubectl's, so its -c is \
    the container. For contexts that stay, see 'cluster-proxy kubeconfig'.")]
pub(crate) struct Kubectl {
    /// The cluster
    #[arg(long, short = 'C', visible_short_alias = 'c', value_name = "CLUSTER")]
    cluster: ClusterName,
    /// kubectl's own arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<OsString>,
}

/// Why kubectl did not run.
#[derive(Debug, thiserror::Error)]
enum KubectlError {
    #[error("there is no kubectl in PATH")]
    Missing,
    #[error("kubectl does not start")]
    Start(#[source] io::Error),
    #[error("no temporary folder can be made for the kubeconfig")]
    Folder(#[source] io::Error),
}

/// What is handed on to kubectl.
struct Signals {
    /// The terminal sends these to kubectl too; a second one would be a second Ctrl-C.
    from_terminal: bool,
}

impl Kubectl {
    /// kubectl's exit code; 128 and the signal's number, if one ended it.
    pub(crate) async fn run(&self, located: &Located) -> Result<ExitCode, Failure> {
        let config = kubeconfig::of_one(located, &self.cluster)?;
        let status = self.run_with(&config).await?;
        Ok(exit_code(status))
    }

    async fn run_with(&self, config: &str) -> Result<ExitStatus, KubectlError> {
        let signals = Signals::of_terminal();
        // Before kubectl: a signal must find its handler, or the folder would stay.
        let mut interrupt = signal(SignalKind::interrupt()).map_err(KubectlError::Start)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(KubectlError::Start)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(KubectlError::Start)?;
        let mut quit = signal(SignalKind::quit()).map_err(KubectlError::Start)?;
        let folder = folder().map_err(KubectlError::Folder)?;
        let path = folder.path().join("config");
        write_secret(&path, config).map_err(KubectlError::Folder)?;
        let mut child = command(&self.arguments, &path).spawn().map_err(KubectlError::of_start)?;
        let ended = loop {
            tokio::select! {
                status = child.wait() => break status,
                _ = interrupt.recv() => signals.hand_on(&child, Signal::SIGINT),
                _ = quit.recv() => signals.hand_on(&child, Signal::SIGQUIT),
                _ = terminate.recv() => signals.hand_on(&child, Signal::SIGTERM),
                _ = hangup.recv() => signals.hand_on(&child, Signal::SIGHUP),
            }
        };
        ended.map_err(KubectlError::Start)
    }
}

/// The folder is its owner's alone, and goes with the value.
fn folder() -> io::Result<TempDir> {
    tempfile::Builder::new().prefix("cluster-proxy-").permissions(Permissions::from_mode(0o700)).tempdir()
}

fn command(arguments: &[OsString], kubeconfig: &Path) -> Command {
    let mut command = Command::new("kubectl");
    command.args(arguments).env("KUBECONFIG", kubeconfig);
    command
}

impl Signals {
    fn of_terminal() -> Self {
        Self { from_terminal: io::stdin().is_terminal() || io::stdout().is_terminal() || io::stderr().is_terminal() }
    }

    fn hand_on(&self, child: &Child, signal: Signal) {
        if self.from_terminal && matches!(signal, Signal::SIGINT | Signal::SIGQUIT) {
            return;
        }
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended in this moment.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

/// As a shell tells it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

impl KubectlError {
    fn of_start(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Missing } else { Self::Start(error) }
    }
}

impl From<KubectlError> for Failure {
    fn from(error: KubectlError) -> Self {
        let next = match &error {
            KubectlError::Missing => "install it: https://kubernetes.io/docs/tasks/tools",
            KubectlError::Start(_) => "",
            KubectlError::Folder(_) => "make room in the folder for temporary files, or name another with TMPDIR",
        };
        Self::new(Exit::Other, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_a_shells() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), ExitCode::from(3));
        assert_eq!(exit_code(ExitStatus::from_raw(0)), ExitCode::SUCCESS);
        assert_eq!(exit_code(ExitStatus::from_raw(2)), ExitCode::from(130));
        assert_eq!(exit_code(ExitStatus::from_raw(15)), ExitCode::from(143));
    }
}
