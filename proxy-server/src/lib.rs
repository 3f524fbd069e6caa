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
mod authorities;
mod browser;
mod caller;
mod client;
pub mod config;
mod connect;
mod connections;
mod discovery;
mod exchange;
mod exports;
mod forward;
mod frontend;
mod gateway;
mod head;
mod health;
mod http_port;
mod hub;
mod joins;
mod konnectivity;
mod limits;
pub mod log;
mod metrics;
mod ports;
mod proxy;
mod refusal;
mod roster;
mod route;
mod socks5;
mod state;
mod tunnels;
mod workers;

pub use authorities::AuthoritiesError;
pub use config::Config;
pub use hub::{Addresses, Hub, StartError};
pub use ports::ListenError;
pub use state::StateError;
