//! Paths, verbs and forms: what is served where, and what is said to those who ask for something else.

use super::*;

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

#[tokio::test]
async fn what_is_not_served_is_not_found() {
    let hub = Hub::new().await;
    for path in [
        "/apis/apps/v1/deployments",
        "/apis/cluster.open-cluster-management.io/v1/managedclustersets",
        "/apis/cluster.open-cluster-management.io/v1/namespaces/default/managedclusters",
        "/apis/cluster.open-cluster-management.io/v1/managedclusters/c1/scale",
        "/api/v2/secrets",
        "/nothing",
        "/openapi/v3/apis/none/v1",
        "/%ff",
    ] {
        hub.admin().get(path).await.refused(404, "NotFound");
    }
    // Who may not even ask is told that.
    hub.user("u").get("/nothing").await.refused(403, "Forbidden");
    hub.client("system:anonymous", &[]).get("/metrics").await.refused(403, "Forbidden");
}

#[tokio::test]
async fn a_resource_takes_only_its_verbs() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    for (method, path) in [
        ("PUT", CLUSTERS),
        ("PATCH", CLUSTERS),
        ("OPTIONS", CLUSTERS),
        ("POST", &format!("{CLUSTERS}/c1")),
        ("POST", &format!("{CLUSTERS}/c1/status")),
        ("DELETE", &format!("{CLUSTERS}/c1/status")),
        ("PATCH", &format!("{NAMESPACES}/default/finalize")),
        ("DELETE", NAMESPACES),
        ("POST", "/api/v1/secrets"),
        ("POST", "/apis/coordination.k8s.io/v1/namespaces/default/leases"),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ("POST", "/version"),
    ] {
        let reply = admin.send(method, path, &[("content-type", "application/json")], "{}").await;
        let (code, reason, _) = reply.failed();
        assert_eq!((code, reason), (405, "MethodNotAllowed"), "{method} {path}");
    }
}

#[tokio::test]
async fn an_answer_nobody_can_make_is_not_acceptable_and_writes_nothing() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    let html = [("accept", "text/html"), ("content-type", "application/json")];
    for path in [CLUSTERS.to_owned(), format!("{SETS}/default")] {
        admin.send("GET", &path, &html, "").await.refused(406, "NotAcceptable");
    }
    let body = cluster("c1", json!({})).to_string();
    admin.send("POST", CLUSTERS, &html, body.clone()).await.refused(406, "NotAcceptable");
    admin.get(&format!("{CLUSTERS}/c1")).await.refused(404, "NotFound");
    admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    admin.send("DELETE", &format!("{CLUSTERS}/c1"), &html, "").await.refused(406, "NotAcceptable");
    admin.get(&format!("{CLUSTERS}/c1")).await.ok();
}

#[tokio::test]
async fn a_body_in_an_unknown_form_is_refused() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    let path = format!("{CLUSTERS}/c1");
    let strategic = ("content-type", "application/strategic-merge-patch+json");
    let reply = admin.send("PATCH", &path, &[strategic], "{}").await;
    assert_eq!(
        reply.failed(),
        (
            415,
            "UnsupportedMediaType",
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
        )
    );
    admin.send("POST", CLUSTERS, &[("content-type", "text/plain")], "{}").await.refused(415, "UnsupportedMediaType");
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    admin.send("POST", CLUSTERS, &protobuf, "").await.refused(415, "UnsupportedMediaType");
    admin.send("POST", SECRETS, &protobuf, "x").await.refused(400, "BadRequest");
    admin.send("PATCH", &format!("{NAMESPACES}/default"), &[strategic], "{}").await.ok();
    let yaml = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n";
    admin.send("POST", SECRETS, &[("content-type", "application/yaml")], yaml).await.ok();
    let large = "x".repeat(body::MAX_BODY + 1);
    admin.send("POST", CLUSTERS, &[], large).await.refused(413, "RequestEntityTooLarge");
}

#[tokio::test]
async fn discovery_and_health_are_for_everybody_and_kept_by_their_etag() {
    let hub = Hub::new().await;
    let user = hub.user("u");
    assert_eq!(
        user.get("/version").await.ok()["gitVersion"].as_str().map(|version| version.contains("1.2.3")),
        Some(true)
    );
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!(user.get(path).await.code, 200, "{path}");
    }
    for path in
        ["/api", "/apis", "/api/v1", "/apis/cluster.open-cluster-management.io/v1", "/openapi/v2", "/openapi/v3"]
    {
        let first = user.get(path).await;
        assert_eq!(first.code, 200, "{path}");
        let etag = first.headers[header::ETAG].to_str().unwrap();
        assert_eq!(user.send("GET", path, &[("if-none-match", etag)], "").await.code, 304, "{path}");
    }
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let apis = user.send("GET", "/apis", &[("accept", aggregated)], "").await;
    assert_eq!(apis.body["kind"], "APIGroupDiscoveryList");
    let core = user.send("GET", "/api", &[("accept", aggregated)], "").await;
    assert_eq!(core.body["kind"], "APIGroupDiscoveryList");
}

#[tokio::test]
async fn objects_are_shown_as_they_are_or_as_rows_or_as_metadata() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    let metadata = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    for (accept, kind) in [("*/*", "ManagedClusterList"), (TABLE, "Table"), (metadata, "PartialObjectMetadataList")] {
        assert_eq!(admin.send("GET", CLUSTERS, &[("accept", accept)], "").await.ok()["kind"], kind);
    }
    let table = admin.send("GET", &format!("{CLUSTERS}?includeObject=None"), &[("accept", TABLE)], "").await.ok();
    assert_eq!(table["rows"][0]["cells"][0], "c1");
    assert!(table["rows"][0]["object"].is_null());
    let one = admin.send("GET", &format!("{CLUSTERS}/c1"), &[("accept", TABLE)], "").await.ok();
    assert_eq!((&one["kind"], &one["rows"][0]["cells"][0]), (&json!("Table"), &json!("c1")));
    admin.get(&format!("{CLUSTERS}?includeObject=Some")).await.refused(400, "BadRequest");
}

#[tokio::test]
async fn the_columns_of_a_watched_table_come_with_its_first_row_alone() {
    let hub = Hub::new().await;
    let admin = hub.admin();
    admin.post(CLUSTERS, cluster("c1", json!({}))).await.ok();
    admin.post(CLUSTERS, cluster("c2", json!({}))).await.ok();
    let Answer::Watch(_, frames) = admin.answer("GET", &format!("{CLUSTERS}?watch=1"), &[("accept", TABLE)], "").await
    else {
        panic!("no watch")
    };
    let told = Watching(frames).told().await;
    let columns: Vec<bool> = told.iter().map(|(_, table)| table["columnDefinitions"][0].is_object()).collect();
    assert_eq!(columns, [true, false]);
    assert_eq!(told[1].1["rows"][0]["cells"][0], "c2");
}
