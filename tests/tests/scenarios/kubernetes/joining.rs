//! Joining as the admin sees it with kubectl alone: the request, its approval or denial, the cluster let in, and what follows.

use std::path::Path;

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::hub::JoinTerms;
use tests::{Hub, Kubectl, Process, Spoke, wait_for};

use super::{BOUND, CLUSTER, admin, full};

/// The agent's exit code for a refusal that trying again does not change (sysexits.h: EX_NOPERM).
const REFUSED: i32 = 77;
const REQUEST: &str = "certificatesigningrequest.certificates.k8s.io";

/// An agent that waits for the admin, and its state folder.
async fn waiting(hub: &Hub, admin: &Kubectl, cluster: &str) -> Result<(Process, TempDir)> {
    let state = TempDir::new()?;
    let join = ask(hub, cluster, state.path()).await?;
    is_pending(admin, &format!("{cluster}.node")).await?;
    Ok((join, state))
}

/// An agent that asks to join with a token of its own.
async fn ask(hub: &Hub, cluster: &str, state: &Path) -> Result<Process> {
    let terms = JoinTerms { cluster: None, auto_accept: false, reusable: false, ttl_seconds: 3600 };
    let token = hub.create_token(&terms).await?;
    Spoke::of(hub, cluster).agent("node").token(&token).join(state).await?.spawn()
}

async fn is_pending(admin: &Kubectl, request: &str) -> Result<()> {
    wait_for(BOUND, "the request to be pending", async || {
        let row = &admin.table(&format!("get csr {request}")).await?[0];
        ensure!(row["CONDITION"] == "Pending", "{row:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_approved_request_and_an_accepted_cluster_let_an_agent_in() -> Result<()> {
    let hub = Hub::start().await?;
    for (number, kubectl) in full(&hub)?.into_iter().enumerate() {
        let cluster = format!("edge{number}");
        let (mut join, _state) = waiting(&hub, &kubectl, &cluster).await?;
        let request = format!("{cluster}.node");
        let row = &kubectl.table(&format!("get csr {request}")).await?[0];
        ensure!(row["CONDITION"] == "Pending" && row["SIGNERNAME"] == "kubernetes.io/kube-apiserver-client", "{row:?}");
        ensure!(row["REQUESTOR"] == format!("system:open-cluster-management:{cluster}:node"), "{row:?}");
        let listed = &kubectl.table(&format!("get mcl {cluster}")).await?[0];
        ensure!(listed["HUB ACCEPTED"] == "false", "{listed:?}");
        let selected =
            kubectl.ok(&format!("get csr -l open-cluster-management.io/cluster-name={cluster} -o name")).await?;
        ensure!(selected.trim_end() == format!("{REQUEST}/{request}"), "{selected}");

        // Twice, as in OCM: the request and the cluster.
        let approved = format!("{REQUEST}/{request} approved");
        kubectl.says(&format!("certificate approve {request}"), &approved).await?;
        ensure!(join.is_running()?);
        let row = &kubectl.table(&format!("get csr {request}")).await?[0];
        ensure!(row["CONDITION"].starts_with("Approved"), "{row:?}");
        kubectl.ok(&format!("wait csr {request} --for=condition=Approved --timeout=60s")).await?;
        let patch = "--type=merge -p '{\"spec\":{\"hubAcceptsClient\":true}}'";
        kubectl.says(&format!("patch mcl {cluster} {patch}"), &format!("{CLUSTER}/{cluster} patched")).await?;
        join.exits_with(0, BOUND).await?;
        kubectl.ok(&format!("wait mcl {cluster} --for=condition=HubAcceptedManagedCluster --timeout=60s")).await?;
        kubectl.says(&format!("certificate approve {request}"), &approved).await?;
        kubectl.refused(&format!("certificate deny {request}"), "").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_denied_request_ends_the_join_and_stays_denied() -> Result<()> {
    let hub = Hub::start().await?;
    for (number, kubectl) in full(&hub)?.into_iter().enumerate() {
        let cluster = format!("edge{number}");
        let (mut join, state) = waiting(&hub, &kubectl, &cluster).await?;
        let request = format!("{cluster}.node");
        kubectl.says(&format!("certificate deny {request}"), &format!("{REQUEST}/{request} denied")).await?;
        join.exits_with(REFUSED, BOUND).await?;
        let row = &kubectl.table(&format!("get csr {request}")).await?[0];
        ensure!(row["CONDITION"] == "Denied", "{row:?}");
        kubectl.refused(&format!("certificate approve {request}"), "").await?;
        // The same key is refused at once, whatever token it brings; another agent may have the name.
        ask(&hub, &cluster, state.path()).await?.exits_with(REFUSED, BOUND).await?;
        let anew = TempDir::new()?;
        let mut join = ask(&hub, &cluster, anew.path()).await?;
        is_pending(&kubectl, &request).await?;
        ensure!(join.is_running()?);
        ensure!(kubectl.ok(&format!("get mcl {cluster} -o name")).await?.trim_end() == format!("{CLUSTER}/{cluster}"));
    }
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_is_not_accepted_any_more_is_cut_off_and_comes_back() -> Result<()> {
    let hub = Hub::start().await?;
    let spoke = Spoke::of(&hub, "edge").agent("node").start().await?;
    let admin = admin(&hub)?;
    wait_for(BOUND, "the tunnel", async || {
        ensure!(hub.is_available("edge").await);
        Ok(())
    })
    .await?;
    let accept =
        |accepted: bool| format!("patch mcl edge --type=merge -p '{{\"spec\":{{\"hubAcceptsClient\":{accepted}}}}}'");
    admin.ok(&accept(false)).await?;
    let condition = "get mcl edge -o 'jsonpath={.status.conditions[?(@.type==\"HubAcceptedManagedCluster\")]}'";
    let denied: serde_json::Value = serde_json::from_str(&admin.ok(condition).await?)?;
    ensure!(
        denied["status"] == "False"
            && denied["reason"] == "HubClusterAdminDenied"
            && denied["message"] == "Denied by hub cluster admin",
        "{denied}"
    );
    wait_for(BOUND, "the tunnel to be cut", async || {
        ensure!(!hub.is_available("edge").await);
        Ok(())
    })
    .await?;
    admin.ok(&accept(true)).await?;
    wait_for(BOUND, "the tunnel to come back", async || {
        ensure!(hub.is_available("edge").await);
        Ok(())
    })
    .await?;
    // What is deleted is let go.
    admin.ok("delete mcl edge").await?;
    admin.refused("get csr edge.node", "(NotFound)").await?;
    ensure!(!hub.is_available("edge").await);
    drop(spoke);
    Ok(())
}

#[tokio::test]
async fn only_one_with_the_right_decides_about_a_request() -> Result<()> {
    let hub = Hub::start().await?;
    let admin = admin(&hub)?;
    let (join, _state) = waiting(&hub, &admin, "edge").await?;
    let bob = hub.create_user("bob", &tests::hub::ClusterAccess::Named(Vec::new())).await?;
    let bob = Kubectl::user(&hub, &bob)?;
    admin
        .ok("create clusterrole looker --verb=get,list --resource=certificatesigningrequests.certificates.k8s.io")
        .await?;
    admin.ok("create clusterrolebinding bob --clusterrole=looker --user=bob").await?;
    bob.ok("get csr edge.node").await?;
    let right = "cannot update resource \"certificatesigningrequests/approval\" in API group \"certificates.k8s.io\"";
    bob.refused("certificate approve edge.node", right).await?;
    bob.refused("certificate deny edge.node", right).await?;
    admin.refused("certificate approve nobody.node", "(NotFound)").await?;
    drop(join);
    Ok(())
}
