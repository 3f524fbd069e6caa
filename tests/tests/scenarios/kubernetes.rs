//! The registry's Kubernetes-style API as an admin meets it: stock kubectl of every version at hand against a hub.

mod apply;
mod conditions;
mod errors;
mod escalation;
mod joining;
mod reading;
mod requests;
mod rights;
mod watching;
mod writing;

use std::time::Duration;

use anyhow::Result;
use tests::{Hub, Kubectl, tool};

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);
/// The set that a cluster is in.
const SET: &str = "cluster.open-cluster-management.io/clusterset";
const CLUSTER: &str = "managedcluster.cluster.open-cluster-management.io";

/// The administrator with the machine's own kubectl.
fn admin(hub: &Hub) -> Result<Kubectl> {
    Kubectl::administrator(hub, tool::kubectl()?)
}

/// The two that everything is asked of: the machine's own and the newest.
fn full(hub: &Hub) -> Result<Vec<Kubectl>> {
    Ok(vec![admin(hub)?, Kubectl::administrator(hub, tool::newest_kubectl()?)?])
}

/// Every other version, but Debian's.
fn others(hub: &Hub) -> Result<Vec<Kubectl>> {
    let newest = tool::newest_kubectl()?.name();
    let others = tool::kubectls_by_minor()?.into_iter().map(|(_, program)| program);
    others.filter(|program| program.name() != newest).map(|program| Kubectl::administrator(hub, program)).collect()
}

/// A cluster as its admin writes it, in the set `default`.
fn cluster(name: &str, accepted: bool) -> String {
    format!(
        "apiVersion: cluster.open-cluster-management.io/v1\n\
         kind: ManagedCluster\n\
         metadata:\n  name: {name}\n  labels: {{env: {name}-env}}\n\
         spec:\n  hubAcceptsClient: {accepted}\n  managedClusterClientConfigs:\n  - url: https://{name}.example:6443\n"
    )
}

/// A set whose members name it.
fn set(name: &str) -> String {
    format!(
        "apiVersion: cluster.open-cluster-management.io/v1beta2\n\
         kind: ManagedClusterSet\n\
         metadata:\n  name: {name}\n"
    )
}

/// A binding of a set to a namespace.
fn binding(namespace: &str, set: &str) -> String {
    format!(
        "apiVersion: cluster.open-cluster-management.io/v1beta2\n\
         kind: ManagedClusterSetBinding\n\
         metadata:\n  name: {set}\n  namespace: {namespace}\n\
         spec:\n  clusterSet: {set}\n"
    )
}
