//! The registry as a Kubernetes-style API server: the pure rules behind what kubectl and client-go ask.

pub mod rbac;
