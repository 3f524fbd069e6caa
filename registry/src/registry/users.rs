//! Users in the registry: who they are, and the roles that they are given when they are made.

use std::sync::Arc;
use std::time::Duration;

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
use crate::rights_queue::mark;
use crate::secret::{DrawnToken, PresentedToken, TokenKind};
use crate::user::{ClusterScope, Login, MAX_USER_TOKENS, MAX_USER_VALIDITY, NewUser, Role, User, UserToken};
use crate::view::Change;
use store::{CommitError, Txn};

/// Why a user was not made.
#[derive(Debug, Error)]
pub enum NewUserError {
    #[error("user {name} exists already; choose another name, or delete that user first")]
    Exists { name: UserName },
    #[error("a user's token is good for one second to {MAX_DAYS} days; choose another validity")]
    Validity,
    #[error("the user could not be stored; try again in a moment")]
    Store(#[source] CommitError),
}

/// Why a token is nobody's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokenRefusal {
    #[error("the token is not known here")]
    Unknown,
    #[error("the token of {user} ended at {at}")]
    Expired { user: UserName, at: Timestamp },
}

/// Why a user was not changed.
#[derive(Debug, Error)]
pub enum UserError {
    #[error("no user {name} is registered")]
    Unknown { name: UserName },
    #[error("user {name} has no token {token}; list them: cluster-proxy user token list {name}")]
    UnknownToken { name: UserName, token: String },
    #[error("user {name} has a token {token} already; choose another name, or delete that one first")]
    TokenExists { name: UserName, token: String },
    #[error("{token:?} is no name for a token; use up to 63 letters, digits, '-', '_' and '.'")]
    TokenName { token: String },
    #[error("user {name} has {MAX_USER_TOKENS} tokens; delete one first: cluster-proxy user token list {name}")]
    TooManyTokens { name: UserName },
    #[error("a user's token is good for one second to {MAX_DAYS} days; choose another validity")]
    Validity,
    #[error("the user could not be changed; try again in a moment")]
    Store(#[source] CommitError),
}

const MAX_DAYS: u64 = MAX_USER_VALIDITY.as_secs() / 86_400;

/// The token that a user is made with.
const FIRST_TOKEN: &str = "default";

/// What a user's uid is drawn as.
pub fn new_uid() -> String {
    random_uuid()
}

impl Registry {
    pub fn user(&self, name: &UserName) -> Option<Arc<User>> {
        value(self.view.read().users.get(name))
    }

    /// Every user, sorted by name.
    pub fn users(&self) -> Vec<Arc<User>> {
        values(&self.view.read().users)
    }

    /// The user whose token `cpu-<id>.<secret>` this is, if the token is good at `now`.
    pub fn authenticate(&self, token: &str, now: Timestamp) -> Result<Login, TokenRefusal> {
        let presented = PresentedToken::parse(TokenKind::User, token).ok_or(TokenRefusal::Unknown)?;
        let owner = self.view.read().owner(presented.id).cloned().ok_or(TokenRefusal::Unknown)?;
        let kept = owner.tokens.iter().find(|kept| kept.id == presented.id && presented.matches(&kept.hash));
        let kept = kept.ok_or(TokenRefusal::Unknown)?;
        match kept.expires_at {
            Some(at) if kept.expired(now) => Err(TokenRefusal::Expired { user: owner.name.clone(), at }),
            _ => Ok(Login::by_token(Arc::clone(&owner), kept)),
        }
    }

    /// The user of now that a login is of, as long as what was shown is good.
    pub fn current(&self, login: &Login, now: Timestamp) -> Option<Arc<User>> {
        self.user(&login.name).filter(|current| login.is_valid(current, now))
    }

    /// Whether the asker holds all that a new user could do: what it is made with, and what is bound to its name.
    pub fn may_create_user(&self, asker: &Caller, new: &NewUser) -> Result<(), Escalation> {
        let own = own_rules(&new.clusters);
        let role = match (new.role, &new.clusters) {
            (Role::Admin, _) => Gain::Bound { role: builtin::ADMIN },
            (Role::User, ClusterScope::All) => Gain::Bound { role: builtin::USER },
            (Role::User, ClusterScope::Named(_)) => Gain::Rules { namespace: "", rules: own.as_slice() },
        };
        self.may_be(asker, &[role], new.name.as_ref(), &new.groups)
    }

    /// Whether the asker holds all that a user can do, whose credentials they ask for.
    pub fn may_speak_for(&self, asker: &Caller, user: &User) -> Result<(), Escalation> {
        self.may_be(asker, &[], user.name.as_ref(), &user.groups)
    }

    fn may_be(&self, asker: &Caller, gains: &[Gain<'_>], user: &str, groups: &[String]) -> Result<(), Escalation> {
        // Groups count in the clusters, too, where nobody here knows what is bound to them.
        let everything = if groups.is_empty() { Vec::new() } else { everything().to_vec() };
        let person = [Gain::Person { user, groups }, Gain::Rules { namespace: "", rules: &everything }];
        self.with_policy(|policy| policy.may_hand_out(asker, &[gains, &person].concat()))
    }

    /// Makes a user with one token, and binds it to its role. The token's text is in the answer and nowhere else.
    pub async fn create_user(&self, new: NewUser, now: Timestamp) -> Result<(User, SecretString), NewUserError> {
        let (token, text) = draw(FIRST_TOKEN, new.validity, now).ok_or(NewUserError::Validity)?;
        let user = User {
            name: new.name,
            uid: Some(new.uid),
            groups: new.groups,
            tokens: vec![token],
            created_at: whole_second(now),
        };
        let key = Change::User(user.name.clone()).key();
        let txn = Txn::new().expect_absent(&key).put(key, json(&user));
        match self.store.commit(grant(txn, &user.name, new.role, &new.clusters, now)).await {
            Ok(_) => Ok((user, text)),
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
        let txn = mark(Txn::new().delete(Change::User(name.clone()).key()).delete(role).delete(binding));
        self.store.commit(txn).await.map_err(UserError::Store)?;
        Ok(())
    }

    /// Makes a further token of a user. Its text is in the answer and nowhere else.
    pub async fn create_user_token(
        &self,
        name: &UserName,
        token: &str,
        validity: Duration,
        now: Timestamp,
    ) -> Result<(UserToken, SecretString), UserError> {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !(1..=63).contains(&token.len()) || !token.bytes().all(inner) {
            return Err(UserError::TokenName { token: token.to_owned() });
        }
        let (drawn, text) = draw(token, validity, now).ok_or(UserError::Validity)?;
        self.update_user(name, |user| {
            // One that has ended keeps nobody from its name.
            user.tokens.retain(|known| known.name != token || !known.expired(now));
            if user.tokens.iter().any(|known| known.name == token) {
                return Err(UserError::TokenExists { name: name.clone(), token: token.to_owned() });
            }
            if user.tokens.len() >= MAX_USER_TOKENS {
                return Err(UserError::TooManyTokens { name: name.clone() });
            }
            user.tokens.push(drawn.clone());
            Ok(())
        })
        .await?;
        Ok((drawn, text))
    }

    /// Deletes a token of a user, by its name or id: what was opened with it is cut.
    pub async fn delete_user_token(&self, name: &UserName, token: &str) -> Result<(), UserError> {
        self.update_user(name, |user| {
            let found = user.tokens.iter().position(|known| known.name == token || known.id == token);
            let unknown = || UserError::UnknownToken { name: name.clone(), token: token.to_owned() };
            user.tokens.remove(found.ok_or_else(unknown)?);
            Ok(())
        })
        .await
    }

    async fn update_user(
        &self,
        name: &UserName,
        change: impl Fn(&mut User) -> Result<(), UserError>,
    ) -> Result<(), UserError> {
        let key = Change::User(name.clone()).key();
        for _ in 0..ATTEMPTS {
            let found = self.view.read().users.get(name).cloned();
            let found = found.ok_or_else(|| UserError::Unknown { name: name.clone() })?;
            let mut user = User::clone(&found.value);
            change(&mut user)?;
            match self.store.commit(Txn::new().expect(&key, found.modified).put(&key, json(&user))).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(UserError::Store(error)),
            }
        }
        Err(UserError::Store(CommitError::Overloaded))
    }

    /// Sets which clusters a user reaches by its own role, taking the place of what it was made with.
    pub async fn set_reach(&self, name: &UserName, clusters: &ClusterScope, now: Timestamp) -> Result<(), UserError> {
        let key = Change::User(name.clone()).key();
        for _ in 0..ATTEMPTS {
            let found = self.view.read().users.get(name).cloned();
            let found = found.ok_or_else(|| UserError::Unknown { name: name.clone() })?;
            let txn = mark(grant(Txn::new().expect(&key, found.modified), name, Role::User, clusters, now));
            match self.store.commit(txn).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(UserError::Store(error)),
            }
        }
        Err(UserError::Store(CommitError::Overloaded))
    }

    /// What a user was given when it was made, or since; other bindings may give it more.
    pub fn role_of(&self, name: &UserName) -> (Role, ClusterScope) {
        let (role, binding) = keys(name);
        let stored = |key: &str| self.store.get(key).and_then(|stored| object::read(&stored));
        let named = stored(&binding).map(|binding| binding["roleRef"]["name"].as_str().unwrap_or_default().to_owned());
        match named.as_deref() {
            Some(builtin::ADMIN) => (Role::Admin, ClusterScope::All),
            Some(builtin::USER) => (Role::User, ClusterScope::All),
            _ => {
                let names = stored(&role).map(|role| role["rules"][0]["resourceNames"].clone()).unwrap_or_default();
                (Role::User, ClusterScope::Named(serde_json::from_value(names).unwrap_or_default()))
            }
        }
    }
}

/// A token that is good from `now` on; `None` when it would be for too short or too long.
fn draw(name: &str, validity: Duration, now: Timestamp) -> Option<(UserToken, SecretString)> {
    if validity.as_secs() == 0 || validity > MAX_USER_VALIDITY {
        return None;
    }
    let expires_at = whole_second(now.checked_add(validity).ok()?);
    let DrawnToken { id, hash, text } = DrawnToken::draw(TokenKind::User);
    let created_at = Some(whole_second(now));
    Some((UserToken { id, hash, name: name.to_owned(), expires_at: Some(expires_at), created_at }, text))
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
fn grant(txn: Txn, name: &UserName, role: Role, clusters: &ClusterScope, now: Timestamp) -> Txn {
    let (role_key, binding_key) = keys(name);
    let (bound, rules) = match (role, clusters) {
        (Role::Admin, _) => (builtin::ADMIN.to_owned(), None),
        (Role::User, ClusterScope::All) => (builtin::USER.to_owned(), None),
        (Role::User, ClusterScope::Named(names)) if names.is_empty() => {
            return txn.delete(role_key).delete(binding_key);
        }
        (Role::User, ClusterScope::Named(_)) => (own_role(name), Some(json!(own_rules(clusters)))),
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
fn own_rules(clusters: &ClusterScope) -> Vec<PolicyRule> {
    let strings = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
    match clusters {
        ClusterScope::Named(names) if !names.is_empty() => vec![PolicyRule {
            api_groups: strings(&[CLUSTER_GROUP]),
            resources: strings(&["managedclusters"]),
            verbs: strings(&["get", "list", "watch", "proxy"]),
            resource_names: names.iter().map(ToString::to_string).collect(),
            ..PolicyRule::default()
        }],
        ClusterScope::Named(_) | ClusterScope::All => Vec::new(),
    }
}

fn object(kind: &str, name: &UserName, now: Timestamp, mut object: Value) -> Vec<u8> {
    object["apiVersion"] = format!("{RBAC_GROUP}/v1").into();
    object["kind"] = kind.into();
    object["metadata"] =
        json!({"name": own_role(name), "uid": random_uuid(), "creationTimestamp": whole_second(now).to_string()});
    object::write(&object)
}
