//! The join token: an admin's permission for agents to ask to join.

use std::time::Duration;

use certs::{AgentName, ClusterName, KeyFingerprint};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::secret::SecretHash;

/// A join token as it is stored. Its text, `cpj-<id>.<secret>`, is shown once, when it is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// 10 lower-case letters and digits. Not secret: names the token in lists and logs.
    pub id: String,
    pub hash: SecretHash,
    /// From this moment on the token lets nobody new in.
    pub expires_at: Timestamp,
    /// The only cluster that may join with it; `None` means any name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterName>,
    /// Whether what joins with it needs no further accept by an admin.
    pub auto_accept: bool,
    /// Whether more than one agent may join with it.
    pub reusable: bool,
    /// The user who made it.
    pub created_by: String,
    pub created_at: Timestamp,
    /// Who used it: at most one entry, and none for a reusable token, whose uses show in the clusters it let in.
    /// (A list that every join appends to would make all joins with one token wait for each other.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub used_by: Vec<TokenUse>,
}

/// One agent that joined with a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenUse {
    pub cluster: ClusterName,
    pub agent: AgentName,
    pub key: KeyFingerprint,
    pub at: Timestamp,
}

/// What an admin asks for when making a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    pub cluster: Option<ClusterName>,
    pub auto_accept: bool,
    pub reusable: bool,
    /// From one second to [`MAX_TIME_TO_LIVE`].
    pub time_to_live: Duration,
    /// The user who asks.
    pub created_by: String,
}

/// A token nobody remembers is a door nobody watches.
pub const MAX_TIME_TO_LIVE: Duration = Duration::from_secs(365 * 24 * 3600);

impl JoinToken {
    pub(crate) fn expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }

    /// Whether it has let in the one agent it was for.
    pub(crate) fn used_up(&self) -> bool {
        !self.reusable && !self.used_by.is_empty()
    }
}
