//! Requests that no kubectl sends: what is malformed, too large, of a wrong type or about nothing is answered with the status
//! code and the reason that kube-apiserver gives, and harms nothing.

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tests::{Answer, Fetch, Hub};

use super::{admin, cluster};

const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";
const NAMESPACES: &str = "/api/v1/namespaces";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";

/// As in Kubernetes: 3 MiB.
const LARGEST: usize = 3 << 20;

/// A hub with the cluster `c1`.
async fn hub() -> Result<Hub> {
    let hub = Hub::start().await?;
    let admin = admin(&hub)?;
    admin.ok(&format!("create -f {}", admin.file(&cluster("c1", false))?)).await?;
    Ok(hub)
}

/// Demands a Status with this code and reason.
fn is_failure(answer: &Answer, code: u16, reason: &str) -> Result<Value> {
    let status = answer.json()?;
    ensure!(answer.status.as_u16() == code, "{} is not {code}: {status}", answer.status);
    ensure!(status["kind"] == "Status" && status["apiVersion"] == "v1" && status["status"] == "Failure", "{status}");
    ensure!(status["code"] == code && status["reason"] == reason, "not {reason}: {status}");
    ensure!(status["message"].as_str().is_some_and(|message| !message.is_empty() && message.len() < 4_096), "{status}");
    Ok(status)
}

async fn fails(hub: &Hub, request: Fetch, code: u16, reason: &str) -> Result<Value> {
    let what = format!("{request:.300?}");
    let answer = hub.ask(request).await.with_context(|| what.clone())?;
    is_failure(&answer, code, reason).context(what)
}

/// Nothing was made, changed or lost, and the hub has not panicked.
async fn is_unharmed(hub: &Hub, before: &Value) -> Result<()> {
    let now = hub.ask(Fetch::get(CLUSTERS)).await?.success()?.json()?;
    ensure!(now["items"] == before["items"], "{now}");
    let panicked = hub.process().stderr().into_iter().find(|line| line.contains("panicked"));
    ensure!(panicked.is_none(), "{panicked:?}");
    Ok(())
}

async fn clusters(hub: &Hub) -> Result<Value> {
    hub.ask(Fetch::get(CLUSTERS)).await?.success()?.json()
}

fn body(method: Method, path: impl Into<String>, kind: &str, body: impl Into<bytes::Bytes>) -> Fetch {
    Fetch::new(method, path).header("content-type", kind).body(body)
}

fn good() -> Value {
    json!({"apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster", "metadata": {"name": "c2"}, "spec": {}})
}

#[tokio::test]
async fn bodies_that_are_no_objects_are_bad_requests() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
    let deep = format!("{{\"spec\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    let bomb: String = (1..20).fold("a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned(), |text, level| {
        format!("{text}a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", "))
    });
    for (kind, text) in [
        (JSON, ""),
        (JSON, "{"),
        (JSON, "[]"),
        (JSON, "null"),
        (JSON, "\"text\""),
        (JSON, "{}{}"),
        (JSON, "{\"a\": 1,}"),
        (JSON, "{\"a\": \u{1}}"),
        (JSON, deep.as_str()),
        (YAML, ""),
        (YAML, "a: [1"),
        (YAML, "a: b: c"),
        (YAML, "- 1\n- 2"),
        (YAML, "a: *nothing"),
        (YAML, "a: 1\n---\nb: 2\n"),
        (YAML, "\ta: 1"),
        (YAML, bomb.as_str()),
        (JSON, "{\"kind\":\"ManagedCluster\"}"),
        (JSON, "{\"apiVersion\":\"cluster.open-cluster-management.io/v1\"}"),
    ] {
        for path in [CLUSTERS, NAMESPACES] {
            fails(&hub, body(Method::POST, path, kind, text.to_owned()), 400, "BadRequest").await?;
        }
        fails(&hub, body(Method::PUT, format!("{CLUSTERS}/c1"), kind, text.to_owned()), 400, "BadRequest").await?;
    }
    for bytes in [&b"\xff\xfe"[..], b"{\"a\": \"\xff\"", b"\0\0\0\0"] {
        fails(&hub, body(Method::POST, CLUSTERS, JSON, bytes), 400, "BadRequest").await?;
        fails(&hub, body(Method::POST, CLUSTERS, YAML, bytes), 400, "BadRequest").await?;
    }
    // Protobuf is for the kinds that Kubernetes has itself.
    for bytes in [
        &b""[..],
        b"k8s",
        b"k8s\0",
        b"{}",
        b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09Namespace\x12\xff\x01",
        b"k8s\0\x0a\x07\x0a\x02v1\x12\x01X\x12\x00",
    ] {
        fails(&hub, body(Method::POST, NAMESPACES, PROTOBUF, bytes), 400, "BadRequest").await?;
        fails(&hub, body(Method::POST, CLUSTERS, PROTOBUF, bytes), 415, "UnsupportedMediaType").await?;
    }
    is_unharmed(&hub, &before).await
}

#[tokio::test]
async fn objects_of_another_kind_name_or_place_are_bad_requests() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
    let with = |pointer: &str, value: Value| {
        let mut object = good();
        let (parent, field) = pointer.rsplit_once('/').unwrap_or_default();
        if let Some(parent) = object.pointer_mut(parent) {
            parent[field] = value;
        }
        object
    };
    let one = format!("{CLUSTERS}/c1");
    for (method, path, object, code, reason, words) in [
        (Method::POST, CLUSTERS, with("/kind", json!("ManagedClusterSet")), 400, "BadRequest", "ManagedClusterSet"),
        (
            Method::POST,
            CLUSTERS,
            with("/apiVersion", json!("cluster.open-cluster-management.io/v2")),
            400,
            "BadRequest",
            "the API version in the data (cluster.open-cluster-management.io/v2) does not match the expected API version \
             (cluster.open-cluster-management.io/v1)",
        ),
        (
            Method::PUT,
            &one,
            good(),
            400,
            "BadRequest",
            "the name of the object (c2) does not match the name on the URL (c1)",
        ),
        (Method::PUT, &one, with("/metadata", json!({})), 400, "BadRequest", "name must be provided"),
        (
            Method::PUT,
            &one,
            with("/metadata/name", json!("c1")),
            422,
            "Invalid",
            "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update",
        ),
        (Method::POST, CLUSTERS, with("/metadata", json!({})), 422, "Invalid", "name or generateName is required"),
        (Method::POST, CLUSTERS, with("/metadata/name", json!("a/b")), 422, "Invalid", "metadata.name"),
        (Method::POST, CLUSTERS, with("/metadata/name", json!("..")), 422, "Invalid", "metadata.name"),
        (
            Method::POST,
            CLUSTERS,
            with("/metadata/generateName", json!("UPPER")),
            422,
            "Invalid",
            "metadata.generateName",
        ),
        (
            Method::POST,
            CLUSTERS,
            with("/metadata/resourceVersion", json!("1")),
            400,
            "BadRequest",
            "resourceVersion should not be set on objects to be created",
        ),
        (
            Method::POST,
            CLUSTERS,
            with("/metadata/labels", json!({"a": "x".repeat(64)})),
            422,
            "Invalid",
            "must be no more than 63",
        ),
        (
            Method::POST,
            CLUSTERS,
            with("/metadata/annotations", json!({"a": "x".repeat(256 << 10)})),
            422,
            "Invalid",
            "Too long: may not be more than 262144 bytes",
        ),
        (Method::POST, CLUSTERS, with("/metadata/finalizers", json!(["a b"])), 422, "Invalid", "metadata.finalizers"),
        (
            Method::POST,
            CLUSTERS,
            with("/spec", json!("text")),
            422,
            "Invalid",
            "spec in body must be of type object: \"string\"",
        ),
        (
            Method::POST,
            CLUSTERS,
            with("/spec/taints", json!([{"key": "k", "effect": "Odd"}])),
            422,
            "Invalid",
            "supported values: \"NoSelect\"",
        ),
        (Method::POST, CLUSTERS, with("/metadata/name", json!("c1")), 409, "AlreadyExists", "already exists"),
        (
            Method::POST,
            "/api/v1/namespaces/other/secrets",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "namespace": "default"}}),
            400,
            "BadRequest",
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            Method::POST,
            "/api/v1/namespaces/other/secrets",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}),
            404,
            "NotFound",
            "namespaces \"other\" not found",
        ),
    ] {
        let status = fails(&hub, Fetch::new(method, path).json(&object), code, reason).await?;
        ensure!(status["message"].as_str().is_some_and(|said| said.contains(words)), "no {words:?} in {status}");
    }
    // Fields that are not known, or given twice.
    let unknown = with("/spec/unknown", json!(1)).to_string();
    let twice = good().to_string().replacen(
        "\"spec\":{}",
        "\"spec\":{\"hubAcceptsClient\":false,\"hubAcceptsClient\":false}",
        1,
    );
    for (text, words) in [
        (&unknown, "strict decoding error: unknown field \"spec.unknown\""),
        (&twice, "strict decoding error: duplicate field \"spec.hubAcceptsClient\""),
    ] {
        let strict = format!("{CLUSTERS}?fieldValidation=Strict");
        let status = fails(&hub, body(Method::POST, strict, JSON, text.clone()), 400, "BadRequest").await?;
        ensure!(status["message"].as_str().is_some_and(|said| said.contains(words)), "{status}");
        let warned =
            hub.ask(body(Method::POST, format!("{CLUSTERS}?dryRun=All"), JSON, text.clone())).await?.success()?;
        let warning = warned.headers.get("warning").context("no warning")?.to_str()?.to_owned();
        ensure!(warning.starts_with("299 - \"") && warning.contains("field \\\"spec."), "{warning}");
        let silent = hub
            .ask(body(Method::POST, format!("{CLUSTERS}?dryRun=All&fieldValidation=Ignore"), JSON, text.clone()))
            .await?;
        ensure!(silent.success()?.headers.get("warning").is_none());
    }
    is_unharmed(&hub, &before).await
}

#[tokio::test]
async fn a_body_may_have_three_mebibytes_and_not_one_byte_more() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
    let padded = |length: usize| {
        let text = good().to_string();
        format!("{text}{}", " ".repeat(length - text.len()))
    };
    let dry = format!("{CLUSTERS}?dryRun=All");
    hub.ask(body(Method::POST, dry.clone(), JSON, padded(LARGEST))).await?.success()?;
    let one = format!("{CLUSTERS}/c1?fieldManager=me");
    for (method, path, kind) in [
        (Method::POST, dry.as_str(), JSON),
        (Method::POST, dry.as_str(), YAML),
        (Method::POST, NAMESPACES, PROTOBUF),
        (Method::PUT, &one, JSON),
        (Method::PATCH, &one, JSON_PATCH),
        (Method::PATCH, &one, MERGE_PATCH),
        (Method::PATCH, &one, APPLY_PATCH),
        (Method::DELETE, &one, JSON),
    ] {
        let status = fails(&hub, body(method, path, kind, padded(LARGEST + 1)), 413, "RequestEntityTooLarge").await?;
        ensure!(status["message"] == "Request entity too large: limit is 3145728", "{status}");
    }
    // Many operations, or few that grow.
    let many = json!(vec![json!({"op": "test", "path": "/kind", "value": "ManagedCluster"}); 10_001]);
    fails(&hub, body(Method::PATCH, one.as_str(), JSON_PATCH, many.to_string()), 413, "RequestEntityTooLarge").await?;
    let mut grow = vec![json!({"op": "add", "path": "/metadata/annotations", "value": {"a0": "x".repeat(1 << 16)}})];
    grow.extend((0..64).map(
        |n| json!({"op": "copy", "from": "/metadata/annotations", "path": format!("/metadata/annotations/a{}", n + 1)}),
    ));
    fails(&hub, body(Method::PATCH, one.as_str(), JSON_PATCH, json!(grow).to_string()), 422, "Invalid").await?;
    // What fits into a request and not into the store.
    let mut large = good();
    large["metadata"]["name"] = json!("large");
    let configs = vec![json!({"url": "https://x.example", "caBundle": "QUFB".repeat(10_000)}); 60];
    large["spec"]["managedClusterClientConfigs"] = json!(configs);
    let stored = hub.ask(Fetch::new(Method::POST, CLUSTERS).json(&large)).await?;
    if !stored.status.is_success() {
        is_failure(&stored, 413, "RequestEntityTooLarge")?;
    } else {
        hub.ask(Fetch::new(Method::DELETE, format!("{CLUSTERS}/large"))).await?.success()?;
    }
    is_unharmed(&hub, &before).await
}

#[tokio::test]
async fn patches_that_are_none_or_do_not_fit_are_refused() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
    let one = format!("{CLUSTERS}/c1");
    let namespace = format!("{NAMESPACES}/default");
    let invalid = (422, "Invalid");
    let bad = (400, "BadRequest");
    for (kind, text, (code, reason)) in [
        (JSON_PATCH, "", bad),
        (JSON_PATCH, "{}", bad),
        (JSON_PATCH, "[1]", bad),
        (JSON_PATCH, "[{\"op\": 1}]", bad),
        (JSON_PATCH, "[{}]", invalid),
        (JSON_PATCH, r#"[{"op":"explode","path":"/a"}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"remove","path":"/nothing/here"}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"replace","path":"no slash","value":1}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"test","path":"/metadata/name","value":"c2"}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"replace","path":"","value":7}]"#, invalid),
        (JSON_PATCH, r#"[{"op":"replace","path":"/spec/hubAcceptsClient","value":"x"}]"#, invalid),
        (MERGE_PATCH, "", bad),
        (MERGE_PATCH, "[]", bad),
        (MERGE_PATCH, "null", bad),
        (MERGE_PATCH, "{\"spec\":", bad),
        (MERGE_PATCH, r#"{"kind":"Other"}"#, bad),
        (MERGE_PATCH, r#"{"metadata":{"name":"c2"}}"#, bad),
        (MERGE_PATCH, r#"{"spec":{"hubAcceptsClient":[]}}"#, invalid),
        (MERGE_PATCH, r#"{"metadata":{"labels":{"a":"b c"}}}"#, invalid),
        (MERGE_PATCH, r#"{"metadata":{"resourceVersion":"1"}}"#, (409, "Conflict")),
        (MERGE_PATCH, r#"{"metadata":{"uid":"other"}}"#, (409, "Conflict")),
        (APPLY_PATCH, "", bad),
        (APPLY_PATCH, "a: [", bad),
        (APPLY_PATCH, "[]", bad),
        (APPLY_PATCH, "{}", bad),
        (APPLY_PATCH, "kind: ManagedCluster", bad),
        (STRATEGIC_PATCH, "{}", (415, "UnsupportedMediaType")),
        ("application/json", "{}", (415, "UnsupportedMediaType")),
        ("text/plain", "{}", (415, "UnsupportedMediaType")),
        ("", "{}", (415, "UnsupportedMediaType")),
    ] {
        let path = if kind == APPLY_PATCH { format!("{one}?fieldManager=me") } else { one.clone() };
        fails(&hub, body(Method::PATCH, path, kind, text), code, reason).await?;
    }
    for (text, (code, reason)) in [
        ("", bad),
        ("[]", bad),
        ("{\"metadata\":", bad),
        (r#"{"metadata":{"finalizers":[{"$patch":"explode"}]}}"#, invalid),
        (r#"{"metadata":{"labels":{"a":"b c"}}}"#, invalid),
    ] {
        let request = body(Method::PATCH, namespace.clone(), STRATEGIC_PATCH, text);
        let answer = hub.ask(request).await?;
        is_failure(&answer, code, reason).context(text)?;
    }
    let apply = |query: &str, text: &str| body(Method::PATCH, format!("{one}{query}"), APPLY_PATCH, text.to_owned());
    let missing = fails(&hub, apply("", &good().to_string()), 422, "Invalid").await?;
    ensure!(
        missing["message"]
            == "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    fails(&hub, apply("?fieldManager=me", &good().to_string()), 400, "BadRequest").await?;
    let owned = good().to_string().replace("\"c2\"", "\"c1\",\"managedFields\":[{\"manager\":\"x\"}]");
    fails(&hub, apply("?fieldManager=me", &owned), 400, "BadRequest").await?;
    let forced = body(Method::PATCH, format!("{one}?force=true"), MERGE_PATCH, "{}");
    let forced = fails(&hub, forced, 422, "Invalid").await?;
    ensure!(
        forced["message"]
            == "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
        "{forced}"
    );
    fails(&hub, body(Method::PATCH, format!("{CLUSTERS}/c9"), MERGE_PATCH, "{}"), 404, "NotFound").await?;
    fails(&hub, body(Method::PATCH, CLUSTERS, MERGE_PATCH, "{}"), 405, "MethodNotAllowed").await?;
    is_unharmed(&hub, &before).await
}

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
