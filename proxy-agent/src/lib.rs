//! The spoke's agent: dials out to its hubs, and serves their dials under its own policy.

mod agent;
mod backoff;
mod cause;
pub mod config;
mod connect;
mod current;
mod dial;
mod exports;
pub mod gateway;
mod health;
pub mod hub;
mod identity;
mod join;
mod keeper;
mod metrics;
mod path;
pub mod policy;
pub mod progress;
mod race;
mod reached;
mod resolve;
mod service_tls;
mod session;
pub mod state;
mod status;
mod streams;
pub mod target;

pub use agent::{Agent, RunError, StartError, run};
pub use config::{Config, JoinConfig};
pub use connect::ConnectError;
pub use exports::ExportConfig;
pub use identity::IdentityError;
pub use join::{JoinError, JoinProgress, join};
pub use status::Readiness;
