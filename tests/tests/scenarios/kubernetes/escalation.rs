//! Attacks on rights with kubectl and the operator's API: nobody makes themselves, or anybody, more than they are.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tests::hub::ClusterAccess;
use tests::{Credentials, Fetch, HUB_NAME, Hub, Kubectl};

use super::{SET, admin, cluster, set};

const LACKS: &str = "is attempting to grant RBAC permissions not currently held";

async fn user(hub: &Hub, name: &str) -> Result<(Credentials, Kubectl)> {
    let credentials = hub.create_user(name, &ClusterAccess::Named(Vec::new())).await?;
    let kubectl = Kubectl::user(hub, &credentials)?;
    Ok((credentials, kubectl))
}

/// Asks the operator's API as somebody; status and text.
async fn ask(hub: &Hub, who: &Credentials, path: &str, body: &Value) -> Result<(u16, String)> {
    let asked = Fetch::new(Method::POST, path).json(body).bearer(&who.token()?);
    let answer = asked.tls(hub.addresses().api, HUB_NAME, who.tls()?).await?;
    Ok((answer.status.as_u16(), answer.text()))
}

#[tokio::test]
async fn the_admin_of_a_set_does_their_day_and_reaches_no_other_cluster() -> Result<()> {
    let hub = Hub::start().await?;
    let (admin, (_, mallory)) = (admin(&hub)?, user(&hub, "mallory").await?);
    let mut everything = vec![set("dev"), set("test"), set("prod")];
    everything.extend([cluster("c1", true), cluster("c2", true)]);
    admin.ok(&format!("create -f {}", admin.file(&everything.join("---\n"))?)).await?;
    admin.ok(&format!("label --overwrite mcl c1 {SET}=dev")).await?;
    admin.ok(&format!("label --overwrite mcl c2 {SET}=prod")).await?;
    for set in ["dev", "test"] {
        let role = format!("open-cluster-management:managedclusterset:admin:{set}");
        admin.ok(&format!("wait clusterrole {role} --for=create --timeout=30s")).await?;
        admin.ok(&format!("create clusterrolebinding {set} --clusterrole={role} --user=mallory")).await?;
    }
    let writes =
        "create clusterrole label --verb=update,patch --resource=managedclusters.cluster.open-cluster-management.io";
    admin.ok(writes).await?;
    admin.ok("create clusterrolebinding label --clusterrole=label --user=mallory").await?;

    let wide = r#"{"spec":{"clusterSelector":{"selectorType":"LabelSelector","labelSelector":{}}}}"#;
    let list = r#"[{"op":"replace","path":"/spec/clusterSelector","value":{"selectorType":"LabelSelector","labelSelector":{}}}]"#;
    mallory.refused(&format!("patch mclset dev --type=merge -p '{wide}'"), LACKS).await?;
    mallory.refused(&format!("patch mclset dev --type=merge --dry-run=server -p '{wide}'"), LACKS).await?;
    mallory.refused(&format!("patch mclset dev --type=json -p '{list}'"), LACKS).await?;
    let applied =
        format!("{}spec:\n  clusterSelector:\n    selectorType: LabelSelector\n    labelSelector: {{}}\n", set("dev"));
    let file = mallory.file(&applied)?;
    mallory.refused(&format!("apply --server-side --force-conflicts -f {file}"), LACKS).await?;
    mallory.refused(&format!("label --overwrite mcl c2 {SET}=dev"), "(Forbidden)").await?;
    mallory.refused("get mcl c2", "(Forbidden)").await?;
    // What is theirs they move as before.
    mallory.ok("get mcl c1").await?;
    mallory.ok(&format!("label --overwrite mcl c1 {SET}=test")).await?;
    mallory.ok(&format!("label --overwrite mcl c1 {SET}=dev")).await?;
    mallory.ok("label mclset dev team=a").await.map(drop)
}

#[tokio::test]
async fn the_admin_of_the_hub_does_not_become_the_lord_of_all() -> Result<()> {
    let hub = Hub::start().await?;
    let (admin, (credentials, mallory)) = (admin(&hub)?, user(&hub, "mallory").await?);
    admin.ok("create clusterrolebinding mallory --clusterrole=cluster-proxy:admin --user=mallory").await?;
    admin.ok("create clusterrolebinding bob --clusterrole=cluster-admin --user=bob").await?;
    mallory.ok("create clusterrolebinding views --clusterrole=view --user=mallory").await?;
    let label = "label clusterrole cluster-admin rbac.authorization.k8s.io/aggregate-to-view=true";
    mallory.refused(label, LACKS).await?;
    let wider = r#"'{"aggregationRule":{"clusterRoleSelectors":[{}]}}'"#;
    let refused = "must have cluster-admin privileges to use an aggregationRule";
    mallory.refused(&format!("patch clusterrole view --type=merge -p {wider}"), refused).await?;
    let request = CertificateParams::default().serialize_request(&KeyPair::generate()?)?;
    let new = |name: &str, groups: &[&str]| {
        json!({
            "name": name, "admin": false, "groups": groups, "clusters": [], "validitySeconds": 60,
            "csr": STANDARD.encode(request.der()),
        })
    };
    for body in [new("bob", &[]), new("carol", &["system:masters"])] {
        let (status, text) = ask(&hub, &credentials, "/v1/users", &body).await?;
        ensure!(status == 403 && text.contains(LACKS), "{status} {text}");
    }
    let (status, text) = ask(&hub, &credentials, "/v1/users", &new("carol", &[])).await?;
    ensure!(status == 201, "{status} {text}");
    mallory.fails("auth can-i create pods").await.map(drop)
}

#[tokio::test]
async fn the_right_to_make_users_and_tokens_is_no_right_to_clusters() -> Result<()> {
    let hub = Hub::start().await?;
    let (admin, (credentials, _)) = (admin(&hub)?, user(&hub, "mallory").await?);
    admin.ok(&format!("create -f {}", admin.file(&cluster("c1", true))?)).await?;
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: desk}\nrules:\n\
        - {apiGroups: [register.open-cluster-management.io], resources: [users, jointokens], verbs: [create]}\n";
    admin.ok(&format!("create -f {}", admin.file(role)?)).await?;
    admin.ok("create clusterrolebinding desk --clusterrole=desk --user=mallory").await?;
    let request = CertificateParams::default().serialize_request(&KeyPair::generate()?)?;
    let new = |clusters: Value| {
        json!({
            "name": "carol", "admin": false, "groups": [], "clusters": clusters, "validitySeconds": 60,
            "csr": STANDARD.encode(request.der()),
        })
    };
    for clusters in [json!("*"), json!(["c1"])] {
        let (status, text) = ask(&hub, &credentials, "/v1/users", &new(clusters)).await?;
        ensure!(status == 403 && text.contains(LACKS), "{status} {text}");
    }
    for token in [json!({"cluster": "c1", "autoAccept": true}), json!({"autoAccept": true}), json!({"cluster": "c1"})] {
        let (status, text) = ask(&hub, &credentials, "/v1/tokens", &token).await?;
        let right = r#"cannot update resource \"managedclusters/accept\""#;
        ensure!(status == 403 && text.contains(right), "{status} {text}");
    }
    for (path, body) in [("/v1/users", new(json!([]))), ("/v1/tokens", json!({}))] {
        let (status, text) = ask(&hub, &credentials, path, &body).await?;
        ensure!(status == 201, "{path}: {status} {text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_status_that_is_written_makes_no_tunnel() -> Result<()> {
    let hub = Hub::start().await?;
    let admin = admin(&hub)?;
    admin.ok(&format!("create -f {}", admin.file(&cluster("c1", true))?)).await?;
    let forged = r#"'{"status":{"lastSeen":"2026-01-01T00:00:00Z","version":{"kubernetes":"v1.30.0"},"conditions":[
        {"type":"ManagedClusterConditionAvailable","status":"True","reason":"ManagedClusterAvailable","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"},
        {"type":"Mine","status":"True","reason":"Mine","message":"","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}'"#;
    admin.ok(&format!("patch mcl c1 --subresource=status --type=merge -p {forged}")).await?;
    let row = &admin.table("get mcl c1 -o wide").await?[0];
    ensure!(row["VERSION"] == "v1.30.0", "{row:?}");
    ensure!(row["AVAILABLE"] != "True" && row["TUNNEL"] != "Up", "{row:?}");
    let conditions = admin.get("mcl c1").await?["status"]["conditions"].to_string();
    ensure!(conditions.contains("Mine") && !conditions.contains("Available"), "{conditions}");
    Ok(())
}
