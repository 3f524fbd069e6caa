//! The operator's command over the gateway: the contexts that it writes, its kubectl, and port-forward to pods.

use anyhow::{Context as _, Result, ensure};
use tests::service::web;
use tests::{Credentials, Fetch, Program, tool};

use super::{BOUND, Site};

impl Site {
    /// `cluster-proxy` as alice, who may reach the cluster.
    async fn alice(&self) -> Result<Program> {
        let folder = self.account.path().join("alice");
        let out = folder.to_str().context("the temporary folder's path is no text")?;
        self.hub.command(["user", "create", "alice", "--cluster", "one", "--out", out]).await?.success()?;
        self.hub.operator(&Credentials::at(folder))
    }
}

#[tokio::test]
async fn every_kubectl_uses_a_context_of_ours() -> Result<()> {
    let site = Site::start().await?;
    let alice = site.alice().await?;
    let config = site.account.path().join("config");
    alice.env("KUBECONFIG", &config).args(["kubeconfig", "--all", "--merge"]).run(BOUND).await?.success()?;
    for (minor, kubectl) in tool::kubectls_by_minor()? {
        let kubectl = kubectl.env("KUBECONFIG", &config).args(["--context", "one"]);
        let pods = kubectl.clone().args(["get", "pods", "--output", "name"]).run(BOUND).await?.success()?;
        ensure!(pods == "pod/first\n", "{minor}: {pods}");
    }
    let as_alice = site.server.requests();
    let users = as_alice.iter().filter_map(|seen| seen.headers.get("impersonate-user"));
    ensure!(users.clone().count() > 0 && users.clone().all(|user| user == "alice"), "{:?}", users.collect::<Vec<_>>());

    site.hub.command(["user", "delete", "alice"]).await?.success()?;
    let refused = tool::kubectl()?.env("KUBECONFIG", &config).args(["get", "pods"]).run(BOUND).await?;
    ensure!(refused.exited_with(1)?.is_empty(), "a deleted user still gets in");
    Ok(())
}

#[tokio::test]
async fn kubectl_by_the_command_keeps_the_exit_code_of_what_it_runs() -> Result<()> {
    let site = Site::start().await?;
    let alice = site.alice().await?;
    let kubectl = |words: &str| alice.clone().args(["kubectl", "-C", "one"]).args(words.split(' '));
    ensure!(kubectl("get pods -o name").run(BOUND).await?.success()? == "pod/first\n");
    let failed = alice.clone().args(["kubectl", "-C", "one", "exec", "first", "--", "sh", "-c", "exit 3"]);
    failed.run(BOUND).await?.exited_with(3)?;
    Ok(())
}

#[tokio::test]
async fn a_port_of_a_pod_is_forwarded() -> Result<()> {
    let site = Site::start().await?;
    let alice = site.alice().await?;
    let web = web::plain("web").await?;
    let pair = format!(":{}", web.service().port());
    let forward = alice.clone().args(["port-forward", "-c", "one", "pod/first", &pair]).spawn()?;
    let port = |line: &str| line.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next()?.parse::<u16>().ok();
    let port = forward.stdout_line(BOUND, "the local port", port).await?;
    let answer = Fetch::get("/").plain(([127, 0, 0, 1], port).into()).await?;
    ensure!(answer.text() == "web\n", "{answer:?}");
    let missing = alice.args(["port-forward", "-c", "one", "pod/second", "-n", "default", "80"]).run(BOUND).await?;
    ensure!(missing.stderr.contains("pods \"second\" not found"), "{missing:?}");
    Ok(())
}
