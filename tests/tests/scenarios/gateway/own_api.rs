//! This project's own API served in a spoke: a hub behind a hub, with the rights that each gives.

use anyhow::{Result, ensure};
use tempfile::TempDir;
use tests::hub::ClusterAccess;
use tests::kubeconfig::Kubeconfig;
use tests::{Hub, Kubectl, Spoke, tool};

use super::BOUND;

#[tokio::test]
async fn a_hub_behind_a_hub_is_administered_by_whom_it_lets() -> Result<()> {
    let (near, far) = (Hub::start().await?, Hub::start().await?);
    let account = TempDir::new()?;
    let token = account.path().join("token");
    std::fs::write(&token, far.credentials().token()?)?;
    let (api, ca) = (far.addresses().api.to_string(), far.credentials().authority_file());
    let flags = ["--kube-api".into(), api, "--kube-ca".into(), ca.display().to_string()];
    let flags = flags.into_iter().chain(["--kube-token".into(), token.display().to_string()]);
    let _spoke = Spoke::of(&near, "far").args(flags).start().await?;

    let alice = near.create_user("alice", &ClusterAccess::Named(vec!["far".to_owned()])).await?;
    let authority = std::fs::read_to_string(alice.authority_file())?;
    let server = format!("https://{}/clusters/far", near.addresses().api);
    for program in [tool::kubectl()?, tool::newest_kubectl()?] {
        let kubectl = Kubectl::of(program, Kubeconfig::new(&server, &authority, alice.token()?).write()?)?;
        let there = Kubectl::administrator(&far, tool::kubectl()?)?;
        kubectl.refused("get managedclusters", "User \"alice\" cannot list").await?;
        there.ok("create clusterrolebinding alice --clusterrole=cluster-proxy:admin --user=alice").await?;
        let edge = kubectl.file(
            "apiVersion: cluster.open-cluster-management.io/v1\nkind: ManagedCluster\nmetadata: {name: edge}\n\
             spec: {hubAcceptsClient: true}\n",
        )?;
        let watch = kubectl.spawn("get managedclusters --watch --output-watch-events")?;
        kubectl.ok(&format!("apply -f {edge}")).await?;
        let event =
            |kind: &'static str| move |line: &str| line.split_whitespace().take(2).eq([kind, "edge"]).then_some(());
        watch.stdout_line(BOUND, "the cluster", event("ADDED")).await?;
        kubectl.ok("label managedcluster edge tier=far").await?;
        watch.stdout_line(BOUND, "its label", event("MODIFIED")).await?;
        ensure!(kubectl.table("get managedclusters -l tier=far").await?.len() == 1);
        kubectl.ok(&format!("apply --server-side --force-conflicts -f {edge}")).await?;
        kubectl.ok("delete managedcluster edge").await?;
        there.ok("delete clusterrolebinding alice").await?;
        kubectl.refused("get managedclusters", "User \"alice\" cannot list").await?;
    }
    Ok(())
}
