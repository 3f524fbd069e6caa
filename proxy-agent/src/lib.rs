//! The spoke's agent: dials out to its hubs, and serves their dials under its own policy.

mod backoff;
pub mod config;
mod dial;
pub mod hub;
pub mod policy;
mod race;
mod resolve;
mod settings;
pub mod state;
pub mod target;

pub use settings::ConfigErrors;
