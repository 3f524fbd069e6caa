//! Requests that no kubectl sends: what is malformed, too large, of a wrong type or about nothing is answered with the status
//! code and the reason that kube-apiserver gives, and harms nothing.

mod bodies;
mod patches;
mod targets;

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
