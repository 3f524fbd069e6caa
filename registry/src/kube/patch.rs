//! Patches: what a PATCH says, by its content type, and the object it makes of another.

mod operations;
mod order;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};
use thiserror::Error;

use self::strategic::Schema;
use super::body::{self, Body, BodyError, Duplicates, Origin};

/// What a PATCH asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// To change the object that is there.
    Change(Patch),
    /// Server-side apply, which may also create the object.
    Apply(Body),
}

/// A change of an object. Applied again when the object has meanwhile been changed by somebody else.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    change: Change,
    duplicates: Duplicates,
}

#[derive(Clone, Debug, PartialEq)]
enum Change {
    /// RFC 6902; each operation is an object, and understood when its turn comes.
    Operations(Vec<Value>),
    /// RFC 7386.
    Merge(Value),
    Strategic(Map<String, Value>, Schema),
}

/// Why a patch was refused; the message is Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PatchError {
    #[error(transparent)]
    Body(#[from] BodyError),
    /// It is not a patch, whatever it is applied to.
    #[error("{0}")]
    Malformed(String),
    #[error(
        "Request entity too large: The allowed maximum operations in a JSON patch is {}, got {found}",
        operations::MAX
    )]
    TooManyOperations { found: usize },
    /// It does not fit the object. The message, like Kubernetes', does not say why; the cause does.
    #[error("the server rejected our request due to an error in our request")]
    Rejected { cause: String },
}

impl PatchError {
    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::Body(error) => error.code(),
            Self::Malformed(_) => 400,
            Self::TooManyOperations { .. } => 413,
            Self::Rejected { .. } => 422,
        }
    }

    /// The `reason` of the Status object.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Body(error) => error.reason(),
            Self::Malformed(_) => "BadRequest",
            Self::TooManyOperations { .. } => "RequestEntityTooLarge",
            Self::Rejected { .. } => "Invalid",
        }
    }

    /// The message of the Status object's only cause, whose field is `patch` and whose reason `FieldValueInvalid`.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::Rejected { cause } => Some(cause),
            Self::Body(_) | Self::Malformed(_) | Self::TooManyOperations { .. } => None,
        }
    }

    fn rejected(cause: impl ToString) -> Self {
        Self::Rejected { cause: cause.to_string() }
    }
}

const OPERATIONS: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Decodes the body of a PATCH of an object of that kind. Only [`Origin::BuiltIn`] kinds have a strategic merge patch:
/// of other kinds Kubernetes does not know which lists to merge.
pub fn decode(content_type: Option<&str>, body: &[u8], kind: &str, origin: Origin) -> Result<Request, PatchError> {
    body::check_size(body)?;
    let (change, duplicates) = match (body::media_type(content_type).as_str(), origin) {
        (OPERATIONS, _) => {
            let (operations, duplicates) = operations::decode(body)?;
            (Change::Operations(operations), duplicates)
        }
        (MERGE, _) => {
            let patch = body::object_from_json(body);
            let patch = patch.map_err(|error| PatchError::Malformed(format!("error decoding patch: {error}")))?;
            (Change::Merge(Value::Object(patch.object)), patch.duplicates)
        }
        (STRATEGIC, Origin::BuiltIn) => {
            let patch = body::object_from_json(body).map_err(PatchError::Malformed)?;
            (Change::Strategic(patch.object, Schema::of(kind)), patch.duplicates)
        }
        (APPLY, _) => return Ok(Request::Apply(body::decode_apply(body)?)),
        (_, Origin::BuiltIn) => {
            return Err(BodyError::UnknownFormat { accepted: &[OPERATIONS, MERGE, STRATEGIC, APPLY] }.into());
        }
        (_, Origin::Custom) => return Err(BodyError::UnknownFormat { accepted: &[OPERATIONS, MERGE, APPLY] }.into()),
    };
    Ok(Request::Change(Patch { change, duplicates }))
}

impl Patch {
    /// What to warn of, or with `fieldValidation=Strict` to refuse: a message for each field that was given more than
    /// once.
    pub fn duplicates(&self) -> impl Iterator<Item = String> + '_ {
        let prefix = if matches!(self.change, Change::Operations(_)) { "json patch " } else { "" };
        self.duplicates.messages().map(move |message| format!("{prefix}{message}"))
    }

    /// The object as the patch wants it. Whether that is a valid one is for the caller to check. It nests no deeper than
    /// a decoded body may, if `object` does not.
    pub fn apply(&self, object: Map<String, Value>) -> Result<Map<String, Value>, PatchError> {
        let mut object = Value::Object(object);
        match &self.change {
            Change::Operations(operations) => operations::apply(operations, &mut object)?,
            Change::Merge(patch) => json_patch::merge(&mut object, patch),
            Change::Strategic(patch, schema) => {
                if let Value::Object(object) = &mut object {
                    strategic::merge(object, patch, *schema)?;
                }
            }
        }
        match object {
            Value::Object(object) => Ok(object),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(PatchError::rejected("the patch makes something of the object that is no object"))
            }
        }
    }
}
