//! Who may reach which cluster.

use thiserror::Error;

use super::grant::Grant;
use super::policy::{Held, Policy};
use super::quote::Quoted;
use super::rule::PolicyRule;
use super::visibility::Target;
use super::{CLUSTER_GROUP, CLUSTERS, PROXY};

/// The user may not reach the cluster. The text is the same whether the cluster exists or not, and names no set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "User {} cannot {PROXY} resource \"{CLUSTERS}\" in API group \"{CLUSTER_GROUP}\" at the cluster scope; ask an admin \
     of the hub for the right: verb {PROXY} on managedclusters/{cluster}, or on a managedclusterset that holds it",
    Quoted(.user)
)]
pub struct Denied {
    pub user: String,
    pub cluster: String,
}

impl Policy {
    /// Whether the user may open connections to the cluster, and by which right: the verb `proxy` on the cluster, or on
    /// a set that holds it, everywhere or through a workspace in which such a set is bound.
    ///
    /// Whether the cluster exists, is accepted and has a tunnel is not asked here.
    pub fn may_proxy(&self, user: &str, groups: &[String], cluster: &str) -> Result<Grant, Denied> {
        let shown = |held: &Held<'_>, rule: &PolicyRule| self.clusters(held.binding, rule, PROXY, Some(cluster));
        self.grant(user, groups, Target::Cluster, cluster, shown)
            .ok_or_else(|| Denied { user: user.to_owned(), cluster: cluster.to_owned() })
    }
}
