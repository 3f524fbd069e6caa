//! Nobody gives away a right that they do not hold themselves.

use std::fmt;

use thiserror::Error;

use super::RBAC_GROUP;
use super::attributes::Attributes;
use super::object::{RoleKind, RoleRef};
use super::policy::{Policy, is_master};
use super::quote::{Quoted, QuotedList};
use super::rule::{PolicyRule, missing};

/// Rights that a user would give away and does not hold, in kube-apiserver's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escalation {
    pub user: String,
    pub groups: Vec<String>,
    /// Not empty.
    pub missing: Vec<PolicyRule>,
    /// Roles of the user's own bindings that do not exist, in Kubernetes' words.
    pub unresolved: Vec<String>,
}

/// Why a role may not be written.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GrantError {
    #[error(transparent)]
    Escalation(Escalation),
    #[error("must have cluster-admin privileges to use an aggregationRule")]
    Aggregation,
}

/// Why a role may not be bound.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BindError {
    #[error(transparent)]
    Escalation(Escalation),
    /// 404: only who has the verb `bind` may bind a role that does not exist.
    #[error("{}.{RBAC_GROUP} {} not found", .0.kind.singular(), Quoted(&.0.name))]
    NoRole(RoleRef),
}

/// A role that is made or changed.
#[derive(Clone, Copy, Debug)]
pub struct RoleWrite<'a> {
    pub kind: RoleKind,
    /// Empty for a ClusterRole.
    pub namespace: &'a str,
    /// As the request names it: empty for a create.
    pub name: &'a str,
    /// After the write.
    pub rules: &'a [PolicyRule],
    /// Whether the role has an aggregation rule, before or after the write.
    pub aggregates: bool,
}

impl Policy {
    /// Whether the user holds all of `rules` in the namespace (everywhere, when it is empty); else those that are
    /// missing, as kube-apiserver lists them.
    pub fn covers(
        &self,
        user: &str,
        groups: &[String],
        namespace: &str,
        rules: &[PolicyRule],
    ) -> Result<(), Vec<PolicyRule>> {
        if is_master(groups) {
            return Ok(());
        }
        let (owned, _) = self.rules_for(user, groups, namespace);
        match missing(&owned, rules) {
            none if none.is_empty() => Ok(()),
            missing => Err(missing),
        }
    }

    /// Whether the user may write the role: they hold its rules, or have the verb `escalate` on it.
    pub fn may_grant(&self, user: &str, groups: &[String], role: &RoleWrite<'_>) -> Result<(), GrantError> {
        if self.has_verb("escalate", user, groups, role.namespace, role.kind, role.name) {
            return Ok(());
        }
        self.hold(user, groups, role.namespace, role.rules).map_err(GrantError::Escalation)?;
        if role.aggregates && self.covers(user, groups, "", &everything()).is_err() {
            return Err(GrantError::Aggregation);
        }
        Ok(())
    }

    /// Whether the user may bind the role in the namespace (everywhere, when it is empty): they have the verb `bind` on
    /// it, or hold its rules.
    pub fn may_bind(&self, user: &str, groups: &[String], namespace: &str, role: &RoleRef) -> Result<(), BindError> {
        if is_master(groups) || self.has_verb("bind", user, groups, namespace, role.kind, &role.name) {
            return Ok(());
        }
        let rules = self.rules_of(role, namespace).ok_or_else(|| BindError::NoRole(role.clone()))?;
        self.hold(user, groups, namespace, rules).map_err(BindError::Escalation)
    }

    fn hold(&self, user: &str, groups: &[String], namespace: &str, rules: &[PolicyRule]) -> Result<(), Escalation> {
        match self.lacked_rules(user, groups, namespace, rules) {
            none if none.is_empty() => Ok(()),
            missing => {
                let unresolved = self.rules_for(user, groups, namespace).1;
                Err(Escalation { user: user.to_owned(), groups: groups.to_vec(), missing, unresolved })
            }
        }
    }

    pub(super) fn has_verb(
        &self,
        verb: &str,
        user: &str,
        groups: &[String],
        namespace: &str,
        kind: RoleKind,
        name: &str,
    ) -> bool {
        let request = Attributes {
            user: user.to_owned(),
            groups: groups.to_vec(),
            verb: verb.to_owned(),
            api_group: RBAC_GROUP.to_owned(),
            resource: kind.plural().to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Attributes::default()
        };
        self.authorize(&request).is_allowed()
    }
}

/// What a cluster-admin holds: an aggregated role can come to hold anything.
pub fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    [
        PolicyRule { api_groups: all(), resources: all(), verbs: all(), ..PolicyRule::default() },
        PolicyRule { non_resource_urls: all(), verbs: all(), ..PolicyRule::default() },
    ]
}

impl std::error::Error for Escalation {}

impl fmt::Display for Escalation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, groups, missing, unresolved } = self;
        let (user, groups) = (Quoted(user), QuotedList(groups));
        write!(f, "user {user} (groups={groups}) is attempting to grant RBAC permissions not currently held:")?;
        for rule in missing {
            write!(f, "\n{rule}")?;
        }
        match unresolved.as_slice() {
            [] => Ok(()),
            [one] => write!(f, "; resolution errors: [{one}]"),
            many => write!(f, "; resolution errors: [[{}]]", many.join(", ")),
        }
    }
}
