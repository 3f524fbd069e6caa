//! Chaos: what faults may cost, alone, in pairs and at random. A binary of its own, so that nothing else disturbs what it measures.

#![allow(clippy::wildcard_enum_match_arm, reason = "a test fails on everything that it does not expect")]

mod cell;
mod config;
mod dice;
mod fault;
mod history;
mod log;
mod matrix;
mod site;
mod soak;
mod table;
mod traffic;
mod trickle;
mod verdict;
