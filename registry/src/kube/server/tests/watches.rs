//! Watches: what a client is told, in which order, and how a watch ends.

use super::*;

#[tokio::test]
async fn a_watch_tells_of_every_change_after_its_revision() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    admin.post(CLUSTERS, cluster("c0", json!({}))).await.ok();
    let revision = resource_version(&admin.get(CLUSTERS).await.ok());
    let mut watch = admin.opened(&format!("{CLUSTERS}?resourceVersion={revision}")).await;
    assert_eq!(watch.said().await, [""; 0]);
    let made = admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    assert_eq!(watch.next().await, ("ADDED".to_owned(), made));
    let changed = admin.patch(&format!("{CLUSTERS}/c1"), json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert_eq!(watch.next().await, ("MODIFIED".to_owned(), changed.clone()));
    admin.delete(&format!("{CLUSTERS}/c1")).await.ok();
    let (kind, last) = watch.next().await;
    assert_eq!((kind.as_str(), object::name(&last)), ("DELETED", "c1"));
    assert_eq!(last["metadata"]["labels"], changed["metadata"]["labels"]);
    assert_eq!(resource_version(&last), hub.registry.store().revision().0);
    // A change elsewhere is none here.
    admin.post(SECRETS, secret("s")).await.ok();
    assert_eq!(watch.said().await, [""; 0]);
}

#[tokio::test]
async fn without_a_revision_a_watch_begins_with_what_there_is() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    for query in ["", "?resourceVersion=0"] {
        let mut watch = admin.opened(&format!("{CLUSTERS}{query}")).await;
        assert_eq!(watch.said().await, ["ADDED c1"], "{query}");
    }
    let initial =
        format!("{CLUSTERS}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true");
    let told = admin.opened(&initial).await.told().await;
    assert_eq!(told[0].0, "ADDED");
    let (kind, mark) = &told[1];
    assert_eq!((kind.as_str(), told.len()), ("BOOKMARK", 2));
    assert_eq!(mark["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(resource_version(mark), hub.registry.store().revision().0);
    assert_eq!(mark["kind"], "ManagedCluster");
    let none = admin.watch(&format!("{CLUSTERS}?sendInitialEvents=true")).await.map(drop).unwrap_err();
    assert!(matches!(none.code, 400 | 422), "{none:?}");
}

#[tokio::test]
async fn what_leaves_the_selection_is_deleted_and_what_comes_is_added() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let mut blue = admin.opened(&format!("{CLUSTERS}?labelSelector=color%3Dblue")).await;
    let mut one = admin.opened(&format!("{CLUSTERS}?fieldSelector=metadata.name%3Dc1")).await;
    let color = async |name: &str, color: &str| {
        admin.patch(&format!("{CLUSTERS}/{name}"), json!({"metadata": {"labels": {"color": color}}})).await.ok()
    };
    admin.post(CLUSTERS, cluster("c1", json!({"color": "red"}))).await.ok();
    admin.post(CLUSTERS, cluster("c2", json!({"color": "blue"}))).await.ok();
    assert_eq!(blue.said().await, ["ADDED c2"]);
    color("c1", "blue").await;
    assert_eq!(blue.said().await, ["ADDED c1"]);
    let left = color("c1", "green").await;
    let (kind, last) = blue.next().await;
    // Its last state in the selection, with the revision at which it left.
    assert_eq!((kind.as_str(), &last["metadata"]["labels"]["color"]), ("DELETED", &json!("blue")));
    assert_eq!(resource_version(&last), resource_version(&left));
    color("c1", "yellow").await;
    admin.delete(&format!("{CLUSTERS}/c1")).await.ok();
    assert_eq!(blue.said().await, [""; 0]);
    assert_eq!(one.said().await, ["ADDED c1", "MODIFIED c1", "MODIFIED c1", "MODIFIED c1", "DELETED c1"]);
}

#[tokio::test]
async fn a_watch_from_what_is_forgotten_is_gone() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let mut slow = admin.opened(CLUSTERS).await;
    let revision = hub.registry.store().revision().0;
    admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    hub.registry.store().compact(hub.registry.store().revision()).await.unwrap();
    for watch in [&mut slow, &mut admin.opened(&format!("{CLUSTERS}?resourceVersion={revision}")).await] {
        let (kind, status) = watch.next().await;
        assert_eq!((kind.as_str(), &status["code"], &status["reason"]), ("ERROR", &json!(410), &json!("Expired")));
        assert_eq!(watch.0.next().await, None);
    }
    let future = admin.watch(&format!("{CLUSTERS}?resourceVersion={}", revision + 100)).await.map(drop).unwrap_err();
    future.refused(504, "Timeout");
}

#[tokio::test(start_paused = true)]
async fn a_watch_marks_its_place_and_ends_in_time() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let mut watch = admin.opened(&format!("{CLUSTERS}?allowWatchBookmarks=true&timeoutSeconds=100")).await;
    let mut silent = admin.opened(&format!("{CLUSTERS}?timeoutSeconds=100")).await;
    admin.post(SECRETS, secret("s")).await.ok();
    let frame = watch.0.next().await.unwrap();
    let (kind, mark) = event(&frame);
    assert_eq!((kind.as_str(), resource_version(&mark)), ("BOOKMARK", hub.registry.store().revision().0));
    // Once more at the end: the next watch begins there.
    assert_eq!(event(&watch.0.next().await.unwrap()).0, "BOOKMARK");
    assert_eq!(watch.0.next().await, None);
    assert_eq!(silent.0.next().await, None);
}

#[tokio::test]
async fn a_watch_of_a_hub_that_stops_ends_where_the_next_hubs_begins() {
    let hub = Hub::new().await;
    let mut watch = hub.admin().opened(&format!("{CLUSTERS}?allowWatchBookmarks=true")).await;
    let mut silent = hub.admin().opened(CLUSTERS).await;
    hub.registry.close().await;
    let (kind, mark) = watch.next().await;
    assert_eq!((kind.as_str(), resource_version(&mark)), ("BOOKMARK", hub.registry.store().revision().0));
    assert_eq!(watch.0.next().await, None);
    assert_eq!(silent.0.next().await, None);
    hub.admin().post(CLUSTERS, cluster("c1", json!({}))).await.refused(503, "ServiceUnavailable");
}

#[tokio::test]
async fn a_right_that_goes_deletes_what_it_showed() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    for name in ["c1", "c2"] {
        admin.post(CLUSTERS, cluster(name, json!({"team": "a"}))).await.ok();
    }
    admin.post(SETS, set("a", json!({"team": "a"}))).await.ok();
    const GROUP: &str = "cluster.open-cluster-management.io";
    hub.grant("u", "", json!([rule(GROUP, &["managedclustersets"], &["get", "list", "watch"], &["a"])])).await;
    let user = hub.user("u");
    let mut watch = user.opened(CLUSTERS).await;
    assert_eq!(watch.said().await, ["ADDED c1", "ADDED c2"]);
    admin.patch(&format!("{CLUSTERS}/c1"), json!({"metadata": {"labels": {"team": "b"}}})).await.ok();
    let (kind, last) = watch.next().await;
    // Not what it is now: that is no longer theirs to see.
    assert_eq!(
        (kind.as_str(), object::name(&last), &last["metadata"]["labels"]["team"]),
        ("DELETED", "c1", &json!("a"))
    );
    assert_eq!(resource_version(&last), hub.registry.store().revision().0);
    admin.patch(&format!("{CLUSTERS}/c1"), json!({"metadata": {"labels": {"x": "y"}}})).await.ok();
    assert_eq!(watch.said().await, [""; 0]);
    admin.patch(&format!("{CLUSTERS}/c1"), json!({"metadata": {"labels": {"team": "a"}}})).await.ok();
    assert_eq!(watch.said().await, ["ADDED c1"]);
    admin
        .patch(
            &format!("{SETS}/a"),
            json!({"spec": {"clusterSelector": {"labelSelector": {"matchLabels": {"team": "b"}}}}}),
        )
        .await
        .ok();
    assert_eq!(watch.said().await, ["DELETED c1", "DELETED c2"]);
    // The set is empty, and still theirs: there is nothing to see, and nothing to be refused.
    assert_eq!(user.names(CLUSTERS).await, [""; 0]);
    hub.grant("u", "", json!([rule(GROUP, &["managedclusters"], &["list", "watch"], &[])])).await;
    assert_eq!(watch.said().await, ["ADDED c1", "ADDED c2"]);
    hub.grant("u", "", json!([])).await;
    assert_eq!(watch.said().await, ["DELETED c1", "DELETED c2"]);
    user.get(CLUSTERS).await.refused(403, "Forbidden");
}
