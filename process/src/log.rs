//! The log on standard error.

use std::{
    fmt,
    io::{self, IsTerminal},
};

use clap::ValueEnum;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
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

use crate::escape::{Escaping, JsonLines};

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Writes fields so that no value of a stranger ends a line or moves a cursor.
#[derive(Debug)]
struct EscapedFields;

impl<'a> FormatFields<'a> for EscapedFields {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'a>, fields: R) -> fmt::Result {
        DefaultFields::new().format_fields(Writer::new(&mut Escaping(&mut writer)), fields)
    }
}

/// Lines that wait for whoever reads standard error. A thread of its own writes them: a reader that sleeps holds up nothing but
/// the log, of which the newest lines are lost then.
const WAITING: usize = 8192;

/// Writes what waits when it is dropped, as far as that takes no more than a second.
#[derive(Debug)]
#[must_use]
pub struct Log(#[expect(dead_code, reason = "its end is what counts")] WorkerGuard);

/// Sets the process' log up. `RUST_LOG` chooses what is logged (default `info`).
pub fn init(format: LogFormat) -> Result<Log, TryInitError> {
    let (writer, guard) =
        NonBlockingBuilder::default().buffered_lines_limit(WAITING).thread_name("log").finish(io::stderr());
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy();
    let layer = tracing_subscriber::fmt::layer();
    let layer = match format {
        LogFormat::Text => {
            let ansi = io::stderr().is_terminal();
            layer.fmt_fields(EscapedFields).with_ansi(ansi).with_writer(writer).boxed()
        }
        LogFormat::Json => layer.json().flatten_event(true).with_writer(move || JsonLines(writer.clone())).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(Log(guard))
}
