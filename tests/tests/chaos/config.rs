//! What `make chaos` and `make soak` may set: the only reader of the environment here.

use std::env;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The seed of `make chaos`, unless `CHAOS_SEED` says another.
const SEED: u64 = 12;

/// By what the order and the distance of two faults are drawn.
pub(crate) fn chaos_seed() -> u64 {
    read("CHAOS_SEED").unwrap_or(SEED)
}

/// How many cells run at a time: each is a hub, an agent, clients, and mostly patience.
pub(crate) fn chaos_jobs() -> usize {
    read("CHAOS_JOBS").unwrap_or(12)
}

/// Only cells whose name contains this.
pub(crate) fn chaos_filter() -> String {
    read("CHAOS_FILTER").unwrap_or_default()
}

/// Where the table is written.
pub(crate) fn chaos_table() -> Option<PathBuf> {
    read("CHAOS_TABLE")
}

pub(crate) fn soak_length() -> Duration {
    Duration::from_secs(read("SOAK_SECONDS").unwrap_or(3600))
}

pub(crate) fn soak_seed() -> u64 {
    read("SOAK_SEED").unwrap_or(SEED)
}

#[expect(clippy::disallowed_methods, reason = "a test's own environment")]
fn read<T: FromStr>(name: &str) -> Option<T> {
    env::var_os(name).filter(|value| !value.is_empty())?.to_str()?.parse().ok()
}
