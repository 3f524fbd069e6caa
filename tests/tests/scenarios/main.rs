//! Scenarios: what the whole shows to stock clients, each named for the behaviour.

mod architecture;
mod doubles;
mod faults;
mod fidelity;
