//! `metadata.managedFields`: which manager owns which fields since when.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::compare::Comparison;
use super::field_set::FieldSet;

/// More managers of plain writes than this are not remembered one by one.
const MAX_UPDATE_MANAGERS: usize = 10;

/// The name under which the oldest of them are remembered together.
const ANCIENT_CHANGES: &str = "ancient-changes";

const FIELDS_TYPE: &str = "FieldsV1";

/// How a manager came to own fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By create, update or any other patch.
    Update,
}

/// Who owns fields. One client may be several managers: by apply and by update, per subresource, per API version.
///
/// Its `Display` is how conflicts name it: `"kubectl-edit" using v1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Manager {
    pub name: String,
    pub operation: Operation,
    /// Group and version it wrote in; empty for apply, where one manager has one configuration in whatever version.
    pub api_version: String,
    /// Empty for the object itself.
    pub subresource: String,
}

/// What one manager owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ownership {
    pub(super) fields: FieldSet,
    pub(super) api_version: String,
    pub(super) time: Option<Timestamp>,
}

/// The managers of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ManagedFields(pub(super) BTreeMap<Manager, Ownership>);

/// One entry as it is written.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    manager: String,
    operation: Operation,
    api_version: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    fields_type: String,
    #[serde(default)]
    fields_v1: FieldSet,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    subresource: String,
}

impl ManagedFields {
    /// Reads the `managedFields` of an object; `None` when any entry is malformed.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let Some(json) = object.pointer("/metadata/managedFields").filter(|json| !json.is_null()) else {
            return Some(Self::default());
        };
        let entries: Vec<Entry> = Deserialize::deserialize(json).ok()?;
        let mut managed = Self::default();
        for entry in entries {
            if entry.api_version.is_empty() || entry.fields_type != FIELDS_TYPE {
                return None;
            }
            let manager = Manager {
                name: entry.manager,
                operation: entry.operation,
                api_version: match entry.operation {
                    Operation::Apply => String::new(),
                    Operation::Update => entry.api_version.clone(),
                },
                subresource: entry.subresource,
            };
            let ownership = Ownership { fields: entry.fields_v1, api_version: entry.api_version, time: entry.time };
            managed.0.insert(manager, ownership);
        }
        Some(managed)
    }

    /// Replaces the `managedFields` of an object; none at all when nobody owns anything.
    pub(super) fn write(&self, object: &mut Value) {
        let mut entries: Vec<_> = self.0.iter().collect();
        entries.sort_by_key(|(manager, ownership)| {
            (manager.operation, ownership.seconds(), &manager.name, &ownership.api_version, &manager.subresource)
        });
        let entries = entries.into_iter().map(|(manager, ownership)| Entry {
            manager: manager.name.clone(),
            operation: manager.operation,
            api_version: ownership.api_version.clone(),
            time: ownership.time,
            fields_type: FIELDS_TYPE.to_owned(),
            fields_v1: ownership.fields.clone(),
            subresource: manager.subresource.clone(),
        });
        let json = serde_json::to_value(entries.collect::<Vec<_>>()).unwrap_or_default();
        remove(object);
        if !self.0.is_empty()
            && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("managedFields".to_owned(), json);
        }
    }

    /// Takes what changed from everyone. Who then owns nothing is forgotten.
    pub(super) fn disown(&mut self, changes: &Comparison) {
        let changed = changes.set();
        self.0.retain(|_, ownership| {
            ownership.fields = ownership.fields.difference(&changed).difference(&changes.removed);
            !ownership.fields.is_empty()
        });
    }

    /// Merges the oldest managers of plain writes into one for each version until there are few enough.
    pub(super) fn compact(&mut self) {
        let mut updaters: Vec<Manager> = self.updaters().cloned().collect();
        updaters.sort_by_cached_key(|manager| (self.0.get(manager).map(Ownership::seconds), manager.clone()));
        let mut oldest: BTreeMap<String, Manager> = BTreeMap::new();
        for manager in updaters {
            if self.updaters().count() <= MAX_UPDATE_MANAGERS {
                return;
            }
            let ancient = Manager {
                name: ANCIENT_CHANGES.to_owned(),
                operation: Operation::Update,
                api_version: manager.api_version.clone(),
                subresource: String::new(),
            };
            // One manager alone is not renamed: the first of a version waits for a second.
            if let Some(first) = oldest.insert(manager.api_version.clone(), manager.clone()) {
                self.merge_into(&first, &ancient);
                self.merge_into(&manager, &ancient);
                oldest.insert(manager.api_version, ancient);
            }
        }
    }

    fn updaters(&self) -> impl Iterator<Item = &Manager> {
        self.0.keys().filter(|manager| manager.operation == Operation::Update)
    }

    fn merge_into(&mut self, from: &Manager, into: &Manager) {
        if from != into
            && let Some(ownership) = self.0.remove(from)
        {
            match self.0.get_mut(into) {
                Some(into) => {
                    into.fields = into.fields.union(&ownership.fields);
                    into.time = into.time.max(ownership.time);
                }
                None => drop(self.0.insert(into.clone(), ownership)),
            }
        }
    }
}

impl Ownership {
    fn seconds(&self) -> i64 {
        self.time.map_or(0, Timestamp::as_second)
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {:?}", self.subresource)?;
        }
        match self.operation {
            Operation::Apply => Ok(()),
            Operation::Update => write!(f, " using {}", self.api_version),
        }
    }
}

/// Whether a client asks to forget all managers: it sent an empty list, or one empty entry.
pub(super) fn is_reset(object: &Value) -> bool {
    let entries = object.pointer("/metadata/managedFields").and_then(Value::as_array);
    entries.is_some_and(|entries| match entries.as_slice() {
        [] => true,
        [entry] => entry.as_object().is_some_and(serde_json::Map::is_empty),
        _ => false,
    })
}

/// Takes `managedFields` out of an object.
pub(super) fn remove(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
}
