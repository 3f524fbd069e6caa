//! Questions to the person at the terminal.

use std::io::{self, BufRead, IsTerminal};

use crate::output::note;

/// The answer to a question, without white space around it; `None` when there is nobody to answer.
pub(crate) fn ask(question: &str) -> Option<String> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return None;
    }
    note(question);
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).ok()?;
    Some(line.trim().to_owned())
}
