//! The order of a merged list: what the patch asks for, and between that what the list had.

use std::collections::HashMap;

use serde_json::Value;

/// What makes two items of a list the same, as JSON text: the value of the merge key, or without one the item itself.
pub(super) fn identity(item: &Value, key: Option<&str>) -> Option<String> {
    key.map_or(Some(item), |key| item.get(key)).map(Value::to_string)
}

/// Where the items of a list first stand.
pub(super) struct Positions<'a> {
    of: HashMap<String, usize>,
    key: Option<&'a str>,
}

impl<'a> Positions<'a> {
    pub(super) fn new<'i>(list: impl IntoIterator<Item = &'i Value>, key: Option<&'a str>) -> Self {
        let mut of = HashMap::new();
        for (position, item) in list.into_iter().enumerate() {
            if let Some(identity) = identity(item, key) {
                of.entry(identity).or_insert(position);
            }
        }
        Self { of, key }
    }

    fn get(&self, item: &Value) -> Option<usize> {
        self.of.get(&identity(item, self.key)?).copied()
    }
}

/// Arranges items: those that are wanted as they are wanted, the others as they stood in the live list, each of them
/// before the first wanted item that it stood before.
pub(super) fn arrange(items: Vec<Value>, wanted: &Positions<'_>, live: &Positions<'_>) -> Vec<Value> {
    let count = items.len();
    let (mut ordered, mut others): (Vec<_>, Vec<_>) =
        items.into_iter().map(|item| (wanted.get(&item), live.get(&item), item)).partition(|item| item.0.is_some());
    ordered.sort_by_key(|item| item.0);
    others.sort_by_key(|item| item.1.unwrap_or(usize::MAX));
    let mut others = others.into_iter().peekable();
    let mut arranged = Vec::with_capacity(count);
    for (_, stood, item) in ordered {
        if let Some(stood) = stood {
            while let Some(other) = others.next_if(|other| other.1.is_some_and(|before| before < stood)) {
                arranged.push(other.2);
            }
        }
        arranged.push(item);
    }
    arranged.extend(others.map(|other| other.2));
    arranged
}
