//! A seeded registry: clusters, sets and users, written into a hub's store while it does not run.

use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use registry::{ClusterScope, MAX_USER_VALIDITY, NewUser, Registry, Role, new_uid};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use store::Txn;

use crate::fleet::Fleet;

/// Objects in one transaction.
const TOGETHER: usize = 100;
/// The group of clusters and sets.
const GROUP: &str = "cluster.open-cluster-management.io";

/// How many there are of each.
#[derive(Debug, Clone, Copy)]
pub struct SeededRegistry {
    /// Clusters, as they are when their agent has connected once. The label `half` is `0` or `1`, in turns.
    pub clusters: usize,
    /// Sets of a team each, beside `half-0` and `half-1`.
    pub sets: usize,
    /// Users, of whom the first half see the set `half-0`, the others `half-1`.
    pub users: usize,
}

impl SeededRegistry {
    /// Writes it into `hub`, the state folder of a hub that does not run. Gives the users' tokens.
    pub async fn write(&self, hub: &Path) -> Result<Vec<String>> {
        let registry = Registry::open(hub.join("registry.redb"))?;
        let now = Timestamp::now();
        let teams = (0..self.sets).map(|team| set(&format!("team-{team:03}"), "team", &team.to_string(), now));
        let halves = (0..2).map(|half| set(&format!("half-{half}"), "half", &half.to_string(), now));
        let clusters = (0..self.clusters).map(|index| cluster(index, self.sets, now));
        let rights = (0..self.users).flat_map(|user| rights(user, usize::from(user >= self.users / 2), now));
        let objects: Vec<_> = clusters.chain(teams).chain(halves).chain(rights).collect();
        for some in objects.chunks(TOGETHER) {
            let put = |txn: Txn, (key, object): &(String, Value)| txn.put(key, object.to_string().into_bytes());
            registry.store().commit(some.iter().fold(Txn::new(), put)).await?;
        }
        let mut tokens = Vec::new();
        for user in 0..self.users {
            let clusters = ClusterScope::Named(Default::default());
            let name = name(user).parse()?;
            let (uid, validity) = (new_uid(), MAX_USER_VALIDITY);
            let new = NewUser { name, role: Role::User, groups: Vec::new(), clusters, uid, validity };
            let (_, token) = registry.create_user(new, now).await?;
            tokens.push(token.expose_secret().to_owned());
        }
        registry.close().await;
        Ok(tokens)
    }
}

fn name(user: usize) -> String {
    format!("watcher-{user}")
}

fn metadata(name: &str, now: Timestamp) -> Value {
    json!({"name": name, "uid": format!("uid-of-{name}"), "creationTimestamp": now.to_string(), "generation": 1})
}

fn cluster(index: usize, teams: usize, now: Timestamp) -> (String, Value) {
    let name = Fleet::cluster(index);
    let condition = |kind: &str, message: &str| json!({"type": kind, "status": "True", "reason": kind, "message": message, "lastTransitionTime": now.to_string()});
    let mut metadata = metadata(&name, now);
    metadata["labels"] = json!({
        format!("{GROUP}/clusterset"): "default", "half": (index % 2).to_string(),
        "team": (index % teams.max(1)).to_string(), "vendor": "Kubernetes", "region": "eu-central-1",
    });
    let cluster = json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "ManagedCluster", "metadata": metadata,
        "spec": {"hubAcceptsClient": true, "leaseDurationSeconds": 60},
        "status": {
            "conditions": [
                condition("HubAcceptedManagedCluster", "Accepted by hub cluster admin"),
                condition("ManagedClusterJoined", "Managed cluster joined"),
                condition("ManagedClusterConditionAvailable", "Managed cluster is available"),
            ],
            "agents": [{
                "name": "a", "key": format!("sha256:{index:064x}"), "phase": "Accepted", "requestedAt": now.to_string(),
                "lastSeen": now.to_string(), "version": "1.0.0",
            }],
            "lastSeen": now.to_string(),
        },
    });
    (format!("/managedclusters/{name}"), cluster)
}

fn set(name: &str, label: &str, value: &str, now: Timestamp) -> (String, Value) {
    let set = json!({
        "apiVersion": format!("{GROUP}/v1beta2"), "kind": "ManagedClusterSet", "metadata": metadata(name, now),
        "spec": {"clusterSelector": {"selectorType": "LabelSelector", "labelSelector": {"matchLabels": {label: value}}}},
    });
    (format!("/managedclustersets/{name}"), set)
}

/// To see the clusters of a half.
fn rights(user: usize, half: usize, now: Timestamp) -> [(String, Value); 2] {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let name = name(user);
    let role = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRole", "metadata": metadata(&name, now),
        "rules": [{
            "apiGroups": [GROUP], "resources": ["managedclustersets"], "verbs": ["get", "list", "watch"],
            "resourceNames": [format!("half-{half}")],
        }],
    });
    let binding = json!({
        "apiVersion": format!("{RBAC}/v1"), "kind": "ClusterRoleBinding", "metadata": metadata(&name, now),
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": name}],
    });
    [(format!("/clusterroles/{name}"), role), (format!("/clusterrolebindings/{name}"), binding)]
}
