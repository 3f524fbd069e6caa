//! What the programs of this crate share: the ways a byte can take, the load that goes over them, and the report.
//!
//! A program starts every [`path::Path`] it compares, to one [`service::Service`], and then runs the same load over each in
//! turn ([`rounds`]). Load, relays, hub, agent and service are processes of their own ([`role`]), whose CPU seconds are read
//! from `/proc` ([`cpu`]) at both ends of the measured span. What comes out is a [`report::Report`].

pub mod api_client;
pub mod arguments;
pub mod comparison;
pub mod cpu;
pub mod fleet;
pub mod fleet_agents;
pub mod fleet_hub;
pub mod handshakes;
pub mod idlers;
pub mod link;
pub mod load;
pub mod machine;
pub mod netns;
pub mod path;
pub mod place;
pub mod plot;
pub mod program;
pub mod quinn_ends;
pub mod relay;
pub mod report;
pub mod role;
pub mod rounds;
pub mod route;
pub mod seeded_registry;
pub mod service;
pub mod storm;
pub mod tls_relay;
pub mod trace;
pub mod watchers;
pub mod yamux_tunnel;
