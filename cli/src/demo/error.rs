//! Why the demonstration failed.

use std::io;

use certs::{ClusterName, CredentialsError, FingerprintError};

use crate::{
    api::{CallError, EntryError},
    decision::DecisionError,
    failure::{Exit, Failure},
    port_forward::TargetError,
    user::CreateError,
};

#[derive(Debug, thiserror::Error)]
pub(super) enum DemoError {
    #[error("the temporary folder cannot be made or removed; name another place with TMPDIR")]
    Folder(#[source] io::Error),
    #[error("the hub does not start")]
    Hub(#[source] proxy_server::StartError),
    #[error("the hub ended by itself; run it again with RUST_LOG=info to see why")]
    HubEnded,
    #[error("the administrator's credentials cannot be used")]
    Credentials(#[source] Box<CredentialsError>),
    #[error(transparent)]
    Entry(EntryError),
    #[error("the hub's API refuses what the demonstration asks")]
    Call(#[source] CallError),
    #[error("the hub does not let a cluster in")]
    Decision(#[source] DecisionError),
    #[error("the user is not made")]
    User(#[source] CreateError),
    #[error("a spoke's service does not start")]
    Service(#[source] io::Error),
    #[error("the hub names no address that an agent could dial")]
    HubAddress(#[source] proxy_agent::target::TargetError),
    #[error("the hub names no pin")]
    Pin(#[source] FingerprintError),
    #[error("the service's address is no rule")]
    Rule(#[source] proxy_agent::policy::RuleError),
    #[error("the agent of {cluster} does not join")]
    Join { cluster: ClusterName, source: Box<proxy_agent::JoinError> },
    #[error("{0} did not get ready within 30 seconds; run it again with RUST_LOG=info to see why")]
    Late(ClusterName),
    #[error("the service's address is no target")]
    Target(#[source] TargetError),
    #[error("interrupted before the proof was complete")]
    Interrupted,
    #[error("not every way led to its service; run it again with RUST_LOG=info to see why")]
    Proof,
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        Self::new(Exit::Other, error)
    }
}
