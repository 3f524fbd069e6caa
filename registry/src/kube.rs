//! The registry as a Kubernetes-style API server: what stock kubectl and client-go ask for, and no more.
//!
//! [`server`] takes a request apart and puts the answer together; what is between the two is `list` and `watch` for reads,
//! `write` for writes. The rest is pure: it knows no clock, socket or task.

pub mod accept;
mod admission;
pub mod age;
pub mod apply;
pub mod body;
pub mod cause;
mod changes;
pub mod column;
pub mod controller;
pub mod discovery;
pub mod document;
pub mod label;
mod list;
pub mod metadata;
pub mod name;
pub(crate) mod object;
pub mod openapi;
pub mod options;
pub mod patch;
mod policy_at;
mod projection;
pub mod protobuf;
pub mod rbac;
mod request_info;
pub mod resource;
pub mod schema;
mod selection;
pub mod selector;
pub mod server;
pub mod sets;
mod source;
pub mod status;
mod strategy;
pub mod table;
pub mod target;
mod watch;
pub(crate) mod write;
