//! Where audit events go, and what is done while they cannot go there.

use std::path::PathBuf;

use clap::ValueEnum;
use process::LogFormat;

/// Where audit events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuditTo {
    /// Into the log on standard error, if that shows them (`RUST_LOG`, target `audit`).
    Log(LogFormat),
    /// Into a file of their own, as JSON lines.
    File(PathBuf),
    /// For tests and demonstrations.
    Nowhere,
}

/// What the hub does while audit events cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AuditFailure {
    /// It goes on, and tells.
    Continue,
    /// It refuses connections and changes.
    Refuse,
}
