//! Rights: Kubernetes' role-based access control, and what we add to it for reaching clusters.
//!
//! [`Policy`] is the snapshot that answers; it is told of one object at a time and knows no clock, socket or store.
//!
//! What a user sees in a filtered list or watch, and may get by name:
//! 1. Kubernetes' own: a rule with the asked verb shows what it covers; with `resourceNames`, these objects.
//! 2. A rule on `managedclustersets` that names sets shows these sets and the clusters in them.
//! 3. A right held through a RoleBinding of a workspace counts for the sets bound there and their clusters.
//! 4. What one may `proxy` to one may see; without names, `proxy` on `managedclustersets` is on every set's clusters.
//! 5. Only get, list, watch and proxy go through sets and workspaces; every other verb is plain Kubernetes.

mod attributes;
pub mod builtin;
mod escalation;
mod grant;
mod handout;
mod object;
mod policy;
mod proxy;
mod quote;
pub mod review;
mod rule;
mod sets;
#[cfg(test)]
mod tests;
mod visibility;

pub use attributes::{Attributes, Decision, Denial};
pub use escalation::{BindError, Escalation, GrantError, RoleWrite, everything};
pub use grant::{Grant, Path, Source};
pub use handout::Gain;
pub use object::{
    AggregationRule, Binding, Kind, LabelOperator, LabelRequirement, LabelSelector, Metadata, Object, ObjectError,
    Role, RoleKind, RoleRef, SetBinding, Subject, SubjectKind,
};
pub use policy::Policy;
pub use proxy::Denied;
pub use review::Caller;
pub use rule::PolicyRule;
pub use sets::Members;
pub use visibility::{ReadVerb, Scope, Visibility, VisibilityQuery, VisibleInNamespace, VisibleObjects};

/// Who is in this group may do everything, whatever the roles say.
pub const MASTERS: &str = "system:masters";
/// The API group of clusters, sets and their bindings.
pub const CLUSTER_GROUP: &str = "cluster.open-cluster-management.io";
/// The API group of joining: who accepts clusters, and makes users and tokens.
pub const REGISTER_GROUP: &str = "register.open-cluster-management.io";
/// The API group of roles and bindings.
pub const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

const CLUSTERS: &str = "managedclusters";
const SETS: &str = "managedclustersets";
const PROXY: &str = "proxy";
