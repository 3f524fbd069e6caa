//! What is said of an error to somebody who sees one line of it: the error, and what caused it.

use std::error::Error;

/// The error and its cause, if it has one.
pub(crate) fn with_cause(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
