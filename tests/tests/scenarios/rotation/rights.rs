//! Who may rotate the CA, and what is recorded of it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use hyper::Method;
use serde_json::json;
use tempfile::TempDir;
use tests::{Fetch, HUB_NAME, Hub, wait_for};

use super::{BOUND, step};

#[tokio::test]
async fn only_who_has_the_right_rotates_the_ca_and_each_step_is_recorded() -> Result<()> {
    let folder = TempDir::new()?;
    let log = folder.path().join("audit.log");
    let hub = Hub::builder().args(["--audit-log", log.to_str().context("a path")?]).start().await?;
    let out = folder.path().join("alice");
    hub.command(["user", "create", "alice", "--all-clusters", "--out", out.to_str().context("a path")?])
        .await?
        .success()?;
    let alice = tests::Credentials::at(&out);
    for words in ["ca status", "ca rotate begin", "ca rotate revoke-now --force"] {
        let told = hub.operator(&alice)?.args(words.split(' ')).run(BOUND).await?;
        ensure!(told.stderr.contains("certificateauthorities"), "{words}: {told:?}");
        told.exited_with(77)?;
    }
    // The roots are everybody's who is somebody; another's key gets no certificate, and no token does.
    let ask = async |request: Fetch| request.tls(hub.addresses().api, HUB_NAME, alice.mutual_tls()?).await;
    let roots = ask(Fetch::get("/v1/ca")).await?.success()?.json()?;
    ensure!(roots["signer"] == hub.addresses().pin, "{roots}");
    let csr = certs::PrivateKey::generate().csr_der()?;
    let csr = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, csr);
    let again = Fetch::new(Method::POST, "/v1/ca/certificate").json(&json!({ "csr": csr }));
    ensure!(ask(again.clone()).await?.status == 403, "a certificate for another key");
    ensure!(ask(again.bearer(&alice.token()?)).await?.status == 403, "a certificate by a token");

    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "rotator"}, "rules": [{
        "apiGroups": ["register.open-cluster-management.io"], "resources": ["certificateauthorities"], "verbs": ["get", "rotate"],
    }]});
    let binding = json!({
        "metadata": {"name": "rotator"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "rotator"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "alice"}],
    });
    for (plural, object) in [("clusterroles", role), ("clusterrolebindings", binding)] {
        hub.ask(Fetch::new(Method::POST, format!("{rbac}/{plural}")).json(&object)).await?.success()?;
    }
    hub.operator(&alice)?.args(["ca", "rotate", "begin"]).run(BOUND).await?.success()?;
    step(&hub, "abort").await?;
    // The record is written behind the answers.
    wait_for(BOUND, "every step's line in the record", async || {
        let record = fs::read_to_string(&log)?;
        let told = |verb: &str, user: &str, result: &str| {
            let verb = format!("\"verb\":\"{verb}\"");
            let words = [&verb, "certificateauthorities", user, result];
            record.lines().any(|line| words.iter().all(|word| line.contains(word)))
        };
        ensure!(told("begin", "alice", "refused") && told("begin", "alice", "\"ok\""), "{record}");
        ensure!(told("abort", "admin", "\"ok\"") && told("revoke-now", "alice", "refused"), "{record}");
        Ok(())
    })
    .await
}
