//! The environment of this process, which is read here alone.

use std::ffi::OsString;

/// A variable, by its name.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
pub fn environment(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}
