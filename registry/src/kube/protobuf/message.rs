//! One protobuf message to one JSON object, by a table of its fields.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::wire::{self, Malformed, Payload, Reader};

/// A field of a message: its number on the wire and its name in JSON.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
}

/// How often the field occurs, and whether an empty value is a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Go always writes it; an empty one says nothing.
    Plain,
    /// A pointer in Go: written only if it was set, so zero was meant.
    Pointer,
    List,
    /// From strings to the kind.
    Map,
}

/// What the payload of a field means.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    String,
    /// `int32` and `int64` look the same on the wire.
    Integer,
    Bool,
    Bytes,
    /// `meta/v1.Time`, whole seconds.
    Time,
    /// `meta/v1.MicroTime`.
    MicroTime,
    /// A message whose field 1 is JSON text: `meta/v1.FieldsV1`.
    Json,
    /// A message whose field 1 is a list of strings: `ExtraValue`.
    Strings,
    Message(&'static [Field]),
}

/// What is wrong, and in which field: the names from the innermost outwards.
#[derive(Debug)]
pub(super) struct FieldError {
    pub(super) what: &'static str,
    names: Vec<&'static str>,
}

impl FieldError {
    /// The field as a path such as `metadata.name`.
    pub(super) fn path(&self) -> String {
        let names: Vec<&str> = self.names.iter().rev().copied().collect();
        names.join(".")
    }
}

impl From<Malformed> for FieldError {
    fn from(Malformed(what): Malformed) -> Self {
        Self { what, names: Vec::new() }
    }
}

/// Decodes a message into `object`. The tables are finite and name no table within itself, which bounds the recursion.
pub(super) fn decode(
    bytes: &[u8],
    fields: &'static [Field],
    object: &mut Map<String, Value>,
) -> Result<(), FieldError> {
    for found in Reader(bytes) {
        let (number, payload) = found?;
        if let Some(field) = fields.iter().find(|field| field.number == number) {
            field.put(&payload, object).map_err(|mut error| {
                error.names.push(field.name);
                error
            })?;
        }
    }
    Ok(())
}

impl Field {
    fn put(&self, payload: &Payload<'_>, object: &mut Map<String, Value>) -> Result<(), FieldError> {
        match (self.shape, self.kind) {
            // A message that comes in pieces is put together, as protobuf wants it.
            (Shape::Plain | Shape::Pointer, Kind::Message(fields)) => {
                let slot = object.entry(self.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(inner) = slot {
                    decode(bytes(payload)?, fields, inner)?;
                }
            }
            (Shape::Plain | Shape::Pointer, kind) => {
                let value = value(payload, kind)?;
                if value.is_null() || self.shape == Shape::Plain && is_empty(&value) {
                    object.remove(self.name);
                } else {
                    object.insert(self.name.to_owned(), value);
                }
            }
            (Shape::List, kind) => {
                let item = value(payload, kind)?;
                if let Value::Array(list) = object.entry(self.name).or_insert_with(|| Value::Array(Vec::new())) {
                    list.push(item);
                }
            }
            (Shape::Map, kind) => {
                let (key, item) = entry(bytes(payload)?, kind)?;
                let map = object.entry(self.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(map) = map {
                    map.insert(key, item);
                }
            }
        }
        Ok(())
    }
}

/// An entry of a map: key 1, value 2; either may be missing and is then empty.
fn entry(bytes: &[u8], kind: Kind) -> Result<(String, Value), FieldError> {
    let (mut key, mut item) = (String::new(), value(&Payload::Bytes(&[]), kind)?);
    for found in Reader(bytes) {
        match found? {
            (1, Payload::Bytes(text)) => key = wire::text(text)?.to_owned(),
            (2, payload) => item = value(&payload, kind)?,
            _ => {}
        }
    }
    Ok((key, item))
}

fn value(payload: &Payload<'_>, kind: Kind) -> Result<Value, FieldError> {
    Ok(match kind {
        Kind::String => wire::text(bytes(payload)?)?.into(),
        // Two's complement: an int32 below zero is ten bytes long as well.
        Kind::Integer => number(payload)?.cast_signed().into(),
        Kind::Bool => (number(payload)? != 0).into(),
        Kind::Bytes => STANDARD.encode(bytes(payload)?).into(),
        Kind::Time => match time(bytes(payload)?)? {
            Some((seconds, _)) => timestamp(seconds, 0)?.to_string().into(),
            None => Value::Null,
        },
        Kind::MicroTime => match time(bytes(payload)?)? {
            Some((seconds, nanos)) => format!("{:.6}", timestamp(seconds, nanos)?).into(),
            None => Value::Null,
        },
        Kind::Json => match first_field(bytes(payload)?)?.last() {
            Some(json) => serde_json::from_slice(json).map_err(|_| Malformed("not JSON"))?,
            None => Value::Null,
        },
        Kind::Strings => {
            let texts = first_field(bytes(payload)?)?;
            texts.into_iter().map(|text| wire::text(text).map(Value::from)).collect::<Result<Vec<_>, _>>()?.into()
        }
        Kind::Message(fields) => {
            let mut object = Map::new();
            decode(bytes(payload)?, fields, &mut object)?;
            Value::Object(object)
        }
    })
}

/// Seconds and nanoseconds since 1970. An empty message is the zero time of Go, which means none.
fn time(bytes: &[u8]) -> Result<Option<(i64, i32)>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for found in Reader(bytes) {
        match found? {
            (1, Payload::Number(number)) => seconds = number.cast_signed(),
            (2, Payload::Number(number)) => {
                nanos = i32::try_from(number).map_err(|_| Malformed("time out of range"))?;
            }
            _ => {}
        }
    }
    Ok(Some((seconds, nanos)))
}

/// RFC 3339 has years 0 to 9999.
fn timestamp(seconds: i64, nanos: i32) -> Result<Timestamp, Malformed> {
    const YEAR_0: i64 = -62_167_219_200;
    let timestamp = Timestamp::new(seconds, nanos).ok().filter(|_| seconds >= YEAR_0);
    timestamp.ok_or(Malformed("time out of range"))
}

/// The payloads of field 1.
fn first_field(bytes: &[u8]) -> Result<Vec<&[u8]>, Malformed> {
    let mut payloads = Vec::new();
    for found in Reader(bytes) {
        if let (1, Payload::Bytes(payload)) = found? {
            payloads.push(payload);
        }
    }
    Ok(payloads)
}

fn bytes<'a>(payload: &Payload<'a>) -> Result<&'a [u8], Malformed> {
    match payload {
        Payload::Bytes(bytes) => Ok(bytes),
        Payload::Number(_) | Payload::Fixed => Err(Malformed("wrong wireType")),
    }
}

fn number(payload: &Payload<'_>) -> Result<u64, Malformed> {
    match payload {
        Payload::Number(number) => Ok(*number),
        Payload::Bytes(_) | Payload::Fixed => Err(Malformed("wrong wireType")),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(_) | Value::Object(_) => false,
    }
}
