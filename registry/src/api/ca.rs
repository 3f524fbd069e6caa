//! What the hub says of its CA, and how its rotation is steered.
//!
//! | method and path | body | answer |
//! |---|---|---|
//! | `GET /v1/ca` | – | [`CaRoots`] |
//! | `POST /v1/ca/certificate` | [`super::NewCredential`] | [`super::CredentialIssued`] |
//! | `GET /v1/ca/status` | – | [`CaStatus`] |
//! | `POST /v1/ca/begin`, `…/sign`, `…/finish`, `…/abort`, `…/revoke-now` | [`TakeStep`] | [`StepTaken`] |

use certs::{AgentName, ClusterName, Pin, UserName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The CAs under which the hub is verified, for everybody who is somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaRoots {
    /// PEM, the oldest first.
    pub roots_pem: String,
    /// The one of the hub's own certificate.
    pub pin: Pin,
    /// The one that signs.
    pub signer: Pin,
    /// Not to be trusted any more.
    pub retired: Vec<Pin>,
}

/// Where the CA's rotation stands, and who is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaStatus {
    pub phase: CaPhase,
    /// The oldest first; the last one is to stay.
    pub roots: Vec<CaRoot>,
    /// The latest last.
    pub retired: Vec<Pin>,
    /// Of clusters that are accepted, sorted; empty while no CA is rotated.
    pub agents: Vec<CaAgent>,
    /// All, sorted; empty while no CA is rotated.
    pub users: Vec<CaUser>,
}

/// Where a rotation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CaPhase {
    /// One CA.
    Settled,
    /// The new one is trusted, the old one signs.
    Begun,
    /// The new one signs, the old one is trusted.
    Signing,
}

/// A CA that is trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaRoot {
    pub pin: Pin,
    pub not_after: Timestamp,
    pub signs: bool,
}

/// An agent beside the new CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaAgent {
    pub cluster: ClusterName,
    pub agent: AgentName,
    pub connected: bool,
    /// Whether it trusts the new CA; absent when it has not been heard of since the rotation began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusts: Option<bool>,
    /// Whether its certificate is signed by the new CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<bool>,
    pub version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<Timestamp>,
}

/// A user beside the new CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaUser {
    pub user: UserName,
    /// Whether the certificate that it has shown or been given last is signed by the new CA; absent when this hub has seen none since
    /// its start: of who uses tokens alone it is not known which CA they know the hub by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certified: Option<bool>,
    /// When that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Timestamp>,
}

impl CaUser {
    /// Whether it may not be able to connect once the old CA is gone.
    pub fn lags(&self) -> bool {
        self.certified != Some(true)
    }
}

/// Asks for a step of the rotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TakeStep {
    /// Also where somebody is lost by it.
    #[serde(default)]
    pub force: bool,
}

/// What a step has brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepTaken {
    /// False where it had been taken before.
    pub changed: bool,
    /// Tunnels and connections that were cut.
    pub cut: u64,
    /// Who has to join again, or needs new credentials.
    pub lost: Vec<String>,
    pub status: CaStatus,
}

impl CaAgent {
    /// Whether it would be lost if the new CA were the only one.
    pub fn lags(&self) -> bool {
        self.trusts != Some(true) || self.certified != Some(true)
    }
}
