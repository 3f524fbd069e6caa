//! The agent against a hub double that speaks the real wire, over UDP on loopback.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hub;
mod joining;
mod life;
mod serving;
mod speaking;
mod spoke;
