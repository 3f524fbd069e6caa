//! Who may reach which cluster: one pure rule, and nothing is allowed that it does not name.

use std::fmt;

use certs::{ClusterName, UserName};
use thiserror::Error;

use crate::user::{Reach, Role, User};

/// Why a connection is allowed; its `Display` is the `rule` of the audit event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The user is an admin.
    Admin,
    /// The user may reach every cluster.
    EveryCluster { user: UserName },
    /// The user may reach this cluster.
    Cluster { user: UserName, cluster: ClusterName },
}

/// The user lacks the right to reach the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "user {user} lacks the right: verb proxy on managedclusters/{cluster}; ask an admin to add {cluster} to the \
     clusters of user {user}"
)]
pub struct Denied {
    pub user: UserName,
    pub cluster: ClusterName,
}

/// Decides whether `user` may open connections to `cluster`.
///
/// Whether the cluster exists, is accepted and has a tunnel is not asked here.
pub fn authorize(user: &User, cluster: &ClusterName) -> Result<Rule, Denied> {
    match (user.role, &user.clusters) {
        (Role::Admin, _) => Ok(Rule::Admin),
        (Role::User, Reach::All) => Ok(Rule::EveryCluster { user: user.name.clone() }),
        (Role::User, Reach::Named(names)) if names.contains(cluster) => {
            Ok(Rule::Cluster { user: user.name.clone(), cluster: cluster.clone() })
        }
        (Role::User, Reach::Named(_)) => Err(Denied { user: user.name.clone(), cluster: cluster.clone() }),
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.write_str("role admin"),
            Self::EveryCluster { user } => write!(f, "user {user} may proxy managedclusters/*"),
            Self::Cluster { user, cluster } => write!(f, "user {user} may proxy managedclusters/{cluster}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn user(role: Role, clusters: Reach) -> User {
        User {
            name: "alice".parse().unwrap(),
            role,
            groups: vec!["system:masters".to_owned()],
            clusters,
            tokens: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn cluster(name: &str) -> ClusterName {
        name.parse().unwrap()
    }

    #[test]
    fn a_user_without_clusters_reaches_none() {
        let denied = authorize(&user(Role::User, Reach::Named(BTreeSet::new())), &cluster("c1")).unwrap_err();
        assert!(denied.to_string().contains("verb proxy on managedclusters/c1"));
    }

    #[test]
    fn the_rule_reads_as_the_audit_event_wants_it() {
        let rule = |role, reach| authorize(&user(role, reach), &cluster("c1")).unwrap().to_string();
        assert_eq!(rule(Role::Admin, Reach::Named(BTreeSet::new())), "role admin");
        assert_eq!(rule(Role::User, Reach::All), "user alice may proxy managedclusters/*");
        assert_eq!(rule(Role::User, Reach::Named([cluster("c1")].into())), "user alice may proxy managedclusters/c1");
    }

    proptest! {
        #[test]
        fn a_plain_user_reaches_exactly_the_named_clusters(
            named in proptest::collection::btree_set("[a-c]{1,2}", 0..6),
            asked in "[a-c]{1,2}",
        ) {
            let reach = Reach::Named(named.iter().map(|name| cluster(name)).collect());
            let allowed = authorize(&user(Role::User, reach), &cluster(&asked)).is_ok();
            prop_assert_eq!(allowed, named.contains(&asked));
        }
    }
}
