//! Paths, methods, queries, forms and credentials: what is served nowhere, makes no sense, or is from nobody.

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tests::Fetch;

use super::{CLUSTERS, MERGE_PATCH, body, clusters, fails, good, hub, is_failure, is_unharmed};

#[tokio::test]
async fn queries_that_make_no_sense_are_told_so() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
    for (query, code, reason) in [
        ("limit=x", 400, "BadRequest"),
        ("limit=1.5", 400, "BadRequest"),
        ("timeoutSeconds=soon", 400, "BadRequest"),
        ("continue=nonsense", 400, "BadRequest"),
        ("continue=eyJydiI6MX0", 400, "BadRequest"),
        ("resourceVersion=abc", 400, "BadRequest"),
        ("resourceVersion=-1", 400, "BadRequest"),
        ("resourceVersion=18446744073709551616", 400, "BadRequest"),
        ("resourceVersion=999999999", 504, "Timeout"),
        ("resourceVersion=999999999&watch=true", 504, "Timeout"),
        ("resourceVersionMatch=Exact", 422, "Invalid"),
        ("resourceVersionMatch=Newest&resourceVersion=1", 422, "Invalid"),
        ("resourceVersionMatch=Exact&resourceVersion=0", 422, "Invalid"),
        ("sendInitialEvents=true", 422, "Invalid"),
        ("watch=true&sendInitialEvents=true", 422, "Invalid"),
        ("watch=true&resourceVersionMatch=NotOlderThan", 422, "Invalid"),
        ("watch=true&resourceVersion=abc", 400, "BadRequest"),
        ("labelSelector=a+b", 400, "BadRequest"),
        ("labelSelector=a%20in", 400, "BadRequest"),
        ("labelSelector=a%20in%20(", 400, "BadRequest"),
        ("labelSelector=-%3Db", 400, "BadRequest"),
        ("labelSelector=a%3D%3D%3Db", 400, "BadRequest"),
        ("fieldSelector=metadata.name", 400, "BadRequest"),
        ("fieldSelector=spec.hubAcceptsClient%3Dtrue", 400, "BadRequest"),
        ("fieldSelector=a%5Cxb%3Dc", 400, "BadRequest"),
        ("watch=true&labelSelector=a%20in%20(", 400, "BadRequest"),
    ] {
        fails(&hub, Fetch::get(format!("{CLUSTERS}?{query}")), code, reason).await.context(query)?;
    }
    let table = Fetch::get(format!("{CLUSTERS}?includeObject=Some"))
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
    fails(&hub, table, 400, "BadRequest").await?;
    for (query, kind) in [
        ("dryRun=Some", "dryRun: Unsupported value: \"Some\": supported values: \"All\""),
        (
            "fieldValidation=Never",
            "fieldValidation: Unsupported value: \"Never\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
        ("fieldManager=a%0Ab", "fieldManager: Invalid value: \"a\\nb\": should only contain printable characters"),
    ] {
        for (method, path, options) in [
            (Method::POST, CLUSTERS.to_owned(), "CreateOptions"),
            (Method::PUT, format!("{CLUSTERS}/c1"), "UpdateOptions"),
        ] {
            let request = Fetch::new(method, format!("{path}?{query}")).json(&good());
            let status = fails(&hub, request, 422, "Invalid").await?;
            ensure!(status["message"] == format!("{options}.meta.k8s.io \"\" is invalid: {kind}"), "{status}");
        }
        let patch = body(Method::PATCH, format!("{CLUSTERS}/c1?{query}"), MERGE_PATCH, "{}");
        let status = fails(&hub, patch, 422, "Invalid").await?;
        ensure!(
            status["message"].as_str().is_some_and(|said| said.starts_with("PatchOptions.meta.k8s.io")),
            "{status}"
        );
    }
    let delete =
        |query: &str, options: Value| Fetch::new(Method::DELETE, format!("{CLUSTERS}/c1{query}")).json(&options);
    for (request, code, reason) in [
        (delete("?propagationPolicy=Sideways", json!({})), 422, "Invalid"),
        (delete("", json!({"propagationPolicy": "Sideways"})), 422, "Invalid"),
        (delete("?dryRun=Some", json!({})), 422, "Invalid"),
        (delete("", json!({"dryRun": ["Some"]})), 422, "Invalid"),
        (delete("", json!({"preconditions": {"uid": "other"}})), 409, "Conflict"),
        (delete("", json!({"preconditions": {"resourceVersion": "1"}})), 409, "Conflict"),
        (delete("", json!([])), 400, "BadRequest"),
        (body(Method::DELETE, format!("{CLUSTERS}/c1"), "text/plain", "{}"), 415, "UnsupportedMediaType"),
    ] {
        fails(&hub, request, code, reason).await?;
    }
    is_unharmed(&hub, &before).await
}

#[tokio::test]
async fn what_is_served_nowhere_or_not_in_this_form_is_said() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
    let group = "/apis/cluster.open-cluster-management.io";
    for path in [
        format!("{group}/v9/managedclusters"),
        format!("{group}/v1/managedclustersets"),
        format!("{group}/v1/managedclusters/c1/nothing"),
        format!("{group}/v1/managedclusters/c1/status/more"),
        format!("{group}/v1/namespaces/x/managedclusters"),
        format!("{group}/v1/managedclusters/"),
        format!("{group}/v1/nothing"),
        "/apis/apps/v1/deployments".to_owned(),
        "/apis/apps".to_owned(),
        "/api/v2".to_owned(),
        "/api/v1/pods".to_owned(),
        "/openapi/v3/apis/apps/v1".to_owned(),
        "/".to_owned(),
        "/nothing".to_owned(),
        "/apis//v1/managedclusters".to_owned(),
        "/apis/cluster.open-cluster-management.io/v1/%ff".to_owned(),
    ] {
        fails(&hub, Fetch::get(path), 404, "NotFound").await?;
    }
    for name in ["c9", "..", "%2e%2e", "a%2Fb", "%00", &"x".repeat(4_000)] {
        fails(&hub, Fetch::get(format!("{CLUSTERS}/{name}")), 404, "NotFound").await.context(name.to_owned())?;
    }
    let one = format!("{CLUSTERS}/c1");
    for (method, path) in [
        (Method::POST, one.as_str()),
        (Method::PUT, CLUSTERS),
        (Method::PATCH, CLUSTERS),
        (Method::OPTIONS, CLUSTERS),
        (Method::TRACE, CLUSTERS),
        (Method::POST, "/api/v1/secrets"),
        (Method::DELETE, "/api/v1/namespaces"),
        (Method::DELETE, "/apis/cluster.open-cluster-management.io/v1/managedclusters/c1/status"),
        (Method::POST, "/apis/coordination.k8s.io/v1/namespaces/default/leases"),
        (Method::GET, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        (Method::POST, "/version"),
        (Method::DELETE, "/apis"),
    ] {
        let request = Fetch::new(method, path).json(&good());
        fails(&hub, request, 405, "MethodNotAllowed").await?;
    }
    for kind in ["text/plain", "application/xml", "application/x-www-form-urlencoded", "nonsense"] {
        let status =
            fails(&hub, body(Method::POST, CLUSTERS, kind, good().to_string()), 415, "UnsupportedMediaType").await?;
        ensure!(
            status["message"]
                == "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml",
            "{status}"
        );
    }
    for accept in
        ["text/html", "application/xml", "application/json;as=Table;v=v9;g=meta.k8s.io", "application/json;q=0"]
    {
        for path in [CLUSTERS, one.as_str()] {
            fails(&hub, Fetch::get(path).header("accept", accept), 406, "NotAcceptable").await?;
        }
    }
    for accept in [
        "*/*",
        "application/*",
        "text/html, application/json;q=0.1",
        "application/vnd.kubernetes.protobuf,application/json",
    ] {
        let answer = hub.ask(Fetch::get(one.as_str()).header("accept", accept)).await?.success()?;
        ensure!(answer.headers["content-type"] == "application/json" && answer.json()?["kind"] == "ManagedCluster");
    }
    is_unharmed(&hub, &before).await
}

#[tokio::test]
async fn one_who_shows_nothing_or_nonsense_is_unauthorized() -> Result<()> {
    let hub = hub().await?;
    let tls = hub.credentials().tls()?;
    let values = ["Bearer", "Bearer x", "Bearer cpu-0123456789.x", "Basic !!!", "x"];
    let requests = values.map(|value| Fetch::get(CLUSTERS).header("authorization", value));
    for request in requests.into_iter().chain([Fetch::get(CLUSTERS), Fetch::get("/apis"), Fetch::get("/nothing")]) {
        let answer = request.tls(hub.addresses().api, tests::HUB_NAME, tls.clone()).await?;
        is_failure(&answer, 401, "Unauthorized")?;
        ensure!(answer.headers["www-authenticate"] == "Bearer", "no challenge");
    }
    for path in ["/version", "/healthz", "/livez", "/readyz"] {
        Fetch::get(path).tls(hub.addresses().api, tests::HUB_NAME, tls.clone()).await?.success()?;
    }
    for (name, value) in [("impersonate-group", "system:masters"), ("impersonate-user", ""), ("impersonate-uid", "7")] {
        let answer = hub.ask(Fetch::get(CLUSTERS).header(name, value)).await?;
        ensure!(answer.status.is_client_error(), "{name}: {}", answer.status);
        is_failure(&answer, 400, "BadRequest")?;
    }
    Ok(())
}
