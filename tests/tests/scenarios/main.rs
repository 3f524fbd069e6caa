//! Scenarios: what the whole shows to stock clients, each named for the behaviour.

mod answers;
mod architecture;
mod bad_input;
mod clients;
mod doubles;
mod fidelity;
mod identity;
mod join;
mod kubectl;
mod prometheus;
mod rights;
