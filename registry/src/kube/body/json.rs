//! JSON that notices fields named twice.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::duplicates::{Duplicates, Path, Step};

/// Decodes one JSON text. Of a field named twice the last counts. Nesting is bounded by `serde_json`, at 128.
pub(super) fn decode(body: &[u8]) -> serde_json::Result<(Value, Duplicates)> {
    let mut duplicates = Duplicates::default();
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let value = Node { place: None, duplicates: &mut duplicates }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, duplicates))
}

/// Where a value stands: the steps to it, innermost first.
struct Place<'a> {
    outer: Option<&'a Self>,
    step: Step<'a>,
}

fn path(place: Option<&Place<'_>>, field: &str) -> String {
    let outer = std::iter::successors(place, |place| place.outer);
    let mut steps: Vec<Step<'_>> = std::iter::once(Step::Field(field)).chain(outer.map(|place| place.step)).collect();
    steps.reverse();
    Path(&steps).to_string()
}

/// Takes in the value at one place.
struct Node<'a> {
    place: Option<&'a Place<'a>>,
    duplicates: &'a mut Duplicates,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let place = Place { outer: self.place, step: Step::Index(list.len()) };
            match items.next_element_seed(Node { place: Some(&place), duplicates: self.duplicates })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(field) = fields.next_key::<String>()? {
            let place = Place { outer: self.place, step: Step::Field(&field) };
            let value = fields.next_value_seed(Node { place: Some(&place), duplicates: self.duplicates })?;
            if !self.duplicates.is_full() && object.contains_key(&field) {
                self.duplicates.add(path(self.place, &field));
            }
            object.insert(field, value);
        }
        Ok(Value::Object(object))
    }
}
