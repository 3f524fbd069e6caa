//! The spoke's agent: dials out to its hubs, and serves their dials under its own policy.

pub mod policy;
pub mod target;
