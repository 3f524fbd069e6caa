//! The tunnel's truth: nobody's write says that a cluster can be reached, was seen, has joined or was accepted.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

const CONDITIONS: [&str; 3] = ["ManagedClusterConditionAvailable", "ManagedClusterJoined", "HubAcceptedManagedCluster"];

fn said(kind: &str, status: &str) -> Value {
    json!({
        "type": kind, "status": status, "reason": "Forged", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    })
}

/// Each way to write a status, as method, path below the cluster, content type and body.
fn ways(live: &Value, status: &Value) -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let mut put = live.clone();
    put["status"] = status.clone();
    let json = json!([{"op": "add", "path": "/status", "value": status}]);
    let applied =
        json!({"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": {"name": "c1"}, "status": status});
    vec![
        ("PUT", "/status", "application/json", put.clone()),
        ("PATCH", "/status", MERGE, json!({"status": status})),
        ("PATCH", "/status", "application/json-patch+json", json.clone()),
        ("PATCH", "/status?fieldManager=m&force=true", APPLY, applied.clone()),
        ("PUT", "", "application/json", put),
        ("PATCH", "", MERGE, json!({"status": status})),
        ("PATCH", "", "application/json-patch+json", json),
        ("PATCH", "?fieldManager=m&force=true", APPLY, applied),
    ]
}

async fn written(hub: &Hub, status: &Value) -> Vec<Value> {
    let admin = hub.admin();
    let mut left = Vec::new();
    let uri = format!("{CLUSTERS}/c1");
    for at in 0..8 {
        let live = admin.get(&uri).await.ok();
        let (method, path, kind, body) = ways(&live, status).swap_remove(at);
        admin.send(method, &format!("{uri}{path}"), &[("content-type", kind)], body.to_string()).await.ok();
        left.push(admin.get(&uri).await.ok()["status"].clone());
    }
    left
}

async fn wide(hub: &Hub) -> Vec<Value> {
    let headers = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = hub.admin().send("GET", &format!("{CLUSTERS}/c1"), &headers, "").await.ok();
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let wanted = ["Joined", "Available", "Last Seen", "Tunnel", "Reason"];
    let places = columns.enumerate().filter(|(_, column)| wanted.iter().any(|name| column["name"] == *name));
    places.map(|(at, _)| table["rows"][0]["cells"][at].clone()).collect()
}

#[tokio::test]
async fn a_cluster_without_a_tunnel_is_made_available_by_no_write() {
    let hub = Hub::new().await;
    let mut new = cluster("c1", json!({}));
    let forged = json!({
        "conditions": [said("Mine", "True"), said(CONDITIONS[0], "True"), said(CONDITIONS[1], "True"), said(CONDITIONS[2], "False")],
        "lastSeen": now().to_string(), "version": {"kubernetes": "v1.30.0"},
    });
    new["status"] = forged.clone();
    hub.admin().post(CLUSTERS, new).await.ok();
    for status in written(&hub, &forged).await {
        let conditions = status["conditions"].as_array().unwrap();
        let kinds: Vec<_> = conditions.iter().filter_map(|condition| condition["type"].as_str()).collect();
        assert_eq!(kinds, ["Mine"], "{status}");
        assert!(status["lastSeen"].is_null(), "{status}");
        assert_eq!(status["version"]["kubernetes"], "v1.30.0");
    }
    assert_eq!(wide(&hub).await, [Value::Null, Value::Null, Value::Null, Value::Null, Value::Null]);
}

#[tokio::test]
async fn a_tunnel_that_is_gone_is_kept_up_by_no_write() {
    let hub = Hub::new().await;
    hub.join_c1(true).await;
    let (name, agent) = ("c1".parse().unwrap(), "a1".parse().unwrap());
    let key = format!("sha256:{:064x}", 1).parse().unwrap();
    let sighting = crate::Sighting { key, at: now(), version: Some("1".to_owned()) };
    let there = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&there);
    let presence = crate::Presence::new(Arc::clone(&hub.registry), None, move |_| asked.load(Ordering::Relaxed));
    presence.saw(&name, &agent, sighting.clone());
    presence.write().await.unwrap();
    let up = hub.admin().get(&format!("{CLUSTERS}/c1")).await.ok()["status"].clone();
    there.store(false, Ordering::Relaxed);
    presence.saw(&name, &agent, sighting);
    presence.write().await.unwrap();
    let down = hub.admin().get(&format!("{CLUSTERS}/c1")).await.ok()["status"].clone();
    assert_ne!(up, down);
    let nothing = json!({"conditions": []});
    for sent in [up, nothing] {
        for status in written(&hub, &sent).await {
            assert_eq!(status["conditions"], down["conditions"]);
            assert_eq!((&status["lastSeen"], &status["agents"]), (&down["lastSeen"], &down["agents"]));
        }
    }
    assert_eq!(wide(&hub).await[3], "Down");
}
