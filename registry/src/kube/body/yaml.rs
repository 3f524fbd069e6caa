//! YAML as Kubernetes reads it: one document, the words of YAML 1.1 (`yes`, `on`), anchors and merge keys, to JSON.

mod scalar;

use std::collections::HashMap;
use std::mem;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError};
use serde_json::{Map, Value};
use thiserror::Error;

use super::duplicates::{Duplicates, Path, Step};
use super::{MAX_BODY, MAX_DEPTH, depth};

/// Why a text is not a YAML document that can be JSON.
#[derive(Debug, Error)]
pub(super) enum YamlError {
    #[error("yaml: {0}")]
    Syntax(#[from] ScanError),
    #[error("yaml: invalid UTF-8")]
    NotText,
    #[error("yaml: found character that cannot start any token")]
    Tab,
    #[error("yaml: more than one document")]
    SeveralDocuments,
    #[error("yaml: exceeded max depth of {MAX_DEPTH}")]
    TooDeep,
    #[error("yaml: document contains excessive aliasing")]
    TooMuchAliased,
    #[error("yaml: unknown anchor referenced")]
    UnknownAnchor,
    #[error("yaml: map keys must be strings, numbers or booleans")]
    Key,
    #[error("yaml: map merge requires map or sequence of maps as the value")]
    Merge,
    #[error("yaml: cannot decode {0}")]
    Scalar(String),
}

/// Decodes one YAML document; none is null. Of a key given twice the last counts.
pub(super) fn decode(body: &[u8]) -> Result<(Value, Duplicates), YamlError> {
    let text = std::str::from_utf8(body).map_err(|_| YamlError::NotText)?;
    // YAML 1.2 section 6.1: a tab indents nothing. The parser lets it pass before the first token.
    if text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with('\t')) {
        return Err(YamlError::Tab);
    }
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        builder.take(event?.0)?;
    }
    Ok((builder.document.unwrap_or(Value::Null), builder.duplicates))
}

/// Builds the value from the parser's events, without recursion.
#[derive(Default)]
struct Builder {
    /// The collections that are open, outermost first.
    open: Vec<Collection>,
    document: Option<Value>,
    anchors: HashMap<usize, Value>,
    /// Size of all copies made for anchors and aliases, in about bytes. A few lines of aliases of aliases would
    /// otherwise become gigabytes.
    copied: usize,
    duplicates: Duplicates,
}

struct Collection {
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Value>),
    Object {
        fields: Map<String, Value>,
        key: Option<Key>,
        /// Fields of `<<`, which count where the object itself does not name them.
        merged: Map<String, Value>,
    },
}

enum Key {
    Named(String),
    Merge,
}

impl Builder {
    fn take(&mut self, event: Event<'_>) -> Result<(), YamlError> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) if self.document.is_some() => Err(YamlError::SeveralDocuments),
            Event::DocumentStart(_) => Ok(()),
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).ok_or(YamlError::UnknownAnchor)?;
                // The copy must not nest deeper than anything else may.
                if self.open.len() + depth(value) >= MAX_DEPTH {
                    return Err(YamlError::TooDeep);
                }
                let copy = copy(value, &mut self.copied)?;
                self.put(copy)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_plain = style == ScalarStyle::Plain;
                if is_plain && tag.is_none() && text == "<<" && self.merge_key() {
                    return Ok(());
                }
                let value = scalar::resolve(&text, is_plain, tag.as_deref()).map_err(YamlError::Scalar)?;
                self.remember(anchor, &value)?;
                self.put(value)
            }
            Event::SequenceStart(anchor, _) => self.start(anchor, Content::List(Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.start(anchor, Content::Object { fields: Map::new(), key: None, merged: Map::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Collection { anchor, content }) => {
                    let value = content.finish();
                    self.remember(anchor, &value)?;
                    self.put(value)
                }
                None => Ok(()),
            },
        }
    }

    fn start(&mut self, anchor: usize, content: Content) -> Result<(), YamlError> {
        if self.open.len() + 1 >= MAX_DEPTH {
            return Err(YamlError::TooDeep);
        }
        if let Some(Collection { content: Content::Object { key: None, .. }, .. }) = self.open.last() {
            return Err(YamlError::Key);
        }
        self.open.push(Collection { anchor, content });
        Ok(())
    }

    /// Whether a `<<` stands where a key is expected; then it is taken as the merge key.
    fn merge_key(&mut self) -> bool {
        match self.open.last_mut() {
            Some(Collection { content: Content::Object { key: key @ None, .. }, .. }) => {
                *key = Some(Key::Merge);
                true
            }
            _ => false,
        }
    }

    /// Keeps a value for the aliases of its anchor; 0 is no anchor.
    fn remember(&mut self, anchor: usize, value: &Value) -> Result<(), YamlError> {
        if anchor != 0 {
            let copy = copy(value, &mut self.copied)?;
            self.anchors.insert(anchor, copy);
        }
        Ok(())
    }

    /// Puts a complete value where it belongs.
    fn put(&mut self, value: Value) -> Result<(), YamlError> {
        let Some(collection) = self.open.last_mut() else {
            self.document = Some(value);
            return Ok(());
        };
        match &mut collection.content {
            Content::List(list) => list.push(value),
            Content::Object { fields, key, merged } => match key.take() {
                None => *key = Some(Key::Named(name(value)?)),
                Some(Key::Merge) => merge(merged, value)?,
                Some(Key::Named(name)) => {
                    let is_duplicate = fields.contains_key(&name);
                    if is_duplicate && !self.duplicates.is_full() {
                        let path = self.path(&name);
                        self.duplicates.add(path);
                    }
                    if let Some(Collection { content: Content::Object { fields, .. }, .. }) = self.open.last_mut() {
                        fields.insert(name, value);
                    }
                }
            },
        }
        Ok(())
    }

    /// Path of a field of the innermost open collection.
    fn path(&self, field: &str) -> String {
        let outer = self.open.iter().filter_map(|collection| match &collection.content {
            Content::List(list) => Some(Step::Index(list.len())),
            Content::Object { key: Some(Key::Named(name)), .. } => Some(Step::Field(name)),
            Content::Object { key: Some(Key::Merge), .. } => Some(Step::Field("<<")),
            Content::Object { key: None, .. } => None,
        });
        let steps: Vec<Step<'_>> = outer.chain([Step::Field(field)]).collect();
        Path(&steps).to_string()
    }
}

impl Content {
    fn finish(self) -> Value {
        match self {
            Self::List(list) => Value::Array(list),
            Self::Object { mut fields, mut merged, .. } => {
                if !merged.is_empty() {
                    merged.append(&mut fields);
                    mem::swap(&mut fields, &mut merged);
                }
                Value::Object(fields)
            }
        }
    }
}

/// A key as JSON has it.
fn name(key: Value) -> Result<String, YamlError> {
    match key {
        Value::String(name) => Ok(name),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(YamlError::Key),
    }
}

/// Takes in the value of a merge key; of several maps the first to name a field counts.
fn merge(merged: &mut Map<String, Value>, value: Value) -> Result<(), YamlError> {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                merged.entry(name).or_insert(value);
            }
            Ok(())
        }
        Value::Array(maps) if maps.iter().all(Value::is_object) => {
            maps.into_iter().try_for_each(|map| merge(merged, map))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Err(YamlError::Merge),
    }
}

/// A copy, if the sum of all copies stays below the size of the largest body.
fn copy(value: &Value, copied: &mut usize) -> Result<Value, YamlError> {
    *copied = copied.saturating_add(size(value));
    if *copied > MAX_BODY { Err(YamlError::TooMuchAliased) } else { Ok(value.clone()) }
}

/// About how many bytes the value would be as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 4,
        Value::String(text) => text.len() + 2,
        Value::Array(list) => 2 + list.iter().map(|item| 1 + size(item)).sum::<usize>(),
        Value::Object(fields) => 2 + fields.iter().map(|(name, value)| 4 + name.len() + size(value)).sum::<usize>(),
    }
}
