//! Rights: who is refused, in which words, who speaks for whom, and that nobody gives away what they do not hold.

use super::*;

const GROUP: &str = "cluster.open-cluster-management.io";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

fn role(name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules})
}

fn binding(name: &str, role: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "User", "name": "x"}],
    })
}

#[tokio::test]
async fn a_refusal_names_the_missing_right() {
    let hub = Hub::new().await;
    let user = hub.user("u");
    assert_eq!(
        user.get(&format!("{CLUSTERS}/c1")).await.failed(),
        (
            403,
            "Forbidden",
            "managedclusters.cluster.open-cluster-management.io \"c1\" is forbidden: User \"u\" cannot get resource \
             \"managedclusters\" in API group \"cluster.open-cluster-management.io\" at the cluster scope"
        )
    );
    let listed = user.get(SECRETS).await;
    assert_eq!(
        listed.failed().2,
        "secrets is forbidden: User \"u\" cannot list resource \"secrets\" in API group \"\" in the namespace \"default\""
    );
    assert_eq!(listed.body["details"]["kind"], "secrets");
    user.watch(CLUSTERS).await.map(drop).unwrap_err().refused(403, "Forbidden");
    // What the body says is looked at only for those who may write.
    user.send("POST", CLUSTERS, &[("content-type", "text/plain")], "").await.refused(403, "Forbidden");
    user.delete(CLUSTERS).await.refused(403, "Forbidden");
    let status = user.patch(&format!("{CLUSTERS}/c1/status"), json!({})).await;
    assert!(status.failed().2.contains("cannot patch resource \"managedclusters/status\""), "{status:?}");
}

#[tokio::test]
async fn who_may_get_one_by_name_may_also_watch_it_by_name() {
    let hub = Hub::new().await;
    for name in ["c1", "c2"] {
        hub.admin().post(CLUSTERS, cluster(name, json!({}))).await.ok();
    }
    hub.grant("u", "", json!([rule(GROUP, &["managedclusters"], &["get", "list", "watch"], &["c1"])])).await;
    let user = hub.user("u");
    assert_eq!(user.names(CLUSTERS).await, ["c1"]);
    assert_eq!(user.names(&format!("{CLUSTERS}?fieldSelector=metadata.name%3Dc2")).await, [""; 0]);
    let mut watch = user.opened(&format!("{CLUSTERS}?fieldSelector=metadata.name%3Dc1")).await;
    assert_eq!(watch.said().await, ["ADDED c1"]);
    user.get(&format!("{CLUSTERS}/c2")).await.refused(403, "Forbidden");
    // A page tells nothing of what is hidden.
    let page = user.get(&format!("{CLUSTERS}?limit=1")).await.ok();
    assert!(page["metadata"]["continue"].is_null() && page["metadata"]["remainingItemCount"].is_null());
}

#[tokio::test]
async fn a_workspace_shows_the_clusters_of_its_bound_sets() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    admin.post(CLUSTERS, cluster("c1", json!({"team": "a"}))).await.ok();
    admin.post(CLUSTERS, cluster("c2", json!({}))).await.ok();
    admin.post(SETS, set("a", json!({"team": "a"}))).await.ok();
    admin.post(NAMESPACES, namespace("team")).await.ok();
    let bindings = format!("/apis/{GROUP}/v1beta2/namespaces/team/managedclustersetbindings");
    let rules = json!([rule(GROUP, &["managedclusters", "managedclustersets"], &["get", "list", "watch"], &[])]);
    hub.grant("u", "team", rules).await;
    let user = hub.user("u");
    user.get(CLUSTERS).await.refused(403, "Forbidden");
    admin.post(&bindings, set_binding("a")).await.ok();
    assert_eq!(user.names(CLUSTERS).await, ["c1"]);
    assert_eq!(user.names(SETS).await, ["a"]);
    user.get(&format!("{CLUSTERS}/c1")).await.ok();
    user.get(&format!("{CLUSTERS}/c2")).await.refused(403, "Forbidden");
    admin.delete(&format!("{bindings}/a")).await.ok();
    user.get(&format!("{CLUSTERS}/c1")).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn who_impersonates_needs_the_right_to_each_of_the_names() {
    let hub = Hub::new().await;
    let whoami = async |client: &Client<'_>, headers: &[(&str, &str)]| {
        let headers = [&[("content-type", "application/json")], headers].concat();
        let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
        client.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &headers, body.to_string()).await
    };
    let user = hub.user("u");
    let refused = whoami(&user, &[("impersonate-user", "v")]).await;
    assert_eq!(
        refused.failed(),
        (
            403,
            "Forbidden",
            "users \"v\" is forbidden: User \"u\" cannot impersonate resource \"users\" in API group \"\" at the cluster \
             scope"
        )
    );
    hub.grant("u", "", json!([rule("", &["users"], &["impersonate"], &["v"])])).await;
    let taken = whoami(&user, &[("impersonate-user", "v")]).await.ok();
    assert_eq!(taken["status"]["userInfo"], json!({"username": "v", "groups": ["system:authenticated"]}));
    let masters = whoami(&user, &[("impersonate-user", "v"), ("impersonate-group", MASTERS)]).await;
    masters.refused(403, "Forbidden");
    whoami(&user, &[("impersonate-user", "v"), ("impersonate-uid", "1")]).await.refused(403, "Forbidden");
    whoami(&user, &[("impersonate-user", "v"), ("impersonate-extra-a", "1")]).await.refused(403, "Forbidden");
    whoami(&user, &[("impersonate-group", "g")]).await.refused(400, "BadRequest");
    whoami(&user, &[("impersonate-user", "")]).await.refused(400, "BadRequest");
    let admin = hub.admin();
    // What another hop would take for another name, who may do everything does not say either.
    for other in [
        [("impersonate-group", " system:masters")].as_slice(),
        &[("impersonate-group", "system:masters ")],
        &[("impersonate-group", "\tg")],
        &[("impersonate-group", "")],
        &[("impersonate-group", "\u{a0}g")],
        &[("impersonate-uid", "1"), ("impersonate-uid", "2")],
        &[("impersonate-extra-a", " 1")],
        &[("impersonate-extra-", "1")],
        &[("impersonate-extra-%20a", "1")],
        &[("impersonate-extra-a%0a", "1")],
        &[("impersonate-extra-%41", "1")],
    ] {
        whoami(&admin, &[&[("impersonate-user", "w")], other].concat()).await.refused(400, "BadRequest");
    }
    for user in [" w", "w ", " system:admin", "w\t"] {
        whoami(&admin, &[("impersonate-user", user)]).await.refused(400, "BadRequest");
    }
    let headers = [("impersonate-user", "w"), ("impersonate-group", "g"), ("impersonate-extra-a%2fb", "1")];
    let taken = whoami(&admin, &headers).await.ok();
    assert_eq!(
        taken["status"]["userInfo"],
        json!({"username": "w", "groups": ["g", "system:authenticated"], "extra": {"a/b": ["1"]}})
    );
    // Who is taken for somebody else has their rights and no others.
    admin.send("GET", CLUSTERS, &[("impersonate-user", "w")], "").await.refused(403, "Forbidden");
}

#[tokio::test]
async fn nobody_writes_a_role_beyond_their_own_rights() {
    let hub = Hub::new().await;
    let roles = format!("{RBAC}/clusterroles");
    let secrets = json!([rule("", &["secrets"], &["get"], &[])]);
    let write = rule(RBAC_GROUP, &["clusterroles"], &["create", "update", "patch"], &[]);
    hub.grant("u", "", json!([write, rule("", &["events"], &["get"], &[])])).await;
    let user = hub.user("u");
    let refused = user.post(&roles, role("r", secrets.clone())).await;
    refused.refused(403, "Forbidden");
    let message = refused.failed().2;
    assert!(
        message.contains("is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"]"),
        "{message}"
    );
    user.post(&roles, role("r", json!([rule("", &["events"], &["get"], &[])]))).await.ok();
    user.patch(&format!("{roles}/r"), json!({"rules": secrets})).await.refused(403, "Forbidden");
    user.patch(&format!("{roles}/r"), json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    let mut gathered = role("g", json!([]));
    gathered["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    user.post(&roles, gathered).await.refused(403, "Forbidden");
    hub.grant("u", "", json!([write, rule(RBAC_GROUP, &["clusterroles"], &["escalate"], &["r"])])).await;
    user.patch(&format!("{roles}/r"), json!({"rules": secrets})).await.ok();
    user.post(&roles, role("s", secrets)).await.refused(403, "Forbidden");
}

#[tokio::test]
async fn nobody_binds_a_role_beyond_their_own_rights() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let bindings = format!("{RBAC}/clusterrolebindings");
    admin.post(&format!("{RBAC}/clusterroles"), role("r", json!([rule("", &["secrets"], &["get"], &[])]))).await.ok();
    let write = rule(RBAC_GROUP, &["clusterrolebindings"], &["create", "update", "patch"], &[]);
    hub.grant("u", "", json!([write])).await;
    let user = hub.user("u");
    user.post(&bindings, binding("b", "r")).await.refused(403, "Forbidden");
    user.post(&bindings, binding("b", "none")).await.refused(404, "NotFound");
    hub.grant("u", "", json!([write, rule(RBAC_GROUP, &["clusterroles"], &["bind"], &["r"])])).await;
    let made = user.post(&bindings, binding("b", "r")).await.ok();
    assert_eq!(made["subjects"][0]["apiGroup"], RBAC_GROUP);
    user.post(&bindings, binding("c", "cluster-admin")).await.refused(403, "Forbidden");
    let other = json!({"roleRef": {"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": "cluster-admin"}});
    admin.patch(&format!("{bindings}/b"), other).await.refused(422, "Invalid");
    hub.grant("u", "", json!([write])).await;
    user.patch(&format!("{bindings}/b"), json!({"subjects": [{"kind": "User", "name": "u"}]}))
        .await
        .refused(403, "Forbidden");
    user.patch(&format!("{bindings}/b"), json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
}

#[tokio::test]
async fn an_apply_of_what_is_not_there_needs_the_right_to_create() {
    let hub = Hub::new().await;
    hub.grant("u", "", json!([rule(GROUP, &["managedclusters"], &["patch"], &[])])).await;
    let user = hub.user("u");
    let uri = format!("{CLUSTERS}/c1?fieldManager=me");
    user.apply(&uri, cluster("c1", json!({}))).await.refused(403, "Forbidden");
    hub.admin().post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    user.apply(&uri, cluster("c1", json!({"a": "b"}))).await.ok();
}

#[tokio::test]
async fn reviews_answer_what_the_rules_say() {
    let hub = Hub::new().await;
    hub.grant("u", "", json!([rule(GROUP, &["managedclusters"], &["get"], &["c1"])])).await;
    let review = async |name: &str| {
        let body = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "get", "group": GROUP, "resource": "managedclusters", "name": name}},
        });
        let reply = hub.user("u").post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body).await;
        assert_eq!(reply.code, 201);
        reply.body["status"]["allowed"].clone()
    };
    assert_eq!((review("c1").await, review("c2").await), (json!(true), json!(false)));
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "cpu-x.y"}});
    let uri = "/apis/authentication.k8s.io/v1/tokenreviews";
    hub.user("u").post(uri, body.clone()).await.refused(403, "Forbidden");
    let answered = hub.admin().post(uri, body).await.ok();
    assert!(answered["status"]["authenticated"].is_null() && answered["spec"]["token"] == "", "{answered}");
}
