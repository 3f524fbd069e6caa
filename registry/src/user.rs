//! The user: who may use the hub, by which tokens and in which groups. What it may do is RBAC's business.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use certs::{ClusterName, Pin, UserName};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::kube::rbac::review::Caller;
use crate::secret::SecretHash;

/// A user as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub name: UserName,
    /// A random UUID, also in its certificates: tells a user from a later one of the same name. A user of before there
    /// were any has none, and certificates without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    #[serde(default)]
    pub groups: Vec<String>,
    /// What `cpu-<id>.<secret>` is checked against.
    pub tokens: Vec<UserToken>,
    pub created_at: Timestamp,
}

/// What a user is bound to when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The ClusterRole `cluster-proxy:admin`.
    Admin,
    /// The ClusterRole `cluster-proxy:user`, or one of its own that names clusters.
    User,
}

/// Which clusters a user reaches. In JSON: `"*"`, or a list of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterScope {
    /// Every cluster, also those that join later.
    All,
    Named(BTreeSet<ClusterName>),
}

/// One token of a user, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserToken {
    pub id: String,
    pub hash: SecretHash,
    /// What its user calls it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `None` for one of before tokens had an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// A user, and what it has shown to be it.
#[derive(Clone, Debug)]
pub struct Login {
    user: Arc<User>,
    /// The id of the token; `None` for a certificate.
    token: Option<String>,
    /// The CA that has issued the certificate.
    issuer: Option<Pin>,
}

/// What an admin asks for when making a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    pub name: UserName,
    pub role: Role,
    pub groups: Vec<String>,
    pub clusters: ClusterScope,
    /// Drawn before, since its certificate has it too.
    pub uid: String,
    /// How long its token is good; at most [`MAX_USER_VALIDITY`].
    pub validity: Duration,
}

/// The longest life of a user's token or certificate: who needs it for longer is asked for once a year.
pub const MAX_USER_VALIDITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// More than anybody tells apart.
pub const MAX_USER_TOKENS: usize = 32;

impl UserToken {
    pub fn expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }
}

impl Login {
    /// By a certificate that is the user's, issued by this CA.
    pub fn by_certificate(user: Arc<User>, issuer: Pin) -> Self {
        Self { user, token: None, issuer: Some(issuer) }
    }

    pub(crate) fn by_token(user: Arc<User>, token: &UserToken) -> Self {
        Self { user, token: Some(token.id.clone()), issuer: None }
    }

    /// The CA that has issued the certificate that was shown; `None` for a token.
    pub fn issuer(&self) -> Option<Pin> {
        self.issuer
    }

    /// When its token ends, as was known when it was shown; `None` for a certificate.
    pub fn token_end(&self) -> Option<Timestamp> {
        self.token.as_ref().and_then(|id| self.user.token(id)?.expires_at)
    }

    /// Whether what was shown is still good for `current`, the user of that name.
    pub fn is_valid(&self, current: &User, now: Timestamp) -> bool {
        let good = |id: &String| current.token(id).is_some_and(|token| !token.expired(now));
        current.is_same(&self.user) && self.token.as_ref().is_none_or(good)
    }
}

impl Deref for Login {
    type Target = User;

    fn deref(&self) -> &User {
        &self.user
    }
}

impl User {
    /// Whether `other` is this registration and not another of the same name.
    pub fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.uid == other.uid && self.created_at == other.created_at
    }

    fn token(&self, id: &str) -> Option<&UserToken> {
        self.tokens.iter().find(|token| token.id == id)
    }

    /// The user as rights are asked for it.
    pub fn caller(&self) -> Caller {
        let mut groups = self.groups.clone();
        groups.push("system:authenticated".to_owned());
        Caller { user: self.name.to_string(), groups, ..Caller::default() }
    }
}

impl Serialize for ClusterScope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("*"),
            Self::Named(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ClusterScope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected \"*\" or a list of cluster names")]
        enum Written {
            Star(String),
            Names(BTreeSet<ClusterName>),
        }
        match Written::deserialize(deserializer)? {
            Written::Star(star) if star == "*" => Ok(Self::All),
            Written::Star(other) => Err(de::Error::custom(format!(
                "clusters is {other:?}; write \"*\" for every cluster, or a list of names"
            ))),
            Written::Names(names) => Ok(Self::Named(names)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_a_token_that_were_stored_before_they_had_uid_and_end_are_read() {
        let hash =
            serde_json::to_string(&crate::secret::DrawnToken::draw(crate::secret::TokenKind::User).hash).unwrap();
        let stored = format!(
            r#"{{"name":"alice","groups":["dev"],"tokens":[{{"id":"0123456789","hash":{hash}}}],"createdAt":"2026-01-01T00:00:00Z"}}"#
        );
        let user: User = serde_json::from_str(&stored).unwrap();
        assert_eq!((user.uid.as_deref(), user.tokens[0].expires_at), (None, None));
        assert!(!user.tokens[0].expired(Timestamp::MAX));
        assert_eq!(serde_json::to_string(&user).unwrap(), stored);
    }

    #[test]
    fn a_reach_is_a_star_or_a_list() {
        let named = ClusterScope::Named(["c1".parse().unwrap(), "c2".parse().unwrap()].into());
        assert_eq!(serde_json::to_string(&ClusterScope::All).unwrap(), r#""*""#);
        assert_eq!(serde_json::to_string(&named).unwrap(), r#"["c1","c2"]"#);
        assert_eq!(serde_json::from_str::<ClusterScope>(r#""*""#).unwrap(), ClusterScope::All);
        assert_eq!(serde_json::from_str::<ClusterScope>(r#"["c2","c1"]"#).unwrap(), named);
        assert_eq!(serde_json::from_str::<ClusterScope>("[]").unwrap(), ClusterScope::Named(BTreeSet::new()));
        assert!(serde_json::from_str::<ClusterScope>(r#""c1""#).unwrap_err().to_string().contains('*'));
        assert!(serde_json::from_str::<ClusterScope>("3").is_err());
    }
}
