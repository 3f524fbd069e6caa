//! Attacks on rights with kubectl and the operator's API: nobody makes themselves, or anybody, more than they are.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tests::client::Entry;
use tests::hub::ClusterAccess;
use tests::{Client, Credentials, Fetch, HUB_NAME, Hub, Kubectl};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{SET, admin, cluster, set};

/// How long one answer may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);

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
async fn the_credentials_of_another_are_made_by_who_may_speak_as_them() -> Result<()> {
    let hub = Hub::start().await?;
    let (admin, (credentials, _)) = (admin(&hub)?, user(&hub, "mallory").await?);
    hub.create_user("bob", &ClusterAccess::Named(Vec::new())).await?;
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: desk}\nrules:\n\
        - {apiGroups: [register.open-cluster-management.io], resources: [users/tokens], verbs: [create]}\n";
    admin.ok(&format!("create -f {}", admin.file(role)?)).await?;
    admin.ok("create clusterrolebinding desk --clusterrole=desk --user=mallory").await?;
    let request = CertificateParams::default().serialize_request(&KeyPair::generate()?)?;
    let certificate = json!({"csr": STANDARD.encode(request.der()), "validitySeconds": 60});
    let asks = [("tokens", json!({"name": "mine", "validitySeconds": 60})), ("certificate", certificate)];
    for (what, body) in &asks {
        let (status, text) = ask(&hub, &credentials, &format!("/v1/users/bob/{what}"), body).await?;
        let right = r#"cannot impersonate resource \"users\""#;
        ensure!(status == 403 && text.contains(right), "{what}: {status} {text}");
    }
    admin.ok("create clusterrole speak --verb=impersonate --resource=users --resource-name=bob").await?;
    admin.ok("create clusterrolebinding speak --clusterrole=speak --user=mallory").await?;
    for (what, body) in &asks {
        let (status, text) = ask(&hub, &credentials, &format!("/v1/users/bob/{what}"), body).await?;
        ensure!(status == 201, "{what}: {status} {text}");
        let (status, text) = ask(&hub, &credentials, &format!("/v1/users/admin/{what}"), body).await?;
        ensure!(status == 403, "{what}: {status} {text}");
    }
    Ok(())
}

/// Asks as somebody, with a body that comes once `meanwhile` is done, after the hub has said that it may come; the status.
async fn ask_slowly(
    hub: &Hub,
    who: &Credentials,
    (path, body): (&str, &Value),
    meanwhile: impl Future<Output = Result<()>>,
) -> Result<u16> {
    let (token, body) = (who.token()?, body.to_string());
    let mut connection = Client::new(Entry::Tls(hub.addresses().api, hub.credentials().tls()?)).enter().await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {HUB_NAME}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    let mut go_on = [0; 25];
    timeout(BOUND, connection.read_exact(&mut go_on)).await??;
    ensure!(go_on.starts_with(b"HTTP/1.1 100 "), "{}", String::from_utf8_lossy(&go_on));
    meanwhile.await?;
    connection.write_all(body.as_bytes()).await?;
    let mut answer = String::new();
    timeout(BOUND, connection.read_to_string(&mut answer)).await??;
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(|| answer.clone())
}

#[tokio::test]
async fn who_loses_a_right_while_their_body_is_on_its_way_is_refused() -> Result<()> {
    let hub = Hub::start().await?;
    let admin = admin(&hub)?;
    let set = json!({
        "apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet", "metadata": {"name": "dev"},
    });
    let sets = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";
    let (tokens, token) = ("/v1/tokens", json!({"autoAccept": false, "reusable": false, "ttlSeconds": 60}));
    for (path, body) in [(tokens, &token), (sets, &set)] {
        let (mallory, _) = user(&hub, "mallory").await?;
        let bind = "create clusterrolebinding mallory --clusterrole=cluster-proxy:admin --user=mallory";
        admin.ok(bind).await?;
        let unbind = async || admin.ok("delete clusterrolebinding mallory").await.map(drop);
        let status = ask_slowly(&hub, &mallory, (path, body), unbind()).await?;
        ensure!(status == 403, "{path}, the right is gone: {status}");
        admin.ok(bind).await?;
        let remove = async { hub.command(["user", "delete", "mallory"]).await?.success().map(drop) };
        let status = ask_slowly(&hub, &mallory, (path, body), remove).await?;
        ensure!(status == 401, "{path}, the user is gone: {status}");
        unbind().await?;
        let (mallory, _) = user(&hub, "mallory").await?;
        admin.ok(bind).await?;
        let status = ask_slowly(&hub, &mallory, (path, body), async { Ok(()) }).await?;
        ensure!(status == 201, "{path}: {status}");
        hub.command(["user", "delete", "mallory"]).await?.success()?;
        unbind().await?;
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
