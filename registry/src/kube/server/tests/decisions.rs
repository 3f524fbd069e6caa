//! Decisions about a cluster and its agents: by its approval, by their requests, and what no other write makes of them.

use super::*;

const C1: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters/c1";
const REQUEST: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests/c1.a1";

/// A hub with the cluster `c1`, of which the agent `a1` asks to join.
async fn with_agent() -> Hub {
    let hub = Hub::new().await;
    hub.join_c1(false).await;
    hub
}

fn approval() -> String {
    format!("{C1}/approval")
}

async fn phases(hub: &Hub) -> Vec<String> {
    let cluster = hub.admin().get(C1).await.ok();
    let agents = cluster["status"]["agents"].as_array().cloned().unwrap_or_default();
    agents.iter().map(|agent| agent["phase"].as_str().unwrap().to_owned()).collect()
}

fn rule(group: &str, resource: &str, verb: &str) -> Value {
    json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
}

#[tokio::test]
async fn an_approval_takes_phases_and_nothing_else() {
    let hub = with_agent().await;
    let admin = hub.admin();
    let mut sent = admin.get(C1).await.ok();
    sent["status"]["agents"][0]["phase"] = "Accepted".into();
    sent["status"]["agents"][0]["version"] = "forged".into();
    sent["status"]["lastSeen"] = "2026-01-01T00:00:00Z".into();
    sent["spec"]["hubAcceptsClient"] = true.into();
    sent["metadata"]["labels"]["a"] = "b".into();
    let decided = admin.patch(&approval(), sent).await.ok();
    assert_eq!(phases(&hub).await, ["Accepted"]);
    assert_eq!(decided["status"]["agents"][0]["version"], "");
    assert!(decided["status"]["lastSeen"].is_null() && decided["metadata"]["labels"]["a"].is_null());
    assert_eq!(decided["spec"]["hubAcceptsClient"], false);
    // A key that is out stays out, and a denial of the cluster is a condition.
    for (phase, code) in [("Denied", 200), ("Accepted", 422), ("Pending", 422)] {
        let mut agents = decided["status"]["agents"].clone();
        agents[0]["phase"] = phase.into();
        assert_eq!(admin.patch(&approval(), json!({"status": {"agents": agents}})).await.code, code, "{phase}");
    }
    let denied = json!([{"type": "HubAcceptedManagedCluster", "status": "False", "reason": "x", "message": "",
        "lastTransitionTime": now().to_string()}]);
    admin.patch(&approval(), json!({"status": {"conditions": denied}})).await.ok();
    let cluster = hub.registry.cluster(&"c1".parse().unwrap()).unwrap();
    assert_eq!(cluster.acceptance(), crate::AcceptanceStatus::Denied);
}

#[tokio::test]
async fn no_odd_body_forgets_an_agent() {
    let hub = with_agent().await;
    let admin = hub.admin();
    for status in [json!("x"), json!({"agents": "x"}), json!({"agents": {"a": 1}}), json!(["x"])] {
        assert_eq!(admin.patch(&approval(), json!({"status": status})).await.code, 422, "{status}");
    }
    for status in [json!(null), json!({"agents": null}), json!({})] {
        admin.patch(&approval(), json!({"status": status})).await.ok();
    }
    let applied = json!({
        "apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster", "metadata": {"name": "c1"},
        "status": {"agents": [{"name": "a1", "key": format!("sha256:{:064x}", 1), "phase": "Denied"}]},
    });
    admin.apply(&format!("{}?fieldManager=me", approval()), applied).await.refused(400, "BadRequest");
    assert_eq!(phases(&hub).await, ["Pending"]);
    admin.patch(&approval(), json!({"status": {"agents": []}})).await.ok();
    assert!(phases(&hub).await.is_empty(), "a list that leaves it out forgets it");
}

#[tokio::test]
async fn who_may_not_accept_decides_about_nobody() {
    let hub = with_agent().await;
    let (cluster, requests) = ("cluster.open-cluster-management.io", "certificates.k8s.io");
    let rules = [
        rule(cluster, "managedclusters/approval", "patch"),
        rule(requests, "certificatesigningrequests", "delete"),
        rule(requests, "certificatesigningrequests/approval", "update"),
    ];
    hub.grant("eve", "", json!(rules)).await;
    let eve = hub.user("eve");
    eve.patch(&approval(), json!({"status": {"agents": []}})).await.refused(403, "Forbidden");
    eve.send("DELETE", REQUEST, &[], "").await.refused(403, "Forbidden");
    let mut request = hub.admin().get(REQUEST).await.ok();
    request["status"]["conditions"] =
        json!([{"type": "Approved", "status": "True", "reason": "Looked", "message": ""}]);
    for dry_run in ["", "?dryRun=All"] {
        let uri = format!("{REQUEST}/approval{dry_run}");
        eve.put(&uri, request.clone()).await.refused(403, "Forbidden");
    }
    assert_eq!(phases(&hub).await, ["Pending"]);
}

#[tokio::test]
async fn what_clients_write_of_a_cluster_leaves_room_for_what_the_hub_must_write() {
    let hub = with_agent().await;
    let admin = hub.admin();
    let claims = |count: usize| -> Value {
        let claim = |n: usize| json!({"name": format!("claim-{n}.example.com"), "value": "x".repeat(1000)});
        json!({"status": {"clusterClaims": (0..count).map(claim).collect::<Vec<_>>()}})
    };
    let status = format!("{C1}/status");
    admin.patch(&status, claims(900)).await.ok();
    admin.patch(&status, claims(1200)).await.refused(413, "RequestEntityTooLarge");
    admin.patch(C1, json!({"spec": {"hubAcceptsClient": true}})).await.ok();
    admin.patch(C1, json!({"spec": {"hubAcceptsClient": false}})).await.ok();
    assert_eq!(admin.patch(&status, claims(10)).await.code, 200);
}

#[tokio::test]
async fn a_decision_leaves_the_conditions_of_others_as_they_are() {
    let hub = with_agent().await;
    let admin = hub.admin();
    let theirs = json!({
        "type": "Theirs", "status": "True", "reason": "Theirs", "message": "", "observedGeneration": 7,
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    });
    admin.patch(&format!("{C1}/status"), json!({"status": {"conditions": [theirs]}})).await.ok();
    let accepted = admin.patch(C1, json!({"spec": {"hubAcceptsClient": true}})).await.ok();
    let conditions = accepted["status"]["conditions"].as_array().unwrap();
    assert!(conditions.contains(&theirs) && conditions.len() == 2, "{conditions:?}");
}
