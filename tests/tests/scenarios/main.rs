//! Scenarios: what the whole shows to stock clients, each named for the behaviour.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test fails on everything that it does not expect")]

mod admission;
mod aliases;
mod answers;
mod api_clients;
mod architecture;
mod backup;
mod bad_input;
mod breaks;
mod browser;
mod clients;
mod clocks;
mod demo;
mod deploy;
mod descriptors;
mod discovery;
mod doubles;
mod ended_token;
mod etcd;
mod faults;
mod fidelity;
mod gateway;
mod hostile_agent;
mod identity;
mod join;
mod konnectivity;
mod kubeconfig;
mod kubectl;
mod kubernetes;
mod liveness;
mod metrics;
mod port_forward;
mod prometheus;
mod record;
mod rights;
mod rotation;
mod security;
mod strangers;
