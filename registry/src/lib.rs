//! The hub's registry: which clusters exist, who let them in, and who may reach them.
//!
//! [`Registry`] is the way in: it keeps clusters, join tokens and users in a [`store`] and asks the pure rules (joining,
//! admitting, [`kube::rbac`]) what may be done. [`kube`] serves all of it as a Kubernetes-style API; [`api`] is the JSON that
//! the hub and the command line speak about joins and users.

mod admit;
pub mod api;
pub mod backup;
mod cluster;
pub mod condition;
mod join;
mod join_counts;
pub mod kube;
mod registry;
mod rights_queue;
mod secret;
mod token;
mod trust;
mod user;
mod view;

pub use admit::AgentRefusal;
pub use cluster::{
    AcceptanceStatus, AgentPhase, ClusterAgent, ClusterSpec, ClusterStatus, MAX_AGENTS, MAX_WAITING, ManagedCluster,
    Metadata, ShownAgent,
};
pub use join::{CLUSTERS_OF_TOKEN, JoinAsk, JoinRefusal, Joined, TooManyPending};
pub use join_counts::source;
pub use registry::{
    ClusterError, NewTokenError, NewUserError, Presence, Registry, Sighting, TokenError, TokenRefusal, UserError,
    new_uid,
};
pub use secret::{SecretHash, is_user_token, join_token_id};
pub use token::{JoinToken, MAX_TIME_TO_LIVE, NewToken, TokenUse};
pub use trust::AgentTrust;
pub use user::{ClusterScope, Login, MAX_USER_TOKENS, MAX_USER_VALIDITY, NewUser, Role, User, UserToken};
pub use view::{Change, RightsKey};
