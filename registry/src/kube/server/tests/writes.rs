//! Writes: what is stored of what was sent, and which writes are none.

use std::future::poll_fn;
use std::task::Poll;

use super::*;

fn c1() -> String {
    format!("{CLUSTERS}/c1")
}

/// A hub with the cluster `c1`.
async fn with_cluster() -> (Hub, Value) {
    let hub = Hub::new().await;
    let made = hub.admin().post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    (hub, made)
}

#[tokio::test]
async fn the_server_alone_writes_its_metadata() {
    let hub = Hub::new().await;
    let mut sent = cluster("c1", json!({}));
    sent["metadata"]["uid"] = "mine".into();
    sent["metadata"]["generation"] = 7.into();
    sent["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
    sent["metadata"]["deletionTimestamp"] = "2001-01-01T00:00:00Z".into();
    sent["status"] = json!({"version": {"kubernetes": "1.0"}});
    let reply = hub.admin().post(CLUSTERS, sent.clone()).await;
    assert_eq!(reply.code, 201);
    let made = reply.ok();
    assert_ne!(made["metadata"]["uid"], "mine");
    assert_eq!(made["metadata"]["generation"], 1);
    assert_eq!(made["metadata"]["creationTimestamp"], now().to_string());
    assert!(made["metadata"]["deletionTimestamp"].is_null());
    assert!(made["status"]["version"].is_null());
    assert_eq!(made, hub.admin().get(&c1()).await.ok());
    hub.admin().post(CLUSTERS, sent.clone()).await.refused(409, "AlreadyExists");
    sent["metadata"] = json!({"name": "c2", "resourceVersion": "1"});
    hub.admin().post(CLUSTERS, sent).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn a_generated_name_begins_as_was_asked() {
    let hub = Hub::new().await;
    let mut sent = secret("");
    sent["metadata"] = json!({"generateName": "token-"});
    let made = hub.admin().post(SECRETS, sent.clone()).await.ok();
    let name = object::name(&made).to_owned();
    assert!(name.starts_with("token-") && name.len() == "token-".len() + 5, "{name}");
    let other = hub.admin().post(SECRETS, sent).await.ok();
    assert_ne!(object::name(&other), name);
    assert_eq!(hub.admin().names(SECRETS).await.len(), 2);
}

#[tokio::test]
async fn a_dry_run_answers_as_if_and_stores_nothing() {
    let (hub, made) = with_cluster().await;
    let admin = hub.admin();
    let before = hub.registry.store().revision();
    admin.post(&format!("{CLUSTERS}?dryRun=All"), cluster("c2", json!({}))).await.ok();
    admin.post(&format!("{CLUSTERS}?dryRun=All"), cluster("c1", json!({}))).await.refused(409, "AlreadyExists");
    let patched = admin.patch(&format!("{}?dryRun=All", c1()), json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    assert_eq!(patched["metadata"]["labels"]["a"], "b");
    admin.delete(&format!("{}?dryRun=All", c1())).await.ok();
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]});
    admin.send("DELETE", &c1(), &[("content-type", "application/json")], options.to_string()).await.ok();
    assert_eq!(hub.registry.store().revision(), before);
    assert_eq!(admin.get(&c1()).await.ok(), made);
    admin.post(&format!("{CLUSTERS}?dryRun=Some"), cluster("c2", json!({}))).await.refused(422, "Invalid");
}

#[tokio::test]
async fn a_write_of_what_was_read_before_another_write_is_a_conflict() {
    let (hub, mut made) = with_cluster().await;
    let admin = hub.admin();
    admin.patch(&c1(), json!({"metadata": {"labels": {"a": "b"}}})).await.ok();
    let reply = admin.put(&c1(), made.clone()).await;
    assert_eq!(
        reply.failed(),
        (
            409,
            "Conflict",
            "Operation cannot be fulfilled on managedclusters.cluster.open-cluster-management.io \"c1\": the object has \
             been modified; please apply your changes to the latest version and try again"
        )
    );
    let stale = json!({"metadata": {"resourceVersion": made["metadata"]["resourceVersion"]}});
    admin.patch(&c1(), stale).await.refused(409, "Conflict");
    admin.patch(&c1(), json!({"metadata": {"uid": "other"}})).await.refused(409, "Conflict");
    made["metadata"].as_object_mut().unwrap().remove("resourceVersion");
    admin.put(&c1(), made.clone()).await.refused(422, "Invalid");
    made["metadata"]["name"] = "c2".into();
    admin.put(&c1(), made).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn a_write_that_changes_nothing_is_no_write() {
    let (hub, made) = with_cluster().await;
    let admin = hub.admin();
    let before = hub.registry.store().revision();
    assert_eq!(admin.put(&c1(), made.clone()).await.ok(), made);
    assert_eq!(admin.patch(&c1(), json!({})).await.ok(), made);
    assert_eq!(admin.patch(&c1(), json!({"status": {"version": {"kubernetes": "2"}}})).await.ok(), made);
    assert_eq!(hub.registry.store().revision(), before);
    let applied = cluster("c1", json!({"a": "b"}));
    let uri = format!("{}?fieldManager=me", c1());
    let first = admin.apply(&uri, applied.clone()).await.ok();
    assert_eq!(admin.apply(&uri, applied).await.ok(), first);
    assert_eq!(hub.registry.store().revision().0, before.0 + 1);
}

#[tokio::test]
async fn the_generation_counts_the_changes_of_what_is_wanted() {
    let (hub, _) = with_cluster().await;
    let admin = hub.admin();
    let generation = |object: Value| object["metadata"]["generation"].as_u64().unwrap();
    assert_eq!(generation(admin.patch(&c1(), json!({"metadata": {"labels": {"a": "b"}}})).await.ok()), 1);
    assert_eq!(generation(admin.patch(&c1(), json!({"spec": {"hubAcceptsClient": true}})).await.ok()), 2);
    let status = json!({"status": {"version": {"kubernetes": "v1.30.0"}}});
    assert_eq!(generation(admin.patch(&format!("{}/status", c1()), status).await.ok()), 2);
}

#[tokio::test]
async fn the_status_is_written_by_its_own_path_and_says_nothing_of_agents() {
    let (hub, _) = with_cluster().await;
    let admin = hub.admin();
    let agent =
        json!({"name": "a", "key": format!("sha256:{:064}", 0), "phase": "Accepted", "requestedAt": now().to_string()});
    let status = json!({
        "metadata": {"labels": {"a": "b"}}, "spec": {"hubAcceptsClient": true},
        "status": {"agents": [agent], "lastSeen": now().to_string(), "version": {"kubernetes": "v1.30.0"}},
    });
    for uri in [c1(), format!("{}/status", c1())] {
        admin.patch(&uri, json!({"status": status["status"]})).await.ok();
    }
    let written = admin.patch(&format!("{}/status", c1()), status).await.ok();
    assert_eq!(written["status"]["version"]["kubernetes"], "v1.30.0");
    assert!(written["status"]["agents"].as_array().is_none_or(Vec::is_empty), "{written}");
    assert!(written["status"]["lastSeen"].is_null());
    assert_eq!(written["spec"]["hubAcceptsClient"], false);
    assert!(written["metadata"]["labels"]["a"].is_null());
    let mut sent = written.clone();
    sent["status"] = json!({"agents": [agent]});
    let put = admin.put(&format!("{}/status", c1()), sent).await.ok();
    assert!(put["status"]["agents"].as_array().is_none_or(Vec::is_empty), "{put}");
    let applied = json!({
        "apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster", "metadata": {"name": "c1"},
        "status": {"agents": [agent]},
    });
    let applied = admin.apply(&format!("{}/status?fieldManager=me", c1()), applied).await.ok();
    assert!(applied["status"]["agents"].as_array().is_none_or(Vec::is_empty), "{applied}");
    assert!(hub.registry.cluster(&"c1".parse().unwrap()).unwrap().status.agents.is_empty());
    assert_eq!(admin.get(&format!("{}/status", c1())).await.ok()["kind"], "ManagedCluster");
}

#[tokio::test]
async fn unknown_and_repeated_fields_are_refused_or_warned_of_or_left_out() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let body = |name: &str| {
        format!(
            r#"{{"apiVersion":"cluster.open-cluster-management.io/v1","kind":"ManagedCluster","metadata":{{"name":"{name}"}},
            "spec":{{"foo":1,"leaseDurationSeconds":5,"leaseDurationSeconds":6}}}}"#
        )
    };
    let send = async |name: &str, query: &str| {
        admin.send("POST", &format!("{CLUSTERS}?{query}"), &[("content-type", "application/json")], body(name)).await
    };
    let strict = send("c1", "fieldValidation=Strict").await;
    assert_eq!(
        strict.failed(),
        (
            400,
            "BadRequest",
            "strict decoding error: duplicate field \"spec.leaseDurationSeconds\", unknown field \"spec.foo\""
        )
    );
    let warned = send("c1", "fieldValidation=Warn").await;
    let warnings: Vec<_> =
        warned.headers.get_all(header::WARNING).iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(
        warnings,
        [r#"299 - "duplicate field \"spec.leaseDurationSeconds\"""#, r#"299 - "unknown field \"spec.foo\"""#]
    );
    let stored = warned.ok();
    assert_eq!((&stored["spec"]["foo"], &stored["spec"]["leaseDurationSeconds"]), (&Value::Null, &json!(6)));
    let ignored = send("c2", "fieldValidation=Ignore").await;
    assert!(!ignored.headers.contains_key(header::WARNING));
    assert!(ignored.ok()["spec"]["foo"].is_null());
    send("c3", "fieldValidation=Often").await.refused(422, "Invalid");
    let patch = admin.patch(&format!("{}?fieldValidation=Strict", c1()), json!({"spec": {"foo": 1}})).await;
    assert_eq!(patch.failed().0, 400, "{patch:?}");
    let patch = admin.patch(&c1(), json!({"spec": {"foo": 1}})).await;
    assert_eq!(patch.headers[header::WARNING], r#"299 - "unknown field \"spec.foo\"""#);
}

#[tokio::test]
async fn an_object_of_another_kind_or_place_is_refused() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    for (field, value) in [("kind", "ManagedClusterSet"), ("apiVersion", "v1"), ("kind", ""), ("apiVersion", "")] {
        let mut sent = cluster("c1", json!({}));
        sent[field] = value.into();
        admin.post(CLUSTERS, sent).await.refused(400, "BadRequest");
    }
    let mut sent = secret("s");
    sent["metadata"]["namespace"] = "other".into();
    admin.post(SECRETS, sent).await.refused(400, "BadRequest");
    admin.post(&SECRETS.replace("default", "gone"), secret("s")).await.refused(404, "NotFound");
    admin.post(CLUSTERS, cluster("UPPER", json!({}))).await.refused(422, "Invalid");
    admin.post(CLUSTERS, cluster("a.b", json!({}))).await.refused(422, "Invalid");
    admin.post(CLUSTERS, cluster("", json!({}))).await.refused(422, "Invalid");
    for metadata in [json!(null), json!("c1"), json!([]), json!({"name": 5}), json!({"name": "c1", "labels": "x"})] {
        let mut sent = cluster("c1", json!({}));
        sent["metadata"] = metadata;
        let code = admin.post(CLUSTERS, sent.clone()).await.failed().0;
        assert!(matches!(code, 400 | 422), "{code} {sent}");
    }
    for spec in
        [json!("x"), json!([1]), json!({"taints": [null]}), json!({"taints": "x"}), json!({"hubAcceptsClient": 1})]
    {
        let mut sent = cluster("c1", json!({}));
        sent["spec"] = spec;
        let code = admin.post(CLUSTERS, sent.clone()).await.failed().0;
        assert!(matches!(code, 400 | 422), "{code} {sent}");
    }
    assert_eq!(admin.names(CLUSTERS).await, [""; 0]);
}

#[tokio::test]
async fn an_apply_makes_an_object_and_names_its_manager() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    admin.apply(&c1(), cluster("c1", json!({}))).await.refused(422, "Invalid");
    let uri = |manager: &str| format!("{}?fieldManager={manager}", c1());
    let made = admin.apply(&uri("one"), cluster("c1", json!({"a": "1"}))).await;
    assert_eq!(made.code, 201);
    assert_eq!(made.body["metadata"]["managedFields"][0]["manager"], "one");
    let conflict = admin.apply(&uri("two"), cluster("c1", json!({"a": "2"}))).await;
    conflict.refused(409, "Conflict");
    assert_eq!(conflict.body["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let forced = admin.apply(&format!("{}&force=true", uri("two")), cluster("c1", json!({"a": "2"}))).await.ok();
    assert_eq!(forced["metadata"]["labels"]["a"], "2");
    admin.apply(&format!("{CLUSTERS}/c2?fieldManager=one"), cluster("c1", json!({}))).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn writes_at_once_are_all_done() {
    let (hub, _) = with_cluster().await;
    let admin = hub.admin();
    let one = async |n: u8| admin.patch(&c1(), json!({"metadata": {"labels": {format!("l{n}"): "x"}}})).await.ok();
    let mut patches: Vec<_> = (0..20).map(|n| Box::pin(one(n))).collect();
    poll_fn(|context| {
        patches.retain_mut(|patch| patch.as_mut().poll(context).is_pending());
        if patches.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    let labels = admin.get(&c1()).await.ok()["metadata"]["labels"].as_object().unwrap().len();
    assert_eq!(labels, 21);
}

#[tokio::test]
async fn texts_of_a_secret_are_stored_as_its_data() {
    let hub = Hub::new().await;
    let mut sent = secret("s");
    sent["stringData"] = json!({"a": "plain"});
    sent["data"] = json!({"a": "AAAA", "b": "Qg=="});
    let made = hub.admin().post(SECRETS, sent).await.ok();
    assert_eq!(made["data"], json!({"a": "cGxhaW4=", "b": "Qg=="}));
    assert!(made["stringData"].is_null());
    let patched = hub.admin().patch(&format!("{SECRETS}/s"), json!({"stringData": {"b": "c"}})).await.ok();
    assert_eq!(patched["data"], json!({"a": "cGxhaW4=", "b": "Yw=="}));
    hub.admin().patch(&format!("{SECRETS}/s"), json!({"immutable": true})).await.ok();
    hub.admin().patch(&format!("{SECRETS}/s"), json!({"stringData": {"b": "d"}})).await.refused(422, "Invalid");
    hub.admin().patch(&format!("{SECRETS}/s"), json!({"type": "other"})).await.refused(422, "Invalid");
}

#[test]
fn the_path_says_the_type_that_a_typed_client_leaves_out() {
    let role = resource::find("rbac.authorization.k8s.io", "v1", "roles").unwrap();
    let typed = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role"});
    let other = json!({"apiVersion": "v1", "kind": "Secret"});
    for (sent, completed) in [
        (json!({}), &typed),
        (json!({"apiVersion": "", "kind": null}), &typed),
        (json!({"kind": "Role"}), &typed),
        (other.clone(), &other),
    ] {
        let mut object = sent.as_object().unwrap().clone();
        complete_type(&mut object, role);
        assert_eq!(Value::Object(object), *completed, "{sent}");
    }
}
