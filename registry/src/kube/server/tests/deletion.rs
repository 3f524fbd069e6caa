//! Deletions: finalizers, preconditions, collections, and namespaces, which end when they are empty.

use super::*;
use store::Txn;

fn held(name: &str, finalizers: &[&str]) -> Value {
    let mut cluster = cluster(name, json!({}));
    cluster["metadata"]["finalizers"] = json!(finalizers);
    cluster
}

async fn delete_with(client: &Client<'_>, uri: &str, options: Value) -> Reply {
    client.send("DELETE", uri, &[("content-type", "application/json")], options.to_string()).await
}

#[tokio::test]
async fn what_has_no_finalizer_goes_at_once() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let made = admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    let gone = admin.delete(&format!("{CLUSTERS}/c1")).await.ok();
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(gone["details"]["uid"], made["metadata"]["uid"]);
    admin.get(&format!("{CLUSTERS}/c1")).await.refused(404, "NotFound");
    admin.delete(&format!("{CLUSTERS}/c1")).await.refused(404, "NotFound");
    assert_eq!(hub.registry.cluster(&"c1".parse().unwrap()), None);
}

#[tokio::test]
async fn what_has_finalizers_goes_with_the_last() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let uri = format!("{CLUSTERS}/c1");
    admin.post(CLUSTERS, held("c1", &["x.io/a", "x.io/b"])).await.ok();
    let marked = admin.delete(&uri).await.ok();
    assert_eq!(marked["metadata"]["deletionTimestamp"], now().to_string());
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(marked["metadata"]["generation"], 2);
    assert_eq!(admin.delete(&uri).await.ok(), marked);
    let finalizers = |list: Value| json!({"metadata": {"finalizers": list}});
    admin.patch(&uri, finalizers(json!(["x.io/a", "x.io/c"]))).await.refused(422, "Invalid");
    let left = admin.patch(&uri, finalizers(json!(["x.io/a"]))).await.ok();
    assert_eq!(left["metadata"]["deletionTimestamp"], marked["metadata"]["deletionTimestamp"]);
    admin.patch(&uri, finalizers(Value::Null)).await.ok();
    admin.get(&uri).await.refused(404, "NotFound");
}

#[tokio::test]
async fn a_deletion_in_the_foreground_waits_for_finalizers_alone() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let foreground = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"});
    admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    delete_with(&admin, &format!("{CLUSTERS}/c1"), foreground.clone()).await.ok();
    admin.get(&format!("{CLUSTERS}/c1")).await.refused(404, "NotFound");

    let uri = format!("{CLUSTERS}/c2");
    admin.post(CLUSTERS, held("c2", &["x.io/a"])).await.ok();
    let marked = delete_with(&admin, &uri, foreground).await.ok();
    assert_eq!(marked["metadata"]["finalizers"], json!(["x.io/a", "foregroundDeletion"]));
    admin.patch(&uri, json!({"metadata": {"finalizers": ["foregroundDeletion"]}})).await.ok();
    admin.get(&uri).await.refused(404, "NotFound");
}

#[tokio::test]
async fn a_deletion_of_something_else_is_a_conflict() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let made = admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    let uri = format!("{CLUSTERS}/c1");
    let only =
        |preconditions: Value| json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
    delete_with(&admin, &uri, only(json!({"uid": "other"}))).await.refused(409, "Conflict");
    delete_with(&admin, &uri, only(json!({"resourceVersion": "1"}))).await.refused(409, "Conflict");
    let metadata = &made["metadata"];
    let right = json!({"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]});
    delete_with(&admin, &uri, only(right)).await.ok();
}

#[tokio::test]
async fn a_collection_is_deleted_as_far_as_it_is_selected() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    for (name, env) in [("c1", "a"), ("c2", "b"), ("c3", "a")] {
        admin.post(CLUSTERS, cluster(name, json!({"env": env}))).await.ok();
    }
    let gone = admin.delete(&format!("{CLUSTERS}?labelSelector=env%3Da")).await.ok();
    assert_eq!(names(&gone), ["c1", "c3"]);
    assert_eq!(admin.names(CLUSTERS).await, ["c2"]);
}

#[tokio::test]
async fn a_namespace_takes_along_what_is_in_it() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    admin.post(NAMESPACES, namespace("n")).await.ok();
    let secrets = format!("{NAMESPACES}/n/secrets");
    admin.post(&secrets, secret("s")).await.ok();
    let mut kept = secret("kept");
    kept["metadata"]["finalizers"] = json!(["x.io/a"]);
    admin.post(&secrets, kept).await.ok();
    let going = admin.delete(&format!("{NAMESPACES}/n")).await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    assert_eq!(admin.names(&secrets).await, ["kept"]);
    assert_eq!(admin.get(&format!("{secrets}/kept")).await.ok()["metadata"]["deletionTimestamp"], now().to_string());
    let refused = admin.post(&secrets, secret("late")).await;
    refused.refused(403, "Forbidden");
    assert!(refused.failed().2.contains("because it is being terminated"), "{refused:?}");
    admin.patch(&format!("{secrets}/kept"), json!({"metadata": {"finalizers": null}})).await.ok();
    admin.get(&format!("{NAMESPACES}/n")).await.refused(404, "NotFound");
    // One without anything in it goes at once.
    admin.post(NAMESPACES, namespace("n")).await.ok();
    admin.delete(&format!("{NAMESPACES}/n")).await.ok();
    admin.get(&format!("{NAMESPACES}/n")).await.refused(404, "NotFound");
    admin.delete(&format!("{NAMESPACES}/default")).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn a_namespace_with_a_finalizer_of_its_own_waits_for_it() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let uri = format!("{NAMESPACES}/n");
    let mut held = namespace("n");
    held["metadata"]["finalizers"] = json!(["x.io/a"]);
    admin.post(NAMESPACES, held).await.ok();
    assert_eq!(admin.delete(&uri).await.ok()["status"]["phase"], "Terminating");
    assert_eq!(admin.get(&uri).await.ok()["status"]["phase"], "Terminating");
    admin.patch(&uri, json!({"metadata": {"finalizers": null}})).await.ok();
    admin.get(&uri).await.refused(404, "NotFound");
}

#[tokio::test]
async fn a_namespace_with_more_in_it_than_one_transaction_takes_goes_too() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    admin.post(NAMESPACES, namespace("n")).await.ok();
    let secrets = format!("{NAMESPACES}/n/secrets");
    let made = admin.post(&secrets, secret("s")).await.ok();
    for hundred in 0..3 {
        let many = (0..100).map(|n| (format!("/secrets/n/s{hundred}-{n}"), object::write(&made)));
        let txn = many.fold(Txn::new(), |txn, (key, object)| txn.put(key, object));
        hub.registry.store().commit(txn).await.unwrap();
    }
    admin.delete(&format!("{NAMESPACES}/n")).await.ok();
    admin.get(&format!("{NAMESPACES}/n")).await.refused(404, "NotFound");
    assert!(hub.registry.store().list("/secrets/n/").0.is_empty());
}
