//! Scenarios: what the whole shows to stock clients, each named for the behaviour.

mod answers;
mod architecture;
mod clients;
mod doubles;
mod kubectl;
mod metrics;
mod prometheus;
