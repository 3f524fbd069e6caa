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
mod bodies;
mod browser;
mod caller;
mod client;
mod clock;
mod closing;
pub mod config;
mod connect;
mod connections;
mod descriptors;
mod discovery;
mod exchange;
mod exports;
mod feed;
mod flushes;
mod forward;
mod frontend;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gateway;
mod handshake_queue;
mod handshake_rate;
mod head;
mod health;
mod http_port;
mod hub;
mod inherited;
mod joins;
mod konnectivity;
mod layout;
mod limits;
mod lobby;
mod metrics;
mod outcome;
mod pending_joins;
mod ports;
mod proxy;
mod rates;
mod record;
mod refusal;
mod reset_hints;
mod revocations;
mod rotation;
mod route;
mod services;
mod shares;
mod socks5;
mod source;
mod state;
mod succession;
mod tunnels;
mod watchdog;
mod workers;

pub use audit::{Audit, AuditError};
pub use authorities::AuthoritiesError;
pub use config::Config;
pub use hub::{Addresses, Hub, StartError};
pub use ports::ListenError;
pub use services::RunError;
pub use state::StateError;
