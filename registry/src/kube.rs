//! The Kubernetes-style API: what it serves and how that is checked, described and shown. Pure: no sockets, no clock.

pub mod accept;
pub mod age;
pub mod cause;
pub mod column;
pub mod discovery;
pub mod document;
pub mod metadata;
pub mod name;
pub mod openapi;
pub mod resource;
pub mod schema;
pub mod table;
