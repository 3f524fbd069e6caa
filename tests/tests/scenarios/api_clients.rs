//! Stock clients of other languages at the hub's Kubernetes-style API: what they print is what a Kubernetes would have them print.

mod history;
pub(crate) mod kube_rs;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use certs::PrivateKey;
use hyper::Method;
use serde_json::json;
use tests::hub::JoinTerms;
use tests::raw_agent::{RawJoin, join_request};
use tests::{Fetch, Hub, Link, Process, Program, Spoke, tool};

use history::History;

const BOUND: Duration = Duration::from_secs(60);

/// One of the scripts in `tests/clients`, with the hub's own kubeconfig.
fn script(language: &str, name: &str, kubeconfig: &Path) -> Result<Program> {
    let program = if language == "python" { tool::python()? } else { tool::node()? };
    Ok(program.arg(scripts(language).join(name)).env("KUBECONFIG", kubeconfig))
}

fn scripts(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(language)
}

fn kubeconfig(hub: &Hub) -> PathBuf {
    hub.credentials().folder().join("kubeconfig")
}

/// Has a script talk to a new hub, and compares what it prints with the file beside it.
async fn converses(language: &str, name: &str) -> Result<()> {
    let hub = Hub::start().await?;
    let said = script(language, name, &kubeconfig(&hub))?.run(BOUND).await?.success()?;
    let expected = std::fs::read_to_string(scripts(language).join(name).with_extension("txt"))?;
    assert_eq!(said, expected);
    Ok(())
}

#[tokio::test]
async fn pythons_client_lists_in_pages_and_discovers_what_is_served() -> Result<()> {
    converses("python", "reads.py").await
}

#[tokio::test]
async fn pythons_client_writes_in_every_way_and_understands_refusals() -> Result<()> {
    converses("python", "writes.py").await
}

#[tokio::test]
async fn nodes_client_lists_writes_and_watches_and_understands_refusals() -> Result<()> {
    converses("node", "conversation.mjs").await
}

#[tokio::test]
async fn pythons_client_resumes_watches_until_their_beginning_is_forgotten() -> Result<()> {
    let hub = Hub::start().await?;
    let history = History::of(&hub).await?;
    let mut script = script("python", "watches.py", &kubeconfig(&hub))?.with_stdin().spawn()?;
    script.stdout_line(BOUND, "ready", |line| (line == "ready").then_some(())).await?;
    history.forget(&hub).await?;
    script.write(b"\n", BOUND).await?;
    script.exits_with(0, BOUND).await?;
    let expected = std::fs::read_to_string(scripts("python").join("watches.txt"))?;
    assert_eq!(script.stdout().join("\n"), expected.trim_end());
    Ok(())
}

#[tokio::test]
async fn pythons_client_asks_for_rights_lets_an_agent_in_and_reads_leases() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let token =
        hub.create_token(&JoinTerms { cluster: None, auto_accept: false, reusable: false, ttl_seconds: 3600 }).await?;
    let mut join = RawJoin::ask(&hub, &join_request(&token, "two", "agent", &PrivateKey::generate())?).await?;
    join.pending().await?;
    let reviews = script("python", "reviews.py", &kubeconfig(&hub))?;
    let said = reviews.args([&hub.credentials().token()?, "one", "two"]).run(BOUND).await?.success()?;
    assert_eq!(said, std::fs::read_to_string(scripts("python").join("reviews.txt"))?);
    assert_eq!(join.issued().await?.cluster, "two");
    Ok(())
}

async fn make(hub: &Hub, name: &str) -> Result<()> {
    let new = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    let request = Fetch::new(Method::POST, "/api/v1/namespaces").json(&new);
    hub.ask(request).await?.success().map(drop)
}

async fn label(hub: &Hub, name: &str, value: &str) -> Result<()> {
    let patch = Fetch::new(Method::PATCH, format!("/api/v1/namespaces/{name}"));
    let patch = patch.header("content-type", "application/merge-patch+json");
    let body = json!({ "metadata": { "labels": { "value": value } } });
    hub.ask(patch.body(body.to_string())).await?.success().map(drop)
}

async fn delete(hub: &Hub, name: &str) -> Result<()> {
    let request = Fetch::new(Method::DELETE, format!("/api/v1/namespaces/{name}"));
    hub.ask(request).await?.success().map(drop)
}

async fn says(informer: &Process, line: &str) -> Result<()> {
    informer.stdout_line(BOUND, line, |said| (said == line).then_some(())).await
}

/// An informer follows, loses its link, comes back when the hub has forgotten where it was, and misses nothing.
async fn informs(language: &str, name: &str) -> Result<()> {
    let hub = Hub::start().await?;
    let history = History::of(&hub).await?;
    let link = Link::start(hub.addresses().api).await?;
    let kubeconfig = through(&hub, &link)?;
    for name in ["gone", "kept"] {
        make(&hub, name).await?;
    }
    let mut informer = script(language, name, &kubeconfig)?.with_stdin().spawn()?;
    for name in ["default", "gone", "kept"] {
        says(&informer, &format!("added {name}")).await?;
    }
    make(&hub, "brief").await?;
    says(&informer, "added brief").await?;
    label(&hub, "brief", "1").await?;
    says(&informer, "modified brief").await?;
    delete(&hub, "brief").await?;
    says(&informer, "deleted brief").await?;

    link.cut();
    delete(&hub, "gone").await?;
    make(&hub, "new").await?;
    label(&hub, "kept", "1").await?;
    history.forget(&hub).await?;
    link.mend();
    for line in ["error 410", "deleted gone", "added new", "modified kept"] {
        says(&informer, line).await?;
    }
    make(&hub, "last").await?;
    says(&informer, "added last").await?;
    informer.close_stdin();
    informer.exits_with(0, BOUND).await?;
    assert_eq!(informer.stdout().last().context("it said nothing")?, "holds default kept last new");
    Ok(())
}

/// The hub's own kubeconfig, but for the port of the server.
fn through(hub: &Hub, link: &Link) -> Result<PathBuf> {
    let (own, file) = (kubeconfig(hub), kubeconfig(hub).with_file_name("kubeconfig-link"));
    let [from, to] = [hub.addresses().api, link.address()].map(|address| format!("//{address}\n"));
    let text = std::fs::read_to_string(own)?;
    anyhow::ensure!(text.contains(&from), "the kubeconfig does not name port {from}: {text}");
    std::fs::write(&file, text.replace(&from, &to))?;
    Ok(file)
}

#[tokio::test]
async fn pythons_informer_lists_anew_when_its_place_is_forgotten() -> Result<()> {
    informs("python", "informer.py").await
}

#[tokio::test]
async fn nodes_informer_lists_anew_when_its_place_is_forgotten() -> Result<()> {
    informs("node", "informer.mjs").await
}
