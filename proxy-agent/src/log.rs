//! The log on standard error, and errors as one line of it.

use std::{
    error::Error,
    io::{self, IsTerminal},
};

use tracing_subscriber::{
    EnvFilter, Layer,
    filter::LevelFilter,
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::LogFormat;

/// Sets the process' log up. `RUST_LOG` chooses what is logged (default `info`).
pub fn init(format: LogFormat) -> Result<(), TryInitError> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let layer = match format {
        LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
}

/// An error and its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause() {
        let inner = io::Error::other("no such name");
        let error = crate::ConnectError::NameNotFound { hub: "hub".parse().unwrap(), source: inner };
        assert!(chain(&error).ends_with(": no such name"));
    }
}
