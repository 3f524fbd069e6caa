//! `cluster-proxy kubectl`, and the same program as kubectl's plug-in.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::{Program, tool};

use super::{BOUND, ONE, Site};

/// A kubectl of a few lines of shell, first in PATH, and a folder for temporary files that should be empty in the end.
struct Double {
    folder: PathBuf,
    temporary: PathBuf,
}

impl Double {
    fn new(folder: &Path, lines: &str) -> Result<Self> {
        let double = Self { folder: folder.join("bin"), temporary: folder.join("tmp") };
        for folder in [&double.folder, &double.temporary] {
            fs::create_dir_all(folder)?;
        }
        let kubectl = double.folder.join("kubectl");
        fs::write(&kubectl, format!("#!/bin/sh\n{lines}\n"))?;
        fs::set_permissions(&kubectl, Permissions::from_mode(0o755))?;
        Ok(double)
    }

    fn first_in_path(&self, program: Program) -> Program {
        let line = format!("export PATH={}:$PATH", self.folder.display());
        program.env("TMPDIR", &self.temporary).after_shell(&line)
    }

    fn left_behind(&self) -> Result<usize> {
        Ok(fs::read_dir(&self.temporary)?.count())
    }
}

#[tokio::test]
async fn kubectl_is_run_as_it_is_with_a_kubeconfig_that_is_gone_after_it() -> Result<()> {
    let site = Site::start().await?;
    let script =
        "stat -c '%a %n' \"$KUBECONFIG\" \"$(dirname \"$KUBECONFIG\")\"; cat; echo \"$@\"; echo why >&2; exit 7";
    let double = Double::new(site.folder.path(), script)?;
    let kubectl = site.alice()?.args(["kubectl", "-C", "one", "logs", "-c", "web", "--", "a b"]);
    let mut kubectl = double.first_in_path(kubectl).with_stdin().spawn()?;
    kubectl.write(b"typed\n", BOUND).await?;
    kubectl.close_stdin();
    kubectl.stdout_line(BOUND, "the arguments", |line| (line == "logs -c web -- a b").then_some(())).await?;
    kubectl.stderr_line(BOUND, "its error", |line| (line == "why").then_some(())).await?;
    let said = kubectl.stdout();
    assert!(said[0].starts_with("600 ") && said[1].starts_with("700 ") && said[2] == "typed", "{said:?}");
    kubectl.exits_with(7, BOUND).await?;
    assert_eq!(double.left_behind()?, 0);
    Ok(())
}

#[tokio::test]
async fn signals_reach_kubectl_and_its_end_by_one_is_told() -> Result<()> {
    let site = Site::start().await?;
    let wait = "echo ready; while :; do sleep 0.05; done";
    for (script, signal, code) in [
        (format!("trap 'exit 5' INT; {wait}"), Signal::SIGINT, 5),
        (format!("trap 'exit 6' TERM; {wait}"), Signal::SIGTERM, 6),
        ("echo ready; exec sleep 60".to_owned(), Signal::SIGINT, 130),
        ("echo ready; exec sleep 60".to_owned(), Signal::SIGHUP, 129),
        ("echo ready; kill -KILL $$".to_owned(), Signal::SIGCONT, 137),
    ] {
        let double = Double::new(site.folder.path(), &script)?;
        let mut kubectl = double.first_in_path(site.alice()?.args(["kubectl", "-C", "one", "get"])).spawn()?;
        kubectl.stdout_line(BOUND, "kubectl", |line| (line == "ready").then_some(())).await?;
        kubectl.signal(signal)?;
        kubectl.exits_with(code, BOUND).await.with_context(|| script.clone())?;
        assert_eq!(double.left_behind()?, 0, "{script}");
    }
    Ok(())
}

/// The terminal sends the signal of Ctrl-C to both; a second one would make many a program leave without tidying up.
#[tokio::test]
async fn ctrl_c_on_a_terminal_reaches_kubectl_once() -> Result<()> {
    let site = Site::start().await?;
    let script =
        "trap 'echo interrupted' INT; trap 'echo ended; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let double = Double::new(site.folder.path(), script)?;
    let pids = site.folder.path().join("pid");
    let line = format!("export PATH={}:$PATH; echo $$ > {}", double.folder.display(), pids.display());
    let kubectl = site.alice()?.args(["kubectl", "-C", "one", "get"]).after_shell(&line);
    let mut terminal = kubectl.env("TMPDIR", &double.temporary).within_terminal().with_stdin().spawn()?;
    let is = |expected: &'static str| move |line: &str| (line.trim_end() == expected).then_some(());
    terminal.stdout_line(BOUND, "kubectl", is("ready")).await?;
    terminal.write(b"\x03", BOUND).await?;
    let interrupted = |line: &str| line.contains("interrupted").then_some(());
    terminal.stdout_line(BOUND, "the signal", interrupted).await?;
    // What is handed on is handed on in order: after this one, nothing of the first is on its way.
    let pid = fs::read_to_string(&pids)?.trim().parse()?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM)?;
    terminal.stdout_line(BOUND, "its end", is("ended")).await?;
    // By which code is the affair of the terminal's own shell, which had the signal too.
    terminal.exit(BOUND).await?;
    assert_eq!(terminal.stdout().iter().filter(|line| line.contains("interrupted")).count(), 1);
    assert_eq!(double.left_behind()?, 0);
    Ok(())
}

#[tokio::test]
async fn the_machines_kubectl_is_run() -> Result<()> {
    let site = Site::start().await?;
    let server = format!("https://{}", site.hub.addresses().api);
    let kubectl = |words: &str| {
        let words = words.split(' ').map(str::to_owned);
        Ok::<_, anyhow::Error>(site.alice()?.args(["kubectl", "-c", "one", "--", "--server", &server]).args(words))
    };
    let listed = kubectl("get managedclusters --output name")?.run(BOUND).await?;
    assert_eq!(listed.success()?, ONE);
    let refused = kubectl("get managedcluster two")?.run(BOUND).await?;
    assert!(refused.stderr.contains("managedclusters.cluster.open-cluster-management.io \"two\""), "{refused:?}");
    refused.exited_with(1)?;
    let mut watch = kubectl("get managedclusters --watch --output name")?.spawn()?;
    watch.stdout_line(BOUND, "the cluster", |line| ONE.trim_end().eq(line).then_some(())).await?;
    watch.signal(Signal::SIGINT)?;
    // kubectl dies by the signal, or ends with 1 once its watch looks after signals itself.
    let ended = watch.exit(BOUND).await?;
    ensure!(matches!(ended.code(), Some(1 | 130)), "{ended}");
    Ok(())
}

#[tokio::test]
async fn without_kubectl_the_error_says_so() -> Result<()> {
    let site = Site::start().await?;
    let lonely = site.alice()?.args(["kubectl", "-C", "one", "get", "pods"]).env("PATH", site.folder.path());
    let missing = lonely.run(BOUND).await?;
    assert!(missing.stderr.contains("there is no kubectl in PATH"), "{missing:?}");
    missing.exited_with(1)?;
    Ok(())
}

#[tokio::test]
async fn kubectl_finds_its_plug_in() -> Result<()> {
    let site = Site::start().await?;
    let kubeconfig = fs::read_to_string(site.kubeconfig().await?)?;
    let command = kubeconfig.lines().find_map(|line| line.trim().strip_prefix("command: ")).context("no command")?;
    let folder = site.folder.path().join("plugins");
    fs::create_dir(&folder)?;
    symlink(command, folder.join("kubectl-cluster_proxy"))?;
    let line = format!("export PATH={}:$PATH", folder.display());
    let plugin = || {
        let kubectl = tool::kubectl()?.env("CLUSTER_PROXY_CREDENTIALS", site.alice.folder()).arg("cluster-proxy");
        Ok::<_, anyhow::Error>(kubectl.after_shell(&line))
    };
    assert_eq!(plugin()?.args(["clusters", "-o", "name"]).run(BOUND).await?.success()?, "one\n");
    let help = plugin()?.args(["kubeconfig", "--help"]).run(BOUND).await?.success()?;
    assert!(help.contains("Usage: kubectl cluster-proxy kubeconfig"), "{help}");
    let script = site.folder.path().join("unused");
    fs::create_dir(&script)?;
    let double = Double::new(&script, "exit 9")?;
    let inner = double.first_in_path(plugin()?.args(["kubectl", "-C", "one", "get", "pods"]));
    inner.run(BOUND).await?.exited_with(9)?;
    Ok(())
}
