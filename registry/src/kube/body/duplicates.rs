//! Fields that a body names more than once.

use std::fmt;

use super::MAX_BODY;

/// How many duplicates of one body are reported; Kubernetes stops there too.
const MAX_REPORTED: usize = 100;

/// The paths of the fields that were given more than once, each once, in the order they were found; at most 100.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Duplicates {
    paths: Vec<String>,
    /// Length of all paths that were written down, also of those known already: below a long name each duplicate is one.
    written: usize,
}

impl Duplicates {
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// One message a field, such as `duplicate field "spec.containers[0].name"`: for `fieldValidation=Warn` one warning
    /// each, for `Strict` the text after `strict decoding error: `, joined by `, `.
    pub fn messages(&self) -> impl Iterator<Item = String> + '_ {
        self.paths.iter().map(|path| format!("duplicate field \"{path}\""))
    }

    /// Whether another one would be reported.
    pub(super) fn is_full(&self) -> bool {
        self.paths.len() >= MAX_REPORTED || self.written > MAX_BODY
    }

    pub(super) fn add(&mut self, path: String) {
        self.written += path.len();
        if self.paths.len() < MAX_REPORTED && !self.paths.contains(&path) {
            self.paths.push(path);
        }
    }
}

/// One step of a path into an object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    Field(&'a str),
    Index(usize),
}

/// Writes a path as Kubernetes does: `spec.containers[0].name`.
pub(super) struct Path<'a>(pub(super) &'a [Step<'a>]);

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if position == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
