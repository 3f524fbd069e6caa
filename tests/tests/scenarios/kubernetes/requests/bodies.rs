//! Bodies: what is no object, not of this kind, or too large.

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::{Value, json};
use tests::Fetch;

use super::{
    APPLY_PATCH, CLUSTERS, JSON, JSON_PATCH, MERGE_PATCH, NAMESPACES, PROTOBUF, YAML, body, clusters, fails, good, hub,
    is_failure, is_unharmed,
};

/// As in Kubernetes: 3 MiB.
const LARGEST: usize = 3 << 20;

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

/// [`good`] with another value in one place.
fn with(pointer: &str, value: Value) -> Value {
    let mut object = good();
    let (parent, field) = pointer.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = object.pointer_mut(parent) {
        parent[field] = value;
    }
    object
}

fn secret(metadata: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
}

#[tokio::test]
async fn objects_of_another_kind_name_or_place_are_bad_requests() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
    let (one, other) = (format!("{CLUSTERS}/c1"), "/api/v1/namespaces/other/secrets");
    let version = "the API version in the data (cluster.open-cluster-management.io/v2) does not match the expected API version \
                   (cluster.open-cluster-management.io/v1)";
    let name = "the name of the object (c2) does not match the name on the URL (c1)";
    let place =
        "the namespace of the provided object does not match the namespace sent on the request (default vs other)";
    let created = "resourceVersion should not be set on objects to be created";
    let kind = "the kind in the data (ManagedClusterSet) does not match the expected kind (ManagedCluster)";
    for (method, path, object, words) in [
        (Method::POST, CLUSTERS, with("/kind", json!("ManagedClusterSet")), kind),
        (Method::POST, CLUSTERS, with("/apiVersion", json!("cluster.open-cluster-management.io/v2")), version),
        (Method::POST, CLUSTERS, with("/metadata/resourceVersion", json!("1")), created),
        (Method::PUT, &one, good(), name),
        (Method::PUT, &one, with("/metadata", json!({})), "name must be provided"),
        (Method::POST, other, secret(json!({"name": "s", "namespace": "default"})), place),
    ] {
        let status = fails(&hub, Fetch::new(method, path).json(&object), 400, "BadRequest").await?;
        ensure!(status["message"].as_str().is_some_and(|said| said.contains(words)), "no {words:?} in {status}");
    }
    fails(&hub, Fetch::new(Method::POST, other).json(&secret(json!({"name": "s"}))), 404, "NotFound").await?;
    let taken = with("/metadata/name", json!("c1"));
    fails(&hub, Fetch::new(Method::POST, CLUSTERS).json(&taken), 409, "AlreadyExists").await?;
    is_unharmed(&hub, &before).await
}

#[tokio::test]
async fn objects_that_break_a_rule_are_invalid_and_the_field_is_named() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
    let long = json!({"a": "x".repeat(256 << 10)});
    for (pointer, value, field, words) in [
        ("/metadata", json!({}), "metadata.name", "name or generateName is required"),
        ("/metadata/name", json!("a/b"), "metadata.name", "a lowercase RFC 1123 label must consist of"),
        ("/metadata/name", json!(".."), "metadata.name", "a lowercase RFC 1123 label must consist of"),
        (
            "/metadata/generateName",
            json!("UPPER"),
            "metadata.generateName",
            "a lowercase RFC 1123 label must consist of",
        ),
        ("/metadata/labels", json!({"a": "x".repeat(64)}), "metadata.labels", "must be no more than 63"),
        ("/metadata/annotations", long, "metadata.annotations", "Too long: may not be more than 262144 bytes"),
        ("/metadata/finalizers", json!(["a b"]), "metadata.finalizers", "name part must consist of"),
        ("/spec", json!("text"), "spec", "spec in body must be of type object: \"string\""),
        (
            "/spec/taints",
            json!([{"key": "k", "effect": "Odd"}]),
            "spec.taints[0].effect",
            "supported values: \"NoSelect\"",
        ),
    ] {
        let status =
            fails(&hub, Fetch::new(Method::POST, CLUSTERS).json(&with(pointer, value)), 422, "Invalid").await?;
        let cause = &status["details"]["causes"][0];
        ensure!(cause["field"] == field, "{status}");
        ensure!(cause["message"].as_str().is_some_and(|said| said.contains(words)), "no {words:?} in {status}");
        ensure!(status["details"]["kind"] == "ManagedCluster", "{status}");
    }
    let unread = with("/metadata/name", json!("c1"));
    let status = fails(&hub, Fetch::new(Method::PUT, format!("{CLUSTERS}/c1")).json(&unread), 422, "Invalid").await?;
    let words = "metadata.resourceVersion: Invalid value: 0x0: must be specified for an update";
    ensure!(status["message"].as_str().is_some_and(|said| said.ends_with(words)), "{status}");
    is_unharmed(&hub, &before).await
}

#[tokio::test]
async fn fields_that_are_unknown_or_given_twice_are_refused_told_or_passed_over_as_asked() -> Result<()> {
    let hub = hub().await?;
    let before = clusters(&hub).await?;
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
