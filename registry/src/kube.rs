//! The registry as a Kubernetes-style API server: what stock kubectl and client-go send, understood without sockets,
//! tasks or a clock.

pub mod body;
pub mod label;
pub mod patch;
pub mod protobuf;
pub mod selector;
