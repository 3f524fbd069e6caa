//! Who asks: what the spoke's API server is told about the hub's users, whatever their clients send.

use anyhow::{Context as _, Result, ensure};
use hyper::{Method, StatusCode};
use tests::hub::ClusterAccess;
use tests::service::apiserver::{Seen, TOKEN};
use tests::{Fetch, Hub, Kubectl, tool};

use super::{BOUND, Site};

const PODS: &str = "/clusters/one/api/v1/namespaces/default/pods";

impl Site {
    /// The newest request that the API server got.
    fn newest(&self) -> Result<Seen> {
        self.server.requests().pop().context("the API server was asked nothing")
    }

    /// What the hub answers to a request with these fields.
    async fn ask(&self, token: &str, fields: &[(&str, &str)]) -> Result<tests::Answer> {
        let mut fetch = Fetch::new(Method::GET, PODS).bearer(token);
        for (name, value) in fields {
            fetch = fetch.header(*name, *value);
        }
        let address = self.hub.addresses().api;
        fetch.tls(address, tests::HUB_NAME, self.hub.credentials().tls()?).await
    }
}

fn all(seen: &Seen, name: &str) -> Vec<String> {
    seen.headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
}

#[tokio::test]
async fn the_api_server_is_asked_by_the_agent_for_the_hubs_user() -> Result<()> {
    let site = Site::start_with(&["--gateway-groups", "team-*"]).await?;
    let alice = site.hub.create_user("alice", &ClusterAccess::Named(vec!["one".to_owned()])).await?;
    for (user, name) in [(&alice, "alice"), (&site.hub.credentials(), "admin")] {
        let config = site.config("/clusters/one", user)?;
        config.kubectl()?.args(["get", "pods"]).run(BOUND).await?.success()?;
        let seen = site.newest()?;
        ensure!(all(&seen, "authorization") == [format!("Bearer {TOKEN}")], "{name}");
        ensure!(all(&seen, "impersonate-user") == [name], "{seen:?}");
        // The administrator's system:masters is the hub's matter.
        ensure!(all(&seen, "impersonate-group").is_empty(), "{seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn no_field_that_a_client_sends_makes_it_somebody_else() -> Result<()> {
    let site = Site::start().await?;
    let alice = site.hub.create_user("alice", &ClusterAccess::Named(vec!["one".to_owned()])).await?;
    let token = alice.token()?;
    let forbidden = [
        [("Impersonate-User", "admin")].as_slice(),
        &[("impersonate-user", "admin")],
        &[("IMPERSONATE-USER", "system:admin"), ("Impersonate-Group", "system:masters")],
    ];
    for fields in forbidden {
        let answer = site.ask(&token, fields).await?;
        ensure!(answer.status == StatusCode::FORBIDDEN, "{fields:?} {}", answer.text());
    }
    let malformed = [
        [("Impersonate-User", "admin"), ("Impersonate-User", "alice")].as_slice(),
        &[("Impersonate-Group", "system:masters")],
        &[("Impersonate-Extra-Scopes", "all")],
        &[("Impersonate-Uid", "0")],
        &[("Connection", "Impersonate-User")],
        &[("Connection", "close, impersonate-group")],
        &[("Connection", "AUTHORIZATION")],
    ];
    for fields in malformed {
        let answer = site.ask(&token, fields).await?;
        ensure!(answer.status == StatusCode::BAD_REQUEST, "{fields:?} {}", answer.text());
    }
    ensure!(site.server.requests().is_empty(), "a request went through");
    let harmless = [
        [("X-Remote-User", "admin"), ("X-Remote-Group", "system:masters")].as_slice(),
        &[("X-Remote-Extra-Scopes", "all")],
        &[("Impersonate_User", "admin")],
        &[("Proxy-Authorization", "Bearer x"), ("Connection", "X-Own"), ("X-Own", "1")],
    ];
    for fields in harmless {
        site.ask(&token, fields).await?.success()?;
        let seen = site.newest()?;
        ensure!(all(&seen, "impersonate-user") == ["alice"], "{seen:?}");
        let told = ["x-remote-user", "x-remote-group", "x-remote-extra-scopes", "proxy-authorization", "x-own"];
        ensure!(told.iter().all(|name| all(&seen, name).is_empty()), "{seen:?}");
    }
    Ok(())
}

#[tokio::test]
async fn who_may_impersonate_on_the_hub_is_somebody_else_in_the_spoke() -> Result<()> {
    let site = Site::start().await?;
    let config = site.admin()?;
    config.kubectl()?.args(["get", "pods", "--as", "bob", "--as-group", "staff"]).run(BOUND).await?.success()?;
    let seen = site.newest()?;
    ensure!(all(&seen, "impersonate-user") == ["bob"] && all(&seen, "impersonate-group") == ["staff"], "{seen:?}");
    // A name that Kubernetes reserves is nobody whom the spoke lets the hub speak for.
    let said = config.kubectl()?.args(["get", "pods", "--as", "system:admin"]).run(BOUND).await?;
    ensure!(said.stderr.contains("reserves"), "{said:?}");
    Ok(())
}

#[tokio::test]
async fn a_name_that_http_trims_is_nobodys() -> Result<()> {
    let site = Site::start().await?;
    for group in [" system:masters", "system:masters\t", "dev\r\nImpersonate-Group: system:masters", "", "d\u{e9}v"] {
        let new = serde_json::json!({
            "name": "mallory", "groups": [group], "clusters": "*", "csr": "", "validitySeconds": 60,
        });
        let answer = site.hub.ask(Fetch::new(Method::POST, "/v1/users").json(&new)).await?;
        ensure!(answer.status.is_client_error() && answer.text().contains("no group's name"), "{}", answer.text());
    }
    // kubectl speaks HTTP/2, which keeps the space; the agent's upgrade to exec would lose it.
    let config = site.admin()?;
    for flags in [["--as", "bob", "--as-group", " system:masters"], ["--as", " system:admin", "--as-group", "dev"]] {
        let said = config.kubectl()?.args(["get", "pods"]).args(flags).run(BOUND).await?;
        ensure!(said.stderr.contains("no space at its ends"), "{said:?}");
    }
    // What the spoke does not take is refused, too, and not left out.
    for (flags, why) in [
        (["--as", "bob", "--as-group", "system:masters"], "--gateway-groups"),
        (["--as", "bob", "--as-uid", "1"], "--as-uid"),
    ] {
        let said = config.kubectl()?.args(["get", "pods"]).args(flags).run(BOUND).await?;
        ensure!(said.stderr.contains(why), "{said:?}");
    }
    ensure!(site.server.requests().is_empty(), "a request went through");
    Ok(())
}

#[tokio::test]
async fn the_shipped_account_speaks_for_nobody_of_kubernetes_own() -> Result<()> {
    let manifest = include_str!("../../../../deploy/kubernetes/agent-account.yaml");
    let role =
        manifest.split("---\n").find(|document| document.contains("\nkind: ClusterRole\n")).context("no role")?;
    let hub = Hub::start().await?;
    let kubectl = Kubectl::administrator(&hub, tool::kubectl()?)?;
    let file = kubectl.file(role)?;
    kubectl.ok(&format!("apply -f {file}")).await?;
    kubectl.ok("create clusterrolebinding account --clusterrole=cluster-proxy-agent --user=account").await?;
    for (whom, may) in [
        ("users/alice", "yes"),
        ("groups/team-a", "yes"),
        ("groups/system:masters", "no"),
        ("groups/system:nodes", "no"),
        ("groups/system:authenticated", "no"),
        ("users/system:admin", "no"),
        ("users/system:kube-controller-manager", "no"),
        ("serviceaccounts/default", "no"),
        ("userextras.authentication.k8s.io/scopes", "no"),
        ("uids.authentication.k8s.io/1", "no"),
    ] {
        let said = kubectl.run(&format!("auth can-i impersonate {whom} --as account")).await?;
        ensure!(said.stdout.trim_ascii_end() == may.as_bytes(), "{whom}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn where_the_spoke_wants_it_the_users_own_token_goes_through() -> Result<()> {
    let site = Site::start_with(&["--gateway", "token"]).await?;
    let address = site.hub.addresses().api;
    let own = |token: &str| Fetch::get(PODS).bearer(token);
    let (name, credentials) = (tests::HUB_NAME, site.hub.credentials());
    own(TOKEN).tls(address, name, credentials.mutual_tls()?).await?.success()?;
    let seen = site.newest()?;
    ensure!(all(&seen, "authorization") == [format!("Bearer {TOKEN}")], "{seen:?}");
    ensure!(all(&seen, "impersonate-user").is_empty(), "{seen:?}");
    // The hub's own token never leaves it.
    let refused = own(&credentials.token()?).tls(address, name, credentials.tls()?).await?;
    ensure!(refused.status == StatusCode::UNAUTHORIZED, "{}", refused.text());
    ensure!(all(&site.newest()?, "authorization").is_empty());
    Ok(())
}
