//! What an administrator of a cluster does with kubectl: apply, top, drain, debug, describe and proxy.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde_json::Value;
use tests::service::apiserver::ApiServer;
use tests::{Fetch, Kubectl};

use super::BOUND;

/// Objects are created and changed, by the client's merge and by the server's.
pub(crate) async fn apply_creates_and_changes(kubectl: &Kubectl) -> Result<()> {
    let map = |name: &str, value: &str| {
        kubectl.file(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: \"{value}\", same: \"0\"}}\n"
        ))
    };
    for (name, flags) in [("client-side", ""), ("server-side", "--server-side")] {
        kubectl.says(&format!("delete configmap {name} --ignore-not-found"), "").await?;
        for value in ["1", "2"] {
            kubectl.ok(&format!("apply {flags} -f {}", map(name, value)?)).await?;
            let stored = kubectl.get(&format!("configmap {name}")).await?;
            ensure!(stored["data"]["key"] == value && stored["data"]["same"] == "0", "{stored}");
        }
        kubectl.ok(&format!("delete configmap {name}")).await?;
        kubectl.refused(&format!("get configmap {name}"), "not found").await?;
    }
    Ok(())
}

/// What pods and nodes use is shown.
pub(crate) async fn top_shows_use(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let pods = kubectl.table("top pod").await?;
    let row = pods.iter().find(|row| row["NAME"] == pod);
    ensure!(row.is_some_and(|row| row["CPU(cores)"] == "5m" && row["MEMORY(bytes)"] == "16Mi"), "{pods:?}");
    let nodes = kubectl.ok("top node").await?;
    ensure!(nodes.contains("250m") && nodes.contains("1024Mi"), "{nodes}");
    Ok(())
}

/// A drained node has no pods and takes none until it is uncordoned.
pub(crate) async fn drain_empties_the_node(kubectl: &Kubectl, server: &ApiServer, pod: &str) -> Result<()> {
    server.add_pod(pod);
    let said = kubectl.ok("drain node --force --timeout=30s").await?;
    ensure!(said.contains("evicted") || said.contains("drained"), "{said}");
    kubectl.refused(&format!("get pod {pod}"), "not found").await?;
    let unschedulable =
        async || Ok::<_, anyhow::Error>(kubectl.get("node node").await?["spec"]["unschedulable"].clone());
    ensure!(unschedulable().await? == true);
    kubectl.ok("uncordon node").await?;
    ensure!(unschedulable().await? == Value::Null);
    Ok(())
}

/// A container is added to a running pod and its command is attached to.
pub(crate) async fn debug_runs_beside_the_pod(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let script = format!("debug -i {pod} --image=tools --container=tools -- sh -c 'read line; echo \"got $line\"'");
    let mut debug = kubectl.program(&script).with_stdin().spawn()?;
    debug.write(b"a word\n", BOUND).await?;
    debug.stdout_line(BOUND, "the word", |line| (line == "got a word").then_some(())).await?;
    debug.exits_with(0, BOUND).await?;
    let added = kubectl.get(&format!("pod {pod}")).await?;
    ensure!(added["spec"]["ephemeralContainers"][0]["name"] == "tools", "{added}");
    Ok(())
}

/// A pod is described.
pub(crate) async fn describe_tells_of_a_pod(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let said = kubectl.ok(&format!("describe pod {pod}")).await?;
    ensure!(said.contains("Running") && said.contains("Events:") && said.contains(pod), "{said}");
    Ok(())
}

/// A proxy on this machine answers for the API server.
pub(crate) async fn proxy_answers(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let proxy = kubectl.spawn("proxy --port=0 --append-server-path")?;
    let address = |line: &str| line.strip_prefix("Starting to serve on ")?.parse().ok();
    let address: SocketAddr = proxy.stdout_line(BOUND, "where it serves", address).await?;
    let get = Fetch::get(format!("/api/v1/namespaces/default/pods/{pod}"));
    let found = get.plain(address).await?.success()?.json()?;
    ensure!(found["metadata"]["name"] == pod, "{found}");
    Ok(())
}

/// Who asks is told as the API server sees it.
pub(crate) async fn whoami_tells_who_asks(kubectl: &Kubectl, user: &str, groups: &[&str]) -> Result<()> {
    let said: Value = serde_json::from_str(&kubectl.ok("auth whoami -o json").await?)?;
    let info = &said["status"]["userInfo"];
    ensure!(info["username"] == user, "{said}");
    ensure!(
        groups.iter().all(|group| info["groups"].as_array().is_some_and(|all| all.iter().any(|found| found == group)))
    );
    Ok(())
}
