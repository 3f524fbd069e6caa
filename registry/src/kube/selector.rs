//! Selectors: which objects a list, a watch or a set asks for, by labels and by fields.

mod field;
mod requirement;
mod syntax;
#[cfg(test)]
mod tests;

pub use self::field::FieldSelector;
use self::requirement::Requirement;

use serde_json::{Map, Value};
use thiserror::Error;

/// Why a selector was refused; the message is Kubernetes'. Always 400 `BadRequest`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// The text is not a selector.
    #[error("{0}")]
    Syntax(String),
    /// A key, a value or an operator is not a valid one.
    #[error("{0}")]
    Requirement(String),
    /// The resource cannot be selected by this field.
    #[error("field label not supported: {0}")]
    UnsupportedField(String),
}

/// Chooses objects by their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector(Choice);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Choice {
    Nothing,
    /// What meets every requirement; with none, everything.
    Meeting(Vec<Requirement>),
}

impl LabelSelector {
    /// Chooses every object.
    pub fn everything() -> Self {
        Self(Choice::Meeting(Vec::new()))
    }

    /// Chooses no object.
    pub fn nothing() -> Self {
        Self(Choice::Nothing)
    }

    /// Reads the text form of a `labelSelector` parameter, such as `app in (a,b),!old,tier!=db`; empty chooses
    /// everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        syntax::parse(text).map(|requirements| Self(Choice::Meeting(requirements)))
    }

    /// Reads a `metav1.LabelSelector` object. An absent one (or null) chooses nothing, an empty one everything.
    pub fn from_object(selector: Option<&Value>) -> Result<Self, SelectorError> {
        match selector {
            None | Some(Value::Null) => Ok(Self(Choice::Nothing)),
            Some(selector) => {
                requirement::from_object(selector).map(|requirements| Self(Choice::Meeting(requirements)))
            }
        }
    }

    /// Whether every object is chosen, whatever its labels.
    pub fn is_everything(&self) -> bool {
        matches!(&self.0, Choice::Meeting(requirements) if requirements.is_empty())
    }

    /// Whether whatever this chooses `other` chooses too, as can be seen at once: this has all of its requirements.
    pub fn narrows(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Choice::Nothing, _) => true,
            (Choice::Meeting(_), Choice::Nothing) => false,
            (Choice::Meeting(own), Choice::Meeting(others)) => others.iter().all(|one| own.contains(one)),
        }
    }

    /// Whether an object with these `metadata.labels` is chosen.
    pub fn matches(&self, labels: Option<&Map<String, Value>>) -> bool {
        match &self.0 {
            Choice::Nothing => false,
            Choice::Meeting(requirements) => requirements.iter().all(|requirement| {
                requirement.is_met(labels.and_then(|labels| labels.get(requirement.key())?.as_str()))
            }),
        }
    }
}
