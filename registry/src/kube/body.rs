//! Bodies of requests: from bytes and a content type to one JSON object.

mod duplicates;
mod json;
#[cfg(test)]
mod tests;
mod yaml;

pub use self::duplicates::Duplicates;

use serde_json::{Map, Value};
use thiserror::Error;

use super::protobuf;

/// Largest body, in bytes, as in kube-apiserver.
pub const MAX_BODY: usize = 3 << 20;

/// Values nest less deep than this. The limit of `serde_json`, so that every recursion over a decoded value has a bound,
/// and what is stored can be read again.
pub const MAX_DEPTH: usize = 128;

/// Whether Kubernetes itself has a kind, or we add it as a custom resource would: the content types differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    BuiltIn,
    Custom,
}

/// A decoded body.
#[derive(Clone, Debug, PartialEq)]
pub struct Body {
    pub object: Map<String, Value>,
    /// Fields that were given more than once; `object` has the last. What to do about them is `fieldValidation`'s matter.
    pub duplicates: Duplicates,
}

/// Why a body was not understood; the message is Kubernetes'.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BodyError {
    #[error(
        "the body of the request was in an unknown format - accepted media types include: {}",
        accepted.join(", ")
    )]
    UnknownFormat { accepted: &'static [&'static str] },
    #[error("Request entity too large: limit is {MAX_BODY}")]
    TooLarge,
    #[error("{0}")]
    Malformed(String),
}

impl BodyError {
    /// The HTTP status code.
    pub fn code(&self) -> u16 {
        match self {
            Self::UnknownFormat { .. } => 415,
            Self::TooLarge => 413,
            Self::Malformed(_) => 400,
        }
    }

    /// The `reason` of the Status object.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownFormat { .. } => "UnsupportedMediaType",
            Self::TooLarge => "RequestEntityTooLarge",
            Self::Malformed(_) => "BadRequest",
        }
    }
}

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Decodes the body of a create, an update, a delete or a review. No content type means JSON, as in Kubernetes. `kind`
/// is the kind the request is about, named in errors. That the object is of that kind is for the caller to check.
///
/// Bodies of [`Origin::Custom`] kinds may not be protobuf; `DeleteOptions` is a built-in kind wherever it is sent to.
pub fn decode(content_type: Option<&str>, body: &[u8], kind: &str, origin: Origin) -> Result<Body, BodyError> {
    check_size(body)?;
    let unrecognized = |error: String| {
        BodyError::Malformed(format!(
            "the object provided is unrecognized (must be of type {kind}): {error} ({})",
            summary(body)
        ))
    };
    match (media_type(content_type).as_str(), origin) {
        ("" | JSON, _) => object_from_json(body)
            .map_err(|e| unrecognized(format!("couldn't get version/kind; json parse error: {e}"))),
        (YAML, _) => object_from_yaml(body)
            .map_err(|error| unrecognized(format!("couldn't get version/kind; yaml parse error: {error}"))),
        (PROTOBUF, Origin::BuiltIn) => match protobuf::decode(body) {
            Ok(object) => Ok(Body { object, duplicates: Duplicates::default() }),
            Err(error) => Err(unrecognized(error.to_string())),
        },
        (_, Origin::BuiltIn) => Err(BodyError::UnknownFormat { accepted: &[JSON, YAML, PROTOBUF] }),
        (_, Origin::Custom) => Err(BodyError::UnknownFormat { accepted: &[JSON, YAML] }),
    }
}

/// Decodes the body of a server-side apply, `application/apply-patch+yaml`, which may also be JSON.
pub fn decode_apply(body: &[u8]) -> Result<Body, BodyError> {
    check_size(body)?;
    object_from_yaml(body).map_err(|error| BodyError::Malformed(format!("error decoding YAML: {error}")))
}

/// Decodes a body that must be a JSON object; what is wrong is said without context.
pub(super) fn object_from_json(body: &[u8]) -> Result<Body, String> {
    let (value, duplicates) = decode_json(body)?;
    object(value, duplicates)
}

/// Decodes a body that may be any JSON value.
pub(super) fn decode_json(body: &[u8]) -> Result<(Value, Duplicates), String> {
    json::decode(body).map_err(|error| error.to_string())
}

fn object_from_yaml(body: &[u8]) -> Result<Body, String> {
    let (value, duplicates) = yaml::decode(body).map_err(|error| error.to_string())?;
    object(value, duplicates)
}

fn object(value: Value, duplicates: Duplicates) -> Result<Body, String> {
    let found = match value {
        Value::Object(object) => return Ok(Body { object, duplicates }),
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
    };
    Err(format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}"))
}

/// How many levels of collections a value has: 0 for a scalar. The value's own depth bounds the recursion.
pub(super) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

pub(super) fn check_size(body: &[u8]) -> Result<(), BodyError> {
    if body.len() > MAX_BODY { Err(BodyError::TooLarge) } else { Ok(()) }
}

/// The content type without its parameters.
pub(super) fn media_type(content_type: Option<&str>) -> String {
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// How a body begins, as Kubernetes shows it: objects as text, anything else in hexadecimal.
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let start = &body[..body.len().min(SHOWN)];
    let shown = match start.first() {
        None => return "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(start).into_owned(),
        Some(_) => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > SHOWN { format!("{shown} ...") } else { shown }
}
