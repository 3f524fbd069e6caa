//! Users in the registry: who they are, and the roles that they are given when they are made.

use std::sync::Arc;

use certs::UserName;
use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};
use thiserror::Error;

use super::{ATTEMPTS, Registry, json, random_uuid, value, values};
use crate::cluster::whole_second;
use crate::kube::{
    object,
    rbac::{CLUSTER_GROUP, Caller, Escalation, Gain, PolicyRule, RBAC_GROUP, builtin, everything},
};
use crate::secret::{DrawnToken, PresentedToken, TokenKind};
use crate::store::{CommitError, Txn};
use crate::user::{NewUser, Reach, Role, User, UserToken};
use crate::view::Change;

/// Why a user was not made.
#[derive(Debug, Error)]
pub enum NewUserError {
    #[error("user {name} exists already; choose another name, or delete that user first")]
    Exists { name: UserName },
    #[error("the user could not be stored; try again in a moment")]
    Store(#[source] CommitError),
}

/// Why a user was not changed.
#[derive(Debug, Error)]
pub enum UserError {
    #[error("no user {name} is registered")]
    Unknown { name: UserName },
    #[error("the user could not be changed; try again in a moment")]
    Store(#[source] CommitError),
}

impl Registry {
    pub fn user(&self, name: &UserName) -> Option<Arc<User>> {
        value(self.view.read().users.get(name))
    }

    /// Every user, sorted by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        values(&self.view.read().users)
    }

    /// The user whose token `cpu-<id>.<secret>` this is.
    pub fn authenticate(&self, token: &str) -> Option<Arc<User>> {
        let presented = PresentedToken::parse(TokenKind::User, token)?;
        let owner = self.view.read().owner(presented.id).cloned()?;
        let kept = owner.tokens.iter().find(|kept| kept.id == presented.id)?;
        presented.matches(&kept.hash).then_some(owner)
    }

    /// Whether the asker holds all that a new user could do: what it is made with, and what is bound to its name.
    pub fn may_create_user(&self, asker: &Caller, new: &NewUser) -> Result<(), Escalation> {
        let own = own_rules(&new.clusters);
        // Groups count in the clusters, too, where nobody here knows what is bound to them.
        let everything = if new.groups.is_empty() { Vec::new() } else { everything().to_vec() };
        let role = match (new.role, &new.clusters) {
            (Role::Admin, _) => Gain::Bound { role: builtin::ADMIN },
            (Role::User, Reach::All) => Gain::Bound { role: builtin::USER },
            (Role::User, Reach::Named(_)) => Gain::Rules { namespace: "", rules: own.as_slice() },
        };
        let named = Gain::Person { user: new.name.as_ref(), groups: &new.groups };
        let gains = [role, named, Gain::Rules { namespace: "", rules: &everything }];
        self.with_policy(|policy| policy.may_hand_out(asker, &gains))
    }

    /// Makes a user with one token, and binds it to its role. The token's text is in the answer and nowhere else.
    pub async fn create_user(&self, new: NewUser, now: Timestamp) -> Result<(User, SecretString), NewUserError> {
        let drawn = DrawnToken::draw(TokenKind::User);
        let user = User {
            name: new.name,
            groups: new.groups,
            tokens: vec![UserToken { id: drawn.id, hash: drawn.hash }],
            created_at: whole_second(now),
        };
        let key = Change::User(user.name.clone()).key();
        let txn = Txn::new().expect_absent(&key).put(key, json(&user));
        match self.store.commit(grant(txn, &user.name, new.role, &new.clusters, now)).await {
            Ok(_) => Ok((user, drawn.text)),
            Err(CommitError::Conflict { .. }) => Err(NewUserError::Exists { name: user.name }),
            Err(error) => Err(NewUserError::Store(error)),
        }
    }

    /// Deletes a user: its token and its certificate are good for nothing any more. So is the role it was made with;
    /// what else is bound to its name stays.
    pub async fn delete_user(&self, name: &UserName) -> Result<(), UserError> {
        if self.user(name).is_none() {
            return Err(UserError::Unknown { name: name.clone() });
        }
        let (role, binding) = keys(name);
        let txn = Txn::new().delete(Change::User(name.clone()).key()).delete(role).delete(binding);
        self.store.commit(txn).await.map_err(UserError::Store)?;
        Ok(())
    }

    /// Sets which clusters a user reaches by its own role, taking the place of what it was made with.
    pub async fn set_reach(&self, name: &UserName, clusters: &Reach, now: Timestamp) -> Result<(), UserError> {
        let key = Change::User(name.clone()).key();
        for _ in 0..ATTEMPTS {
            let found = self.view.read().users.get(name).cloned();
            let found = found.ok_or_else(|| UserError::Unknown { name: name.clone() })?;
            let txn = grant(Txn::new().expect(&key, found.modified), name, Role::User, clusters, now);
            match self.store.commit(txn).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(UserError::Store(error)),
            }
        }
        Err(UserError::Store(CommitError::Overloaded))
    }

    /// What a user was given when it was made, or since; other bindings may give it more.
    pub fn role_of(&self, name: &UserName) -> (Role, Reach) {
        let (role, binding) = keys(name);
        let stored = |key: &str| self.store.get(key).and_then(|stored| object::read(&stored));
        let named = stored(&binding).map(|binding| binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned());
        match named.as_deref() {
            Some(builtin::ADMIN) => (Role::Admin, Reach::All),
            Some(builtin::USER) => (Role::User, Reach::All),
            _ => {
                let names = stored(&role).map(|role| role["rules"][0]["resourceNames"].clone()).unwrap_or_default();
                (Role::User, Reach::Named(serde_json::from_value(names).unwrap_or_default()))
            }
        }
    }
}

/// The keys of a user's own ClusterRole and ClusterRoleBinding.
fn keys(name: &UserName) -> (String, String) {
    let own = own_role(name);
    (format!("/clusterroles/{own}"), format!("/clusterrolebindings/{own}"))
}

fn own_role(name: &UserName) -> String {
    format!("{}:{name}", builtin::USER)
}

/// Binds the user to a role: one of the two that every hub has, or its own with the names of clusters.
fn grant(txn: Txn, name: &UserName, role: Role, clusters: &Reach, now: Timestamp) -> Txn {
    let (role_key, binding_key) = keys(name);
    let (bound, rules) = match (role, clusters) {
        (Role::Admin, _) => (builtin::ADMIN.to_owned(), None),
        (Role::User, Reach::All) => (builtin::USER.to_owned(), None),
        (Role::User, Reach::Named(names)) if names.is_empty() => return txn.delete(role_key).delete(binding_key),
        (Role::User, Reach::Named(_)) => (own_role(name), Some(json!(own_rules(clusters)))),
    };
    let txn = match rules {
        Some(rules) => txn.put(role_key, object("ClusterRole", name, now, json!({"rules": rules}))),
        None => txn.delete(role_key),
    };
    let reference = json!({"apiGroup": RBAC_GROUP, "kind": "ClusterRole", "name": bound});
    let subject = json!({"apiGroup": RBAC_GROUP, "kind": "User", "name": name});
    let binding = json!({"roleRef": reference, "subjects": [subject]});
    txn.put(binding_key, object("ClusterRoleBinding", name, now, binding))
}

/// The rules of the role of a user's own.
fn own_rules(clusters: &Reach) -> Vec<PolicyRule> {
    let strings = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
    match clusters {
        Reach::Named(names) if !names.is_empty() => vec![PolicyRule {
            api_groups: strings(&[CLUSTER_GROUP]),
            resources: strings(&["managedclusters"]),
            verbs: strings(&["get", "list", "watch", "proxy"]),
            resource_names: names.iter().map(ToString::to_string).collect(),
            ..PolicyRule::default()
        }],
        Reach::Named(_) | Reach::All => Vec::new(),
    }
}

fn object(kind: &str, name: &UserName, now: Timestamp, mut object: Value) -> Vec<u8> {
    object["apiVersion"] = format!("{RBAC_GROUP}/v1").into();
    object["kind"] = kind.into();
    object["metadata"] =
        json!({"name": own_role(name), "uid": random_uuid(), "creationTimestamp": whole_second(now).to_string()});
    object::write(&object)
}
