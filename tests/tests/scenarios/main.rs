//! Scenarios: what the whole shows to stock clients, each named for the behaviour.

mod answers;
mod architecture;
mod bad_input;
mod clients;
mod doubles;
mod faults;
mod fidelity;
mod identity;
mod join;
mod kubectl;
mod metrics;
mod prometheus;
mod rights;
