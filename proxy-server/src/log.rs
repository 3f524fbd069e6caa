//! The log on standard error.

use std::{fmt, io};

use certs::{Escaping, JsonLines};
use tracing_subscriber::{
    EnvFilter, Layer,
    field::RecordFields,
    filter::LevelFilter,
    fmt::{
        FormatFields,
        format::{DefaultFields, Writer},
    },
    layer::SubscriberExt,
    util::{SubscriberInitExt, TryInitError},
};

use crate::config::LogFormat;

/// Writes fields so that no value of a stranger ends a line or moves a cursor.
#[derive(Debug)]
struct EscapedFields;

impl<'a> FormatFields<'a> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        DefaultFields::new().format_fields(Writer::new(&mut Escaping(&mut writer)), fields)
    }
}

/// Sets the process' log up. `RUST_LOG` chooses what is logged (default `info`).
pub fn init(format: LogFormat) -> Result<(), TryInitError> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let layer = tracing_subscriber::fmt::layer();
    let layer = match format {
        LogFormat::Text => {
            let ansi = io::IsTerminal::is_terminal(&io::stderr());
            layer.fmt_fields(EscapedFields).with_ansi(ansi).with_writer(io::stderr).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).with_writer(|| JsonLines(io::stderr())).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()
}
