//! What makes the registry a Kubernetes-style API server; everything in here is pure.

pub mod apply;
