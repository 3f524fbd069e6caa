//! How an error is told: with its causes, in one line.

use std::{error::Error, process::ExitCode};

use crate::Escaped;

/// Exit code of a wrong command line or configuration (sysexits.h).
pub const EX_USAGE: u8 = 64;

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

/// Tells why the process ends, and gives its exit code.
pub fn fail(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("error: {}", Escaped(chain(error)));
    code.into()
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[test]
    fn a_chain_names_every_cause() {
        #[derive(Debug)]
        struct Outer(io::Error);

        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("no hub")
            }
        }

        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }

        assert_eq!(chain(&Outer(io::Error::other("no such name"))), "no hub: no such name");
    }
}
