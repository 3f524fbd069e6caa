//! The stored objects that make up the policy, as far as it reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use super::rule::{PolicyRule, null_as_default};

/// An object that the policy is made of.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind")]
pub enum Object {
    Role(Role),
    ClusterRole(Role),
    RoleBinding(Binding),
    ClusterRoleBinding(Binding),
    ManagedClusterSetBinding(SetBinding),
}

/// Which kind of object, for a removal that has only the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Role,
    ClusterRole,
    RoleBinding,
    ClusterRoleBinding,
    ManagedClusterSetBinding,
}

/// The object is none the policy can read; it was written past the API's validation.
#[derive(Debug, Error)]
pub enum ObjectError {
    #[error("the object is no role, binding or cluster set binding that can be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("the {kind} {name:?} has no namespace")]
    NoNamespace { kind: &'static str, name: Arc<str> },
}

/// Namespace (empty for the cluster scope) and name.
pub(super) type Key = (Arc<str>, Arc<str>);

/// The part of ObjectMeta the policy reads.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Metadata {
    pub name: Arc<str>,
    /// Empty for the kinds of the cluster scope.
    #[serde(default)]
    pub namespace: Arc<str>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub labels: BTreeMap<String, String>,
}

/// A Role or a ClusterRole.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Role {
    pub metadata: Metadata,
    #[serde(default, deserialize_with = "null_as_default")]
    pub rules: Vec<PolicyRule>,
    /// When set, `rules` is not looked at: the rules are those of the selected ClusterRoles.
    #[serde(default)]
    pub aggregation_rule: Option<AggregationRule>,
}

/// Which ClusterRoles a ClusterRole is put together from: those that any of the selectors selects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AggregationRule {
    #[serde(default, deserialize_with = "null_as_default")]
    pub cluster_role_selectors: Vec<LabelSelector>,
}

/// meta/v1 LabelSelector: all of its parts must hold, and an empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    #[serde(deserialize_with = "null_as_default")]
    pub match_labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_as_default")]
    pub match_expressions: Vec<LabelRequirement>,
}

/// One expression of a [`LabelSelector`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct LabelRequirement {
    pub key: String,
    pub operator: LabelOperator,
    #[serde(default, deserialize_with = "null_as_default")]
    pub values: Vec<String>,
}

/// How a [`LabelRequirement`] looks at its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// A RoleBinding or a ClusterRoleBinding.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    pub metadata: Metadata,
    pub role_ref: RoleRef,
    #[serde(default, deserialize_with = "null_as_default")]
    pub subjects: Vec<Subject>,
}

/// The role a binding gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRef {
    pub kind: RoleKind,
    pub name: Arc<str>,
}

/// Role (of the binding's own namespace) or ClusterRole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RoleKind {
    Role,
    ClusterRole,
}

/// Whom a binding gives its role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    pub kind: SubjectKind,
    pub name: String,
    /// Of a ServiceAccount only; when empty, the binding's own namespace.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SubjectKind {
    User,
    Group,
    ServiceAccount,
}

/// ManagedClusterSetBinding v1beta2: makes a set usable in the binding's namespace, once it is bound.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SetBinding {
    pub metadata: Metadata,
    spec: SetBindingSpec,
    #[serde(default)]
    status: SetBindingStatus,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SetBindingSpec {
    cluster_set: Arc<str>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct SetBindingStatus {
    #[serde(default, deserialize_with = "null_as_default")]
    conditions: Vec<BoundCondition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct BoundCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
}

impl Object {
    /// Reads a stored object of one of the five kinds.
    pub fn parse(value: &Value) -> Result<Self, ObjectError> {
        let mut object = Self::deserialize(value).map_err(ObjectError::Unreadable)?;
        let (kind, namespaced, metadata) = match &mut object {
            Self::Role(role) => ("Role", true, &mut role.metadata),
            Self::ClusterRole(role) => ("ClusterRole", false, &mut role.metadata),
            Self::RoleBinding(binding) => ("RoleBinding", true, &mut binding.metadata),
            Self::ClusterRoleBinding(binding) => ("ClusterRoleBinding", false, &mut binding.metadata),
            Self::ManagedClusterSetBinding(binding) => ("ManagedClusterSetBinding", true, &mut binding.metadata),
        };
        if !namespaced {
            metadata.namespace = Arc::from("");
        } else if metadata.namespace.is_empty() {
            return Err(ObjectError::NoNamespace { kind, name: Arc::clone(&metadata.name) });
        }
        if let Self::Role(role) = &mut object {
            role.aggregation_rule = None;
        }
        Ok(object)
    }
}

impl Metadata {
    pub(super) fn key(&self) -> Key {
        (Arc::clone(&self.namespace), Arc::clone(&self.name))
    }
}

impl AggregationRule {
    pub(super) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.cluster_role_selectors.iter().any(|selector| selector.selects(labels))
    }
}

impl LabelSelector {
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.match_expressions.iter().all(|expression| expression.holds(labels))
    }
}

impl LabelRequirement {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            LabelOperator::In => listed,
            LabelOperator::NotIn => !listed,
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

impl Binding {
    /// The first subject that is the user or one of the groups.
    pub(super) fn subject_for(&self, user: &str, groups: &[String]) -> Option<&Subject> {
        self.subjects.iter().find(|subject| match subject.kind {
            SubjectKind::User => subject.name == user,
            SubjectKind::Group => groups.contains(&subject.name),
            SubjectKind::ServiceAccount => self.service_account(subject).is_some_and(|name| name == user),
        })
    }

    /// The user name of a ServiceAccount; none when nothing says its namespace.
    pub(super) fn service_account(&self, subject: &Subject) -> Option<String> {
        let namespace = self.namespace_of(subject);
        (!namespace.is_empty()).then(|| format!("system:serviceaccount:{namespace}:{}", subject.name))
    }

    pub(super) fn namespace_of<'a>(&'a self, subject: &'a Subject) -> &'a str {
        if subject.namespace.is_empty() { &self.metadata.namespace } else { &subject.namespace }
    }

    /// The namespace this binding is limited to; none for a ClusterRoleBinding.
    pub(super) fn namespace(&self) -> Option<&str> {
        Some(&*self.metadata.namespace).filter(|namespace| !namespace.is_empty())
    }
}

impl RoleKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Role => "Role",
            Self::ClusterRole => "ClusterRole",
        }
    }

    /// As a NotFound names it.
    pub(super) fn singular(self) -> &'static str {
        match self {
            Self::Role => "role",
            Self::ClusterRole => "clusterrole",
        }
    }

    /// As the API names the collection.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Role => "roles",
            Self::ClusterRole => "clusterroles",
        }
    }
}

impl SubjectKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Group => "Group",
            Self::ServiceAccount => "ServiceAccount",
        }
    }
}

impl SetBinding {
    pub(super) fn set(&self) -> &Arc<str> {
        &self.spec.cluster_set
    }

    /// Whether the set exists, and so the binding works.
    pub(super) fn is_bound(&self) -> bool {
        self.spec.cluster_set == self.metadata.name
            && self.status.conditions.iter().any(|condition| condition.type_ == "Bound" && condition.status == "True")
    }
}
