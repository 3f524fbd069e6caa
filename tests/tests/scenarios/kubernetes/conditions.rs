//! Conditions: what the hub says about clusters, sets and bindings, in Open Cluster Management's words, and what follows.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tests::{Hub, Kubectl, Spoke, wait_for};

use super::{BOUND, SET, admin, binding, cluster, set};

const UNREACHABLE: &str = "cluster.open-cluster-management.io/unreachable";

/// Waits until the object's condition of that type is `expected`: status, reason and message.
async fn comes_to_say(kubectl: &Kubectl, what: &str, kind: &str, expected: [&str; 3]) -> Result<()> {
    wait_for(BOUND, &format!("{kind} of {what}: {expected:?}"), async || {
        let object = kubectl.get(what).await?;
        let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
        let said = conditions.filter(|condition| condition["type"] == kind);
        let said: Vec<_> = said.map(|said| json!([said["status"], said["reason"], said["message"]])).collect();
        ensure!(said == [json!(expected)], "{said:?}");
        Ok(())
    })
    .await
}

fn taints(cluster: &Value) -> Vec<&Value> {
    cluster["spec"]["taints"].as_array().into_iter().flatten().map(|taint| &taint["key"]).collect()
}

#[tokio::test]
async fn a_cluster_is_available_exactly_while_its_tunnel_is_up() -> Result<()> {
    let hub = Hub::start().await?;
    let kubectl = admin(&hub)?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    let (joined, available) = ("ManagedClusterJoined", "ManagedClusterConditionAvailable");
    let accepted = ["True", "HubClusterAdminAccepted", "Accepted by hub cluster admin"];
    comes_to_say(&kubectl, "mcl c1", "HubAcceptedManagedCluster", accepted).await?;
    comes_to_say(&kubectl, "mcl c1", joined, ["True", joined, "Managed cluster joined"]).await?;
    let up = ["True", "ManagedClusterAvailable", "Managed cluster is available"];
    comes_to_say(&kubectl, "mcl c1", available, up).await?;
    comes_to_say(
        &kubectl,
        "mca cluster-proxy -n c1",
        "Available",
        ["True", "TunnelUp", "A tunnel of the cluster is up."],
    )
    .await?;
    let seen = kubectl.get("mcl c1").await?;
    ensure!(taints(&seen).is_empty(), "{seen}");
    let lease = kubectl.get("lease managed-cluster-lease -n c1").await?;
    ensure!(lease["spec"]["leaseDurationSeconds"] == 60, "{lease}");
    let namespace = kubectl.get("ns c1").await?;
    ensure!(namespace["metadata"]["labels"]["open-cluster-management.io/cluster-name"] == "c1", "{namespace}");

    spoke.stop().await?;
    let down = ["Unknown", "ManagedClusterLeaseUpdateStopped", "Registration agent stopped updating its lease."];
    comes_to_say(&kubectl, "mcl c1", available, down).await?;
    let lost = kubectl.get("mcl c1").await?;
    ensure!(taints(&lost) == [UNREACHABLE], "{lost}");
    comes_to_say(
        &kubectl,
        "mca cluster-proxy -n c1",
        "Available",
        ["False", "TunnelDown", "No tunnel of the cluster is up."],
    )
    .await?;
    kubectl.ok("patch mcl c1 --type=merge -p '{\"spec\":{\"hubAcceptsClient\":false}}'").await?;
    let denied = ["False", "HubClusterAdminDenied", "Denied by hub cluster admin"];
    comes_to_say(&kubectl, "mcl c1", "HubAcceptedManagedCluster", denied).await?;
    wait_for(BOUND, "the events", async || {
        let events = kubectl.get("events -A --field-selector involvedObject.name=c1").await?;
        let events = events["items"].as_array().into_iter().flatten();
        let reasons: Vec<_> = events.filter_map(|event| event["reason"].as_str()).collect();
        for reason in [accepted[1], joined, up[1], down[1], denied[1]] {
            ensure!(reasons.contains(&reason), "{reason} is not among {reasons:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn sets_say_how_much_they_hold_and_bindings_whether_there_is_a_set() -> Result<()> {
    let hub = Hub::start().await?;
    let kubectl = admin(&hub)?;
    let (empty, holds) = (["True", "NoClusterMatched", "No ManagedCluster selected"], |count: &'static str| {
        ["False", "ClustersSelected", count]
    });
    for name in ["default", "global"] {
        comes_to_say(&kubectl, &format!("mclset {name}"), "ClusterSetEmpty", empty).await?;
    }
    kubectl.ok("create namespace team").await?;
    kubectl.ok(&format!("create -f {}", kubectl.file(&binding("team", "prod"))?)).await?;
    let bound = "mclsetbinding prod -n team";
    comes_to_say(&kubectl, bound, "Bound", ["False", "ClusterSetNotFound", ""]).await?;
    let everything = [set("prod"), cluster("c1", false), cluster("c2", true)].join("---\n");
    kubectl.ok(&format!("create -f {}", kubectl.file(&everything)?)).await?;
    comes_to_say(&kubectl, bound, "Bound", ["True", "ClusterSetBound", ""]).await?;
    comes_to_say(&kubectl, "mclset default", "ClusterSetEmpty", holds("2 ManagedClusters selected")).await?;
    kubectl.ok(&format!("label --overwrite mcl c1 {SET}=prod")).await?;
    comes_to_say(&kubectl, "mclset prod", "ClusterSetEmpty", holds("1 ManagedClusters selected")).await?;
    comes_to_say(&kubectl, "mclset default", "ClusterSetEmpty", holds("1 ManagedClusters selected")).await?;
    comes_to_say(&kubectl, "mclset global", "ClusterSetEmpty", holds("2 ManagedClusters selected")).await?;
    kubectl.ok("delete mclset prod").await?;
    comes_to_say(&kubectl, bound, "Bound", ["False", "ClusterSetNotFound", ""]).await
}
