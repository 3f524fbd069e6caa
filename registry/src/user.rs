//! The user: who may use the hub, by which tokens and in which groups. What it may do is RBAC's business.

use std::collections::BTreeSet;

use certs::{ClusterName, UserName};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::kube::rbac::review::Caller;
use crate::secret::SecretHash;

/// A user as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct User {
    pub name: UserName,
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
pub enum Reach {
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
}

/// What an admin asks for when making a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    pub name: UserName,
    pub role: Role,
    pub groups: Vec<String>,
    pub clusters: Reach,
}

impl User {
    /// The user as rights are asked for it.
    pub fn caller(&self) -> Caller {
        let mut groups = self.groups.clone();
        groups.push("system:authenticated".to_owned());
        Caller { user: self.name.to_string(), groups, ..Caller::default() }
    }
}

impl Serialize for Reach {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("*"),
            Self::Named(names) => names.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Reach {
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
    fn a_reach_is_a_star_or_a_list() {
        let named = Reach::Named(["c1".parse().unwrap(), "c2".parse().unwrap()].into());
        assert_eq!(serde_json::to_string(&Reach::All).unwrap(), r#""*""#);
        assert_eq!(serde_json::to_string(&named).unwrap(), r#"["c1","c2"]"#);
        assert_eq!(serde_json::from_str::<Reach>(r#""*""#).unwrap(), Reach::All);
        assert_eq!(serde_json::from_str::<Reach>(r#"["c2","c1"]"#).unwrap(), named);
        assert_eq!(serde_json::from_str::<Reach>("[]").unwrap(), Reach::Named(BTreeSet::new()));
        assert!(serde_json::from_str::<Reach>(r#""c1""#).unwrap_err().to_string().contains('*'));
        assert!(serde_json::from_str::<Reach>("3").is_err());
    }
}
