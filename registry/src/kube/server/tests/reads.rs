//! Lists: pages of one moment, selectors, and revisions that are too old or too new.

use super::*;

async fn with_clusters(count: usize) -> Hub {
    let hub = Hub::new().await;
    for n in 0..count {
        let env = if n % 2 == 0 { "even" } else { "odd" };
        hub.admin().post(CLUSTERS, cluster(&format!("c{n}"), json!({"env": env}))).await.ok();
    }
    hub
}

#[tokio::test]
async fn pages_show_one_moment_although_it_has_passed() {
    let hub = with_clusters(5).await;
    let admin = hub.admin();
    let first = admin.get(&format!("{CLUSTERS}?limit=2")).await.ok();
    assert_eq!(names(&first), ["c0", "c1"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    admin.delete(&format!("{CLUSTERS}/c2")).await.ok();
    admin.post(CLUSTERS, cluster("c22", json!({}))).await.ok();
    let next = |page: &Value| format!("{CLUSTERS}?limit=2&continue={}", page["metadata"]["continue"].as_str().unwrap());
    let second = admin.get(&next(&first)).await.ok();
    assert_eq!(names(&second), ["c2", "c3"]);
    let third = admin.get(&next(&second)).await.ok();
    assert_eq!(names(&third), ["c4"]);
    assert!(third["metadata"]["continue"].is_null() && third["metadata"]["remainingItemCount"].is_null());
    for page in [&second, &third] {
        assert_eq!(page["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    }
    // Forgotten: the list begins anew.
    hub.registry.store().compact(hub.registry.store().revision()).await.unwrap();
    admin.get(&next(&first)).await.refused(410, "Expired");
    admin.get(&format!("{CLUSTERS}?limit=2&continue=x")).await.refused(400, "BadRequest");
    // A page of other objects is no page of these.
    let secrets = next(&first).replace(CLUSTERS, SECRETS);
    admin.get(&secrets).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn selectors_choose_by_label_and_by_field() {
    let hub = with_clusters(4).await;
    let admin = hub.admin();
    for (query, expected) in [
        ("labelSelector=env%3Deven", vec!["c0", "c2"]),
        ("labelSelector=env+notin+(even)", vec!["c1", "c3"]),
        ("labelSelector=!env", vec![]),
        ("fieldSelector=metadata.name%3Dc3", vec!["c3"]),
        ("fieldSelector=metadata.name!%3Dc3&labelSelector=env%3Dodd", vec!["c1"]),
        ("labelSelector=env%3Deven&limit=1", vec!["c0"]),
    ] {
        let list = admin.get(&format!("{CLUSTERS}?{query}")).await.ok();
        assert_eq!(names(&list), expected, "{query}");
        // Nobody has counted them.
        assert!(list["metadata"]["remainingItemCount"].is_null(), "{query}");
    }
    admin.get(&format!("{CLUSTERS}?labelSelector=a%3D%3D%3Db")).await.refused(400, "BadRequest");
    admin.get(&format!("{CLUSTERS}?fieldSelector=spec.x%3Db")).await.refused(400, "BadRequest");
    admin.get(&format!("{CLUSTERS}?limit=x")).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn a_revision_can_be_asked_for_while_it_is_known() {
    let hub = with_clusters(2).await;
    let admin = hub.admin();
    let list = admin.get(CLUSTERS).await.ok();
    let revision = resource_version(&list);
    admin.delete(&format!("{CLUSTERS}/c0")).await.ok();
    let exact = format!("{CLUSTERS}?resourceVersion={revision}&resourceVersionMatch=Exact");
    assert_eq!(admin.get(&exact).await.ok(), list);
    let newer = format!("{CLUSTERS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan");
    assert_eq!(admin.names(&newer).await, ["c1"]);
    assert_eq!(admin.names(&format!("{CLUSTERS}?resourceVersion=0")).await, ["c1"]);
    let future = admin.get(&format!("{CLUSTERS}?resourceVersion={}", revision + 100)).await;
    future.refused(504, "Timeout");
    assert_eq!(future.body["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(future.headers[header::RETRY_AFTER], "1");
    hub.registry.store().compact(hub.registry.store().revision()).await.unwrap();
    admin.get(&exact).await.refused(410, "Expired");
    admin.get(&format!("{CLUSTERS}?resourceVersion=x")).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn a_role_that_is_put_together_shows_what_it_holds() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let role = |name: &str, extra: Value| {
        let mut role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "metadata": {"name": name, "labels": {"part": name}}, "rules": [],
        });
        role.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        role
    };
    let roles = format!("{RBAC}/clusterroles");
    let part = rule("", &["secrets"], &["get"], &[]);
    admin.post(&roles, role("part", json!({"rules": [part]}))).await.ok();
    let selectors = json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "part"}}]}});
    admin.post(&roles, role("whole", selectors)).await.ok();
    let rules = admin.get(&format!("{roles}/whole")).await.ok()["rules"].clone();
    assert_eq!((&rules[0]["resources"][0], &rules[1]), (&json!("secrets"), &Value::Null));
    let list = admin.get(&format!("{roles}?labelSelector=part%3Dwhole")).await.ok();
    assert_eq!(list["items"][0]["rules"], rules);
}
