//! The spoke's agent: dials out to its hubs, and serves their dials under its own policy.

mod backoff;
pub mod config;
mod current;
mod dial;
mod health;
pub mod hub;
mod identity;
mod metrics;
pub mod policy;
mod race;
mod resolve;
mod settings;
pub mod state;
mod status;
pub mod target;

pub use settings::ConfigErrors;
