//! Where audit events go, and what is done while they cannot go there.

use std::{path::PathBuf, str::FromStr};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditFailure {
    /// It goes on, and tells.
    Continue,
    /// It refuses connections and changes.
    Refuse,
}

impl FromStr for AuditFailure {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "continue" => Ok(Self::Continue),
            "refuse" => Ok(Self::Refuse),
            _ => Err("must be continue or refuse"),
        }
    }
}
