//! The messages of the hub's own HTTPS API below `/v1`, for what is no Kubernetes resource. JSON, camelCase.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /v1/tunnels` | – | [`TunnelList`] |
//! | `GET /v1/tunnels/CLUSTER` | – | [`TunnelView`] |
//! | `POST /v1/tokens` | [`NewToken`] | [`TokenCreated`] |
//! | `GET /v1/tokens` | – | [`TokenList`] |
//! | `DELETE /v1/tokens/ID` | – | – |
//! | `POST /v1/users` | [`NewUser`] | [`UserCreated`] |
//! | `GET /v1/users` | – | [`UserList`] |
//! | `DELETE /v1/users/NAME` | – | – |
//! | `GET /v1/users/NAME/tokens` | – | [`UserTokenList`] |
//! | `POST /v1/users/NAME/tokens` | [`NewUserToken`] | [`UserTokenCreated`] |
//! | `DELETE /v1/users/NAME/tokens/TOKEN` | – | – |
//! | `POST /v1/users/NAME/certificate` | [`NewCredential`] | [`CredentialIssued`] |
//! | `POST /v1/credential` | [`NewCredential`] | [`CredentialIssued`] |
//! | `GET /v1/status` | – | [`HubStatus`] |
//!
//! Every other answer than 2xx has an [`ApiError`] as its body.

mod ca;

use std::collections::BTreeMap;

use certs::{AgentName, ClusterName, GroupName, UserName};
use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::token::{JoinToken, TokenUse};
use crate::user::{ClusterScope, Role, User, UserToken};

pub use ca::{CaAgent, CaPhase, CaRoot, CaRoots, CaStatus, CaUser, StepTaken, TakeStep};

/// The tunnels of every cluster that the asker may see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelList {
    pub items: BTreeMap<ClusterName, TunnelView>,
}

/// What the hub sees of a cluster's tunnels at this moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TunnelView {
    /// Agents connected now.
    pub agents: u32,
    /// Round trip of the best tunnel; absent while none is up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_milliseconds: Option<f64>,
    /// Proxied connections open now.
    pub streams: u64,
    /// Since the hub started.
    pub bytes_to_cluster: u64,
    /// Since the hub started.
    pub bytes_from_cluster: u64,
    /// Now while a tunnel is up, else when the last one ended; absent if there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
    /// When each agent that is connected now was last heard of.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub agents_last_seen: BTreeMap<AgentName, Timestamp>,
    /// Whether a connection to the cluster would find a tunnel.
    pub available: bool,
}

/// Asks for a join token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewToken {
    /// Binds the token to one cluster name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    #[serde(default)]
    pub auto_accept: bool,
    #[serde(default)]
    pub reusable: bool,
    /// From 1 to 31,536,000 (a year); an hour when left out.
    #[serde(default = "default_ttl_seconds")]
    pub ttl_seconds: u64,
}

/// A new join token. The only time its text is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenCreated {
    #[serde(flatten)]
    pub view: TokenView,
    /// `cpj-<id>.<secret>`
    #[serde(with = "revealed")]
    pub token: SecretString,
}

/// Every join token, without secrets, sorted by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenList {
    pub items: Vec<TokenView>,
}

/// A join token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenView {
    pub id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    pub auto_accept: bool,
    pub reusable: bool,
    pub expires_at: Timestamp,
    pub created_by: String,
    pub created_at: Timestamp,
    /// Who used a single-use token; always empty for a reusable one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<TokenUse>,
}

/// Asks for a user with a token and a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewUser {
    pub name: UserName,
    #[serde(default)]
    pub admin: bool,
    #[serde(default)]
    pub groups: Vec<GroupName>,
    /// `"*"`, or a list of names.
    pub clusters: ClusterScope,
    /// A PKCS#10 request in DER, base64 in JSON: the user's key stays where it was made.
    #[serde(with = "base64_bytes")]
    pub csr: Vec<u8>,
    /// How long the certificate and the token are good for: at most a year.
    pub validity_seconds: u64,
}

/// A new user. The only time the token is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserCreated {
    #[serde(flatten)]
    pub view: UserView,
    /// `cpu-<id>.<secret>`
    #[serde(with = "revealed")]
    pub token: SecretString,
    /// The user's certificate, then the hub's CA.
    pub certificate_chain_pem: String,
    /// When certificate and token end.
    pub not_after: Timestamp,
}

/// Every user, without secrets, sorted by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserList {
    pub items: Vec<UserView>,
}

/// A user without secrets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserView {
    pub name: UserName,
    pub admin: bool,
    pub groups: Vec<String>,
    pub clusters: ClusterScope,
    pub created_at: Timestamp,
}

/// Asks for a further token of a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewUserToken {
    pub name: String,
    /// At most a year.
    pub validity_seconds: u64,
}

/// A new token of a user. The only time it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserTokenCreated {
    #[serde(flatten)]
    pub view: UserTokenView,
    /// `cpu-<id>.<secret>`
    #[serde(with = "revealed")]
    pub token: SecretString,
}

/// A user's tokens, without secrets, in the order they were made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserTokenList {
    pub items: Vec<UserTokenView>,
}

/// A token of a user without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UserTokenView {
    pub id: String,
    pub name: String,
    /// Absent for one of before tokens had an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

/// Asks for a short-lived certificate of who asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewCredential {
    /// A PKCS#10 request in DER, base64 in JSON, for a key of the asker's.
    #[serde(with = "base64_bytes")]
    pub csr: Vec<u8>,
    /// At most [`MAX_CREDENTIAL_SECONDS`], which it is when left out.
    #[serde(default = "max_credential_seconds")]
    pub validity_seconds: u64,
}

/// A short-lived certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialIssued {
    /// The user's certificate, then the hub's CA.
    pub certificate_chain_pem: String,
    /// When it ends: earlier than asked for where the certificate ends that was shown to get it.
    pub not_after: Timestamp,
}

/// The hub at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HubStatus {
    pub version: String,
    pub server_id: String,
    pub started_at: Timestamp,
    /// `sha256:<64 hex digits>` of the hub's CA: what agents are told to pin.
    pub pin: String,
    /// `host:port` that agents dial, the advertised ones first.
    pub agent_addresses: Vec<String>,
    pub proxy_address: String,
    pub api_address: String,
    pub clusters: ClusterCounts,
    /// Proxied connections open now.
    pub connections: u64,
    /// Tunnels up now.
    pub tunnels: u64,
}

/// How many clusters there are of each sort; `available` counts those with a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCounts {
    pub total: u64,
    pub accepted: u64,
    pub available: u64,
    pub pending: u64,
    pub denied: u64,
    /// Agents that wait for an administrator, but for those of denied clusters.
    #[serde(default)]
    pub waiting_agents: u64,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiError {
    /// One CamelCase word for programs; a cluster's Kubernetes API may leave it out.
    #[serde(default)]
    pub reason: String,
    /// One sentence that says what to do next.
    pub message: String,
}

/// OCM's life time of a join token.
pub const DEFAULT_TTL_SECONDS: u64 = 3600;

fn default_ttl_seconds() -> u64 {
    DEFAULT_TTL_SECONDS
}

/// The longest life of a certificate that users get for themselves: an hour.
pub const MAX_CREDENTIAL_SECONDS: u64 = 3600;

fn max_credential_seconds() -> u64 {
    MAX_CREDENTIAL_SECONDS
}

impl From<&JoinToken> for TokenView {
    fn from(token: &JoinToken) -> Self {
        Self {
            id: token.id.clone(),
            cluster: token.cluster.clone(),
            auto_accept: token.auto_accept,
            reusable: token.reusable,
            expires_at: token.expires_at,
            created_by: token.created_by.clone(),
            created_at: token.created_at,
            used_by: token.used_by.clone(),
        }
    }
}

impl From<&UserToken> for UserTokenView {
    fn from(token: &UserToken) -> Self {
        let UserToken { id, name, expires_at, created_at, hash: _ } = token.clone();
        Self { id, name, expires_at, created_at }
    }
}

impl UserView {
    /// A user with what it was given.
    pub fn new(user: &User, (role, clusters): (Role, ClusterScope)) -> Self {
        Self {
            name: user.name.clone(),
            admin: role == Role::Admin,
            groups: user.groups.clone(),
            clusters,
            created_at: user.created_at,
        }
    }
}

/// A secret that this one message exists to hand over; it stays hidden from `Debug`.
mod revealed {
    use secrecy::{ExposeSecret, SecretString};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose_secret())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
        String::deserialize(deserializer).map(SecretString::from)
    }
}

/// Bytes as standard padded base64, as Kubernetes writes `[]byte`.
mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_token_needs_no_field_and_takes_no_unknown_one() {
        let least: NewToken = serde_json::from_value(json!({})).unwrap();
        assert_eq!((least.cluster, least.auto_accept, least.reusable, least.ttl_seconds), (None, false, false, 3600));
        assert!(serde_json::from_value::<NewToken>(json!({"autoaccept": true})).is_err());
    }

    #[test]
    fn a_csr_travels_as_base64() {
        let json = json!({"name": "alice", "clusters": "*", "csr": "AQID", "validitySeconds": 60});
        let new: NewUser = serde_json::from_value(json).unwrap();
        assert_eq!(new.csr, [1, 2, 3]);
        assert_eq!(serde_json::to_value(&new).unwrap()["csr"], "AQID");
    }

    #[test]
    fn a_created_token_is_told_in_json_and_hidden_in_debug() {
        let json = json!({
            "id": "0123456789", "autoAccept": false, "reusable": false, "expiresAt": "2026-01-01T00:00:00Z",
            "createdBy": "admin", "createdAt": "2025-12-31T23:00:00Z", "token": "cpj-0123456789.hush",
        });
        let created: TokenCreated = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&created).unwrap(), json);
        assert!(!format!("{created:?}").contains("hush"));
    }
}
