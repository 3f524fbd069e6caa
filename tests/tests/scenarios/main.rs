//! Scenarios: what the whole shows to stock clients, each named for the behaviour.

mod architecture;
mod bad_input;
mod doubles;
mod identity;
mod join;
mod rights;
