//! The registry as a Kubernetes-style API server: what stock kubectl and client-go ask for, and no more.
//!
//! [`server`] takes a request apart and puts the answer together; what is between the two is [`list`] and [`watch`] for
//! reads, [`write`] for writes. The rest is pure: it knows no clock, socket or task.

pub mod accept;
pub mod age;
pub mod apply;
pub mod body;
pub mod cause;
pub mod column;
pub mod discovery;
pub mod document;
pub mod label;
pub mod metadata;
pub mod name;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod rbac;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod table;
