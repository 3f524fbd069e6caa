//! The spoke's agent: dials out to its hubs, and serves their dials under its own policy.

mod agent;
mod cause;
pub mod config;
mod exports;
pub mod gateway;
mod health;
pub mod hub;
mod identity;
mod join;
mod metrics;
pub mod policy;
pub mod state;
mod status;
pub mod target;

pub use agent::{Agent, RunError, StartError, run};
pub use config::{Config, JoinConfig};
pub use exports::ExportConfig;
pub use hub::connect::ConnectError;
pub use identity::IdentityError;
pub use join::{JoinError, JoinProgress, join, progress::ProgressDisplay};
pub use status::Readiness;
