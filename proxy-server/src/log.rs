//! The log on standard error, and the audit events, which may have a file of their own.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::PathBuf, sync::Mutex};

use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::{Config, LogFormat};

/// Target of the audit events.
pub(crate) const AUDIT: &str = "audit";

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("cannot append to {path}; check its permissions")]
    Audit { path: PathBuf, source: io::Error },
    #[error("logging is set up already")]
    Twice(#[source] TryInitError),
}

/// Sets the process' log up. `RUST_LOG` chooses what is logged (default `info`).
pub fn init(config: &Config) -> Result<(), LogError> {
    let audit = config.audit_log.as_ref().map(|path| {
        let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        opened.map_err(|source| LogError::Audit { path: path.clone(), source })
    });
    let audit = audit.transpose()?;
    let mut filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    if audit.is_some() {
        // A filter that is a function would have every span of every packet made, to be asked about it.
        filter = filter.add_directive("audit=off".parse().expect("a directive"));
    }
    let stderr = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let stderr = match config.log_format {
        LogFormat::Text => stderr.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).boxed(),
        LogFormat::Json => stderr.json().flatten_event(true).boxed(),
    };
    let audit = audit.map(|file| {
        let layer = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(Mutex::new(file));
        layer.with_filter(Targets::new().with_target(AUDIT, LevelFilter::INFO))
    });
    tracing_subscriber::registry().with(stderr.with_filter(filter)).with(audit).try_init().map_err(LogError::Twice)
}
