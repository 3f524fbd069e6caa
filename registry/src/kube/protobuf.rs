//! Kubernetes' protobuf: Go clients send built-in kinds so, and do not fall back to JSON.
//!
//! A body is four bytes of magic and a `runtime.Unknown`, which names the kind and holds the encoded object. One table
//! (`kinds`) says which fields each kind has; one walker (`message`) turns the wire format into the JSON form.

mod kinds;
mod message;
#[cfg(test)]
mod tests;
mod wire;

use serde_json::{Map, Value};
use thiserror::Error;

use self::wire::{Malformed, Payload, Reader};
use super::body::{MAX_DEPTH, depth};

const MAGIC: &[u8] = b"k8s\0";

/// Why a protobuf body was not understood. Always 400 `BadRequest`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProtobufError {
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    NoEnvelope,
    #[error("content encoding {0:?} is not supported")]
    Encoded(String),
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind { api_version: String, kind: String },
    /// The bytes are not a message of the kind; `field` is where, as a path of JSON names.
    #[error("proto: {what}{}", in_field(field))]
    Malformed { what: &'static str, field: String },
}

fn in_field(field: &str) -> String {
    if field.is_empty() { String::new() } else { format!(" in {field}") }
}

/// Decodes a body to the object's JSON form, with `apiVersion` and `kind`.
///
/// As Go would write it: fields that are empty are left out unless a client can mean something by them, times are
/// RFC 3339 and bytes base64. Fields this version does not know are skipped.
pub fn decode(body: &[u8]) -> Result<Map<String, Value>, ProtobufError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtobufError::NoEnvelope)?;
    let envelope =
        Envelope::decode(unknown).map_err(|Malformed(what)| ProtobufError::Malformed { what, field: String::new() })?;
    if !envelope.content_encoding.is_empty() {
        return Err(ProtobufError::Encoded(shown(envelope.content_encoding)));
    }
    let (api_version, kind) = (envelope.api_version, envelope.kind);
    let fields = kinds::fields(api_version, kind)
        .ok_or_else(|| ProtobufError::UnknownKind { api_version: shown(api_version), kind: shown(kind) })?;
    let mut object = Map::new();
    message::decode(envelope.raw, fields, &mut object)
        .map_err(|error| ProtobufError::Malformed { what: error.what, field: error.path() })?;
    // The tables have an end, but a field may be JSON.
    if object.values().any(|value| depth(value) + 1 >= MAX_DEPTH) {
        return Err(ProtobufError::Malformed { what: "exceeded max depth", field: String::new() });
    }
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(object)
}

/// Enough of a name to recognise it: a message that quotes all of a body would be several times as long.
fn shown(name: &str) -> String {
    const SHOWN: usize = 128;
    name.chars().take(SHOWN).collect()
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: &'a str,
    kind: &'a str,
    raw: &'a [u8],
    content_encoding: &'a str,
}

impl<'a> Envelope<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        for field in Reader(bytes) {
            match field? {
                (1, Payload::Bytes(type_meta)) => {
                    for field in Reader(type_meta) {
                        match field? {
                            (1, Payload::Bytes(text)) => envelope.api_version = wire::text(text)?,
                            (2, Payload::Bytes(text)) => envelope.kind = wire::text(text)?,
                            _ => {}
                        }
                    }
                }
                (2, Payload::Bytes(raw)) => envelope.raw = raw,
                (3, Payload::Bytes(text)) => envelope.content_encoding = wire::text(text)?,
                // 4 is the content type: protobuf, or the client would have sent JSON.
                _ => {}
            }
        }
        Ok(envelope)
    }
}
