//! Why the command ends with another code than 0: one line for the reader, one number for the script.

use std::{error::Error, io, process::ExitCode};

use anstyle::{AnsiColor, Style};

/// The command's end, when it is not a good one.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    cause: Box<dyn Error + Send + Sync>,
    /// What to type next; empty where the cause says it.
    next: String,
}

/// Exit codes, after sysexits.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Standard output was closed by its reader (`| head`): nothing went wrong.
    Unread = 0,
    Other = 1,
    /// A wrong command line (`EX_USAGE`).
    Usage = 64,
    /// The hub cannot be reached or is not ready (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// No credentials, or not the right ones (`EX_NOPERM`).
    NotAllowed = 77,
}

const ERROR: Style = AnsiColor::Red.on_default().bold();

impl Failure {
    pub(crate) fn new(exit: Exit, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, cause: cause.into(), next: String::new() }
    }

    /// Adds what to do next.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = next.into();
        self
    }

    /// Whether trying again may help without anybody doing anything else.
    pub(crate) fn is_passing(&self) -> bool {
        self.exit == Exit::Unavailable
    }

    /// The cause with its causes, then what to do next: one line.
    pub(crate) fn line(&self) -> String {
        let mut line = process::chain(&*self.cause);
        if !self.next.is_empty() {
            line = format!("{line}; {}", self.next);
        }
        line.replace(['\n', '\r'], " ")
    }

    /// Prints the line and gives the code.
    pub(crate) fn report(&self) -> ExitCode {
        if self.exit != Exit::Unread {
            complain(&self.line());
        }
        ExitCode::from(self.exit as u8)
    }
}

/// One line on standard error.
pub(crate) fn complain(line: &str) {
    use io::Write;
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(anstream::stderr(), "{ERROR}error:{ERROR:#} {}", process::Escaped(line));
}

/// Help and version are wishes fulfilled; anything else clap says is a wrong command line.
pub(crate) fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(Exit::Usage as u8) } else { ExitCode::SUCCESS }
}

impl From<io::Error> for Failure {
    /// Of writing to standard output.
    fn from(error: io::Error) -> Self {
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Unread } else { Exit::Other };
        Self::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot reach the hub")]
    struct Unreachable(#[source] io::Error);

    #[test]
    fn a_failure_is_one_line_with_its_causes_and_the_next_step() {
        let failure = Failure::new(Exit::Unavailable, Unreachable(io::Error::other("refused\nby peer")));
        assert_eq!(failure.line(), "cannot reach the hub: refused by peer");
        assert_eq!(failure.next("start it").line(), "cannot reach the hub: refused by peer; start it");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit, Exit::Unread);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::StorageFull)).exit, Exit::Other);
    }
}
