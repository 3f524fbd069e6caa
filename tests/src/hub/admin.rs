//! What a scenario asks of the hub's HTTPS API, as the administrator. The operator's command has scenarios of its own.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Method;
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::Hub;
use crate::credentials::{Credentials, HUB_NAME};
use crate::{Answer, Fetch};

/// Where the Kubernetes API has clusters.
pub const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";

/// The terms of a join token.
#[derive(Debug, Clone)]
pub struct JoinTerms {
    /// The one cluster name it is good for; none: any.
    pub cluster: Option<String>,
    /// Whether a join by it needs no accept.
    pub auto_accept: bool,
    /// Whether it is good more than once.
    pub reusable: bool,
    /// How long it is good.
    pub ttl_seconds: u64,
}

/// Which clusters a user may reach.
#[derive(Debug, Clone)]
pub enum ClusterAccess {
    /// Every one.
    All,
    /// These, by name.
    Named(Vec<String>),
}

impl JoinTerms {
    /// Good for an hour, once, for `cluster` only, and accepted by itself.
    pub fn auto_accepted(cluster: &str) -> Self {
        Self { cluster: Some(cluster.to_owned()), auto_accept: true, reusable: false, ttl_seconds: 3600 }
    }
}

impl Hub {
    /// Makes a join token and gives its text.
    pub async fn create_token(&self, terms: &JoinTerms) -> Result<String> {
        let JoinTerms { cluster, auto_accept, reusable, ttl_seconds } = terms;
        let mut new = json!({ "autoAccept": auto_accept, "reusable": reusable, "ttlSeconds": ttl_seconds });
        if let Some(cluster) = cluster {
            new["cluster"] = json!(cluster);
        }
        let created = self.ask(Fetch::new(Method::POST, "/v1/tokens").json(&new)).await?.success()?.json()?;
        text(&created, "token")
    }

    /// The cluster as the hub sees it: OCM's ManagedCluster with `tunnel`, its tunnels, beside its fields, and its agents as
    /// they are seen now.
    pub async fn cluster(&self, name: &str) -> Result<Value> {
        let mut cluster = self.ask(Fetch::get(format!("{CLUSTERS}/{name}"))).await?.success()?.json()?;
        let tunnel = self.ask(Fetch::get(format!("/v1/tunnels/{name}"))).await?.success()?.json()?;
        for agent in cluster["status"]["agents"].as_array_mut().into_iter().flatten() {
            if let Some(seen) = agent["name"].as_str().and_then(|name| tunnel["agentsLastSeen"].get(name)) {
                agent["lastSeen"] = seen.clone();
            }
        }
        cluster["tunnel"] = tunnel;
        Ok(cluster)
    }

    /// The names of all clusters.
    pub async fn cluster_names(&self) -> Result<Vec<String>> {
        let list = self.ask(Fetch::get(CLUSTERS)).await?.success()?.json()?;
        let items = list["items"].as_array().with_context(|| format!("no items in {list}"))?;
        items.iter().map(|item| text(&item["metadata"], "name")).collect()
    }

    /// Whether a connection to the cluster would find a tunnel now. Not so for a cluster nobody knows.
    pub async fn is_available(&self, cluster: &str) -> bool {
        self.cluster(cluster).await.is_ok_and(|view| view["tunnel"]["available"] == true)
    }

    /// Accepts a cluster and the agents that wait.
    pub async fn accept(&self, cluster: &str) -> Result<()> {
        let shown = self.waiting(cluster).await?;
        self.accept_agents(cluster, &shown).await
    }

    /// The agents of a cluster that wait, as an administrator is shown them.
    pub async fn waiting(&self, cluster: &str) -> Result<Vec<Value>> {
        let cluster = self.cluster(cluster).await?;
        let agents = cluster["status"]["agents"].as_array().cloned().unwrap_or_default();
        let waiting = agents.iter().filter(|agent| agent["phase"] == "Pending");
        Ok(waiting.map(|agent| json!({"name": agent["name"], "key": agent["key"]})).collect())
    }

    /// Accepts a cluster with the agents that were shown.
    pub async fn accept_agents(&self, cluster: &str, shown: &[Value]) -> Result<()> {
        self.decide(cluster, shown, "Accepted").await?;
        self.patch(cluster, "", "merge-patch", &json!({"spec": {"hubAcceptsClient": true}})).await
    }

    /// Lets agents in that were shown, or sends them away.
    pub async fn decide(&self, cluster: &str, shown: &[Value], phase: &str) -> Result<()> {
        if shown.is_empty() {
            return Ok(());
        }
        let known = self.cluster(cluster).await?["status"]["agents"].as_array().cloned().unwrap_or_default();
        let mut operations = Vec::new();
        for agent in shown {
            let place = known.iter().position(|known| known["name"] == agent["name"]).context("no such agent")?;
            let path = format!("/status/agents/{place}");
            operations.push(json!({"op": "test", "path": format!("{path}/key"), "value": agent["key"]}));
            operations.push(json!({"op": "replace", "path": format!("{path}/phase"), "value": phase}));
        }
        self.patch(cluster, "/approval", "json-patch", &json!(operations)).await
    }

    /// Denies a cluster, whether it was accepted or only asks to join.
    pub async fn deny(&self, cluster: &str) -> Result<()> {
        let object = self.cluster(cluster).await?;
        if object["spec"]["hubAcceptsClient"] == true {
            return self.patch(cluster, "", "merge-patch", &json!({"spec": {"hubAcceptsClient": false}})).await;
        }
        let denied = json!({
            "type": "HubAcceptedManagedCluster", "status": "False", "reason": "Denied", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        let add = json!([{"op": "add", "path": "/status/conditions/-", "value": denied}]);
        self.patch(cluster, "/approval", "json-patch", &add).await
    }

    /// Deletes a cluster.
    pub async fn delete_cluster(&self, cluster: &str) -> Result<()> {
        self.ask(Fetch::new(Method::DELETE, format!("{CLUSTERS}/{cluster}"))).await?.success().map(drop)
    }

    async fn patch(&self, cluster: &str, part: &str, kind: &str, patch: &Value) -> Result<()> {
        let request = Fetch::new(Method::PATCH, format!("{CLUSTERS}/{cluster}{part}")).body(patch.to_string());
        let request = request.header("content-type", format!("application/{kind}+json"));
        self.ask(request).await?.success().map(drop)
    }

    /// Makes a user who is no administrator, good for a day, and gives the credentials.
    pub async fn create_user(&self, name: &str, access: &ClusterAccess) -> Result<Credentials> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?;
        let clusters = match access {
            ClusterAccess::All => json!("*"),
            ClusterAccess::Named(names) => json!(names),
        };
        let new = json!({
            "name": name,
            "admin": false,
            "groups": [],
            "clusters": clusters,
            "csr": STANDARD.encode(request.der()),
            "validitySeconds": 86_400,
        });
        let created = self.ask(Fetch::new(Method::POST, "/v1/users").json(&new)).await?.success()?.json()?;
        let authority = std::fs::read_to_string(self.credentials().authority_file())?;
        let (chain, token) = (text(&created, "certificateChainPem")?, text(&created, "token")?);
        Credentials::write(&authority, &chain, &key.serialize_pem(), &token)
    }

    /// Sends any request to the API with the administrator's token.
    pub async fn ask(&self, request: Fetch) -> Result<Answer> {
        let credentials = self.credentials();
        request.bearer(&credentials.token()?).tls(self.addresses().api, HUB_NAME, credentials.tls()?).await
    }
}

fn text(document: &Value, field: &str) -> Result<String> {
    Ok(document[field].as_str().with_context(|| format!("no {field} in the hub's answer"))?.to_owned())
}
