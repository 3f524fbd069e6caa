//! Standard output: results, and nothing but results. Colours go where there is a terminal and no `NO_COLOR`.

use std::{fmt::Display, io::Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::failure::{Exit, Failure};

/// It is as it should be.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// Somebody has to do something.
pub(crate) const WAITING: Style = AnsiColor::Yellow.on_default();
/// It is not as it should be.
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
/// A heading.
pub(crate) const HEADING: Style = Style::new().bold();

/// Prints a line, or several.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    Ok(writeln!(anstream::stdout(), "{text}")?)
}

/// Prints what a program will read.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(value).map_err(|error| Failure::new(Exit::Other, error))?;
    print(json)
}

/// Tells a person on standard error what is going on.
pub(crate) fn note(text: impl Display) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(anstream::stderr(), "{text}");
}
