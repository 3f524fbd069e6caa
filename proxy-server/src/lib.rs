//! The hub: takes agents' tunnels, and proxies clients through them.
//!
//! ```text
//! clients ─► frontend ─┬─ connect ──────┐
//!                      ├─ forward ──────┤
//!                      ├─ socks5 ───────┼─► proxy: route ─► authorize ─► limits ─► tunnels ─► stream
//!                      └─ konnectivity ─┘
//! agents  ─► agents ─► joins, tunnels           administrators ─► api ─► registry
//! ```

mod agents;
mod api;
mod audit;
mod authorities;
pub mod config;
mod flushes;
mod frontend;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gateway;
mod hub;
mod limits;
mod metrics;
mod outcome;
mod proxy;

pub use audit::{Audit, AuditError};
pub use authorities::AuthoritiesError;
pub use config::Config;
pub use hub::ports::ListenError;
pub use hub::services::RunError;
pub use hub::state::StateError;
pub use hub::{Addresses, Hub, StartError};
