//! Admission: OCM's rules for accepting clusters and for moving them between sets, and the two sets that always exist.

use super::*;

const GROUP: &str = "cluster.open-cluster-management.io";

/// A user who may write clusters and sets, and what else is given.
async fn writer<'a>(hub: &'a Hub, more: &[Value]) -> Client<'a> {
    let all = rule(GROUP, &["managedclusters", "managedclustersets", "managedclustersetbindings"], &["*"], &[]);
    hub.grant("w", "", json!([&[all], more].concat())).await;
    hub.user("w")
}

fn join(sets: &[&str]) -> Value {
    rule(GROUP, &["managedclustersets/join"], &["create"], sets)
}

#[tokio::test]
async fn accepting_a_cluster_is_a_right_of_its_own() {
    let hub = Hub::new().await;
    let user = writer(&hub, &[]).await;
    let mut accepted = cluster("c1", json!({}));
    accepted["spec"]["hubAcceptsClient"] = true.into();
    let refused = user.post(CLUSTERS, accepted.clone()).await;
    assert_eq!(
        refused.failed().2,
        "managedclusters.cluster.open-cluster-management.io \"c1\" is forbidden: user \"w\" cannot update the \
         HubAcceptsClient field"
    );
    user.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    let uri = format!("{CLUSTERS}/c1");
    let accept = |value: bool| json!({"spec": {"hubAcceptsClient": value}});
    user.patch(&uri, accept(true)).await.refused(403, "Forbidden");
    let right = rule("register.open-cluster-management.io", &["managedclusters/accept"], &["update"], &["c1"]);
    let user = writer(&hub, &[right]).await;
    let condition = |object: &Value| {
        let conditions = object["status"]["conditions"].as_array().unwrap();
        let found = conditions.iter().find(|condition| condition["type"] == "HubAcceptedManagedCluster").unwrap();
        (found["status"].clone(), found["reason"].clone(), found["message"].clone())
    };
    let accepted = user.patch(&uri, accept(true)).await.ok();
    assert_eq!(
        condition(&accepted),
        (json!("True"), json!("HubClusterAdminAccepted"), json!("Accepted by hub cluster admin"))
    );
    // To take it back needs no right beyond that to write.
    let user = writer(&hub, &[]).await;
    let denied = user.patch(&uri, accept(false)).await.ok();
    assert_eq!(
        condition(&denied),
        (json!("False"), json!("HubClusterAdminDenied"), json!("Denied by hub cluster admin"))
    );
}

#[tokio::test]
async fn a_cluster_whose_namespace_goes_is_not_accepted() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let mut held = namespace("c1");
    held["metadata"]["finalizers"] = json!(["x.io/a"]);
    admin.post(NAMESPACES, held).await.ok();
    admin.delete(&format!("{NAMESPACES}/c1")).await.ok();
    admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    let refused = admin.patch(&format!("{CLUSTERS}/c1"), json!({"spec": {"hubAcceptsClient": true}})).await;
    refused.refused(403, "Forbidden");
    assert!(refused.failed().2.ends_with("cluster namespace \"c1\" is terminating"), "{refused:?}");
}

#[tokio::test]
async fn who_moves_a_cluster_may_join_both_sets() {
    let hub = Hub::new().await;
    const LABEL: &str = "cluster.open-cluster-management.io/clusterset";
    let user = writer(&hub, &[]).await;
    let made = user.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    assert_eq!(made["metadata"]["labels"][LABEL], "default");
    let uri = format!("{CLUSTERS}/c1");
    let to = |set: &str| json!({"metadata": {"labels": {LABEL: set}}});
    let refused = user.patch(&uri, to("a")).await;
    refused.refused(403, "Forbidden");
    let message = refused.failed().2;
    assert!(message.contains("user \"w\" cannot add/remove a ManagedCluster to/from ManagedClusterSet"), "{message}");
    writer(&hub, &[join(&["a"])]).await.patch(&uri, to("a")).await.refused(403, "Forbidden");
    writer(&hub, &[join(&["default"])]).await.patch(&uri, to("a")).await.refused(403, "Forbidden");
    let user = writer(&hub, &[join(&["a", "default"])]).await;
    user.patch(&uri, to("a")).await.ok();
    user.post(CLUSTERS, cluster("c2", json!({LABEL: "b"}))).await.refused(403, "Forbidden");
    // Without the label it is in the default set again.
    let back = user.patch(&uri, json!({"metadata": {"labels": {LABEL: null}}})).await.ok();
    assert_eq!(back["metadata"]["labels"][LABEL], "default");
}

#[tokio::test]
async fn a_label_that_a_set_selects_moves_a_cluster_too() {
    let hub = Hub::new().await;
    hub.admin().post(SETS, set("prod", json!({"env": "prod"}))).await.ok();
    let user = writer(&hub, &[]).await;
    user.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    let uri = format!("{CLUSTERS}/c1");
    let env = |env: Value| json!({"metadata": {"labels": {"env": env}}});
    user.patch(&uri, env(json!("prod"))).await.refused(403, "Forbidden");
    user.post(CLUSTERS, cluster("c2", json!({"env": "prod"}))).await.refused(403, "Forbidden");
    user.patch(&uri, env(json!("dev"))).await.ok();
    writer(&hub, &[join(&["prod"])]).await.patch(&uri, env(json!("prod"))).await.ok();
    writer(&hub, &[]).await.patch(&uri, env(Value::Null)).await.refused(403, "Forbidden");
    // The other way round: a selector that takes clusters in.
    user.post(SETS, set("all", json!({}))).await.refused(403, "Forbidden");
    let user = writer(&hub, &[join(&["all"])]).await;
    user.post(SETS, set("all", json!({}))).await.ok();
    let narrower = json!({"spec": {"clusterSelector": {"labelSelector": {"matchLabels": {"a": "b"}}}}});
    user.patch(&format!("{SETS}/all"), narrower.clone()).await.ok();
    writer(&hub, &[]).await.patch(&format!("{SETS}/prod"), narrower).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn the_sets_that_always_exist_stay_what_they_are() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    assert_eq!(admin.names(SETS).await, ["default", "global"]);
    for name in ["default", "global"] {
        let uri = format!("{SETS}/{name}");
        admin.delete(&uri).await.refused(403, "Forbidden");
        let narrower = json!({"spec": {"clusterSelector": {"selectorType": "LabelSelector", "labelSelector": {"matchLabels": {"a": "b"}}}}});
        admin.patch(&uri, narrower).await.refused(403, "Forbidden");
        admin.patch(&uri, json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    }
    admin.delete(&format!("{SETS}?labelSelector=a%3Db")).await.refused(403, "Forbidden");
    assert_eq!(admin.names(SETS).await, ["default", "global"]);
    let plain = json!({"apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet", "metadata": {"name": "s"}});
    let made = admin.post(SETS, plain).await.ok();
    assert_eq!(made["spec"]["clusterSelector"]["selectorType"], "ExclusiveClusterSetLabel");
    admin.delete(&format!("{SETS}/s")).await.ok();
}

#[tokio::test]
async fn a_binding_is_named_as_its_set_and_needs_the_right_to_bind_it() {
    let hub = Hub::new().await;
    let uri = format!("/apis/{GROUP}/v1beta2/namespaces/default/managedclustersetbindings");
    let user = writer(&hub, &[]).await;
    let refused = user.post(&uri, set_binding("a")).await;
    assert!(refused.failed().2.ends_with("user \"w\" is not allowed to bind cluster set \"a\""), "{refused:?}");
    let user = writer(&hub, &[rule(GROUP, &["managedclustersets/bind"], &["create"], &["a"])]).await;
    let mut other = set_binding("a");
    other["metadata"]["name"] = "b".into();
    let refused = user.post(&uri, other).await;
    let text = "The ManagedClusterSetBinding must have the same name as the target ManagedClusterSet";
    assert_eq!(refused.failed(), (400, "BadRequest", text));
    user.post(&uri, set_binding("a")).await.ok();
    user.patch(&format!("{uri}/a"), json!({"spec": {"clusterSet": "b"}})).await.refused(400, "BadRequest");
    writer(&hub, &[]).await.patch(&format!("{uri}/a"), json!({"metadata": {"labels": {"x": "y"}}})).await.ok();
    writer(&hub, &[]).await.delete(&format!("{uri}/a")).await.ok();
}

#[tokio::test]
async fn addresses_of_a_cluster_are_https() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let with = |url: &str| {
        let mut cluster = cluster("c1", json!({}));
        cluster["spec"]["managedClusterClientConfigs"] = json!([{"url": url}]);
        cluster
    };
    for url in ["http://c1:6443", "c1:6443", "", "https://", "ftp://c1", " https://c1"] {
        admin.post(CLUSTERS, with(url)).await.refused(400, "BadRequest");
    }
    admin.post(CLUSTERS, with("https://c1:6443")).await.ok();
}

#[tokio::test]
async fn the_server_says_since_when_a_taint_stands() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let uri = format!("{CLUSTERS}/c1");
    admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    let taint = |added: Value| json!({"key": "k", "value": "v", "effect": "NoSelect", "timeAdded": added});
    let taints = |taints: Value| json!({"spec": {"taints": taints}});
    let early = json!("2001-01-01T00:00:00Z");
    let refused = admin.patch(&uri, taints(json!([taint(early.clone())]))).await;
    assert_eq!(refused.failed(), (400, "BadRequest", "It is not allowed to set TimeAdded of Taint \"k\"."));
    let added = admin.patch(&uri, taints(json!([taint(Value::Null)]))).await.ok();
    assert_eq!(added["spec"]["taints"][0]["timeAdded"], now().to_string());
    // Said again it is the same taint, also for who says nothing of its time.
    let same = admin.patch(&uri, taints(json!([{"key": "k", "value": "v", "effect": "NoSelect"}]))).await.ok();
    assert_eq!(same, added);
    admin.patch(&uri, taints(json!([taint(early)]))).await.refused(400, "BadRequest");
}
