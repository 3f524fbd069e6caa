//! Server-side apply: merging the configuration of one manager into an object, and tracking who owns which field.

mod compare;
mod conflict;
mod field_set;
mod last_applied;
mod managed_fields;
mod merge;
mod path;
mod schema;
#[cfg(test)]
mod tests;

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Map, Value};
use thiserror::Error;

pub use self::conflict::{Conflict, Conflicts};
pub use self::field_set::{FieldSet, FieldSetError};
pub use self::managed_fields::{Manager, Operation};
pub use self::path::{PathElement, PathElementError};

use self::compare::{Comparison, fields_of, list_errors};
use self::managed_fields::{ManagedFields, Ownership, is_reset};
use self::merge::{merge, prune};
use self::path::same;
use self::schema::Schema;

/// Owns what an object had before anyone applied to it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The subresource in which `status` is written.
const STATUS: &str = "status";

/// Fields that nobody owns: they name the object, or the server writes them.
static UNOWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    let field = |name: &str| PathElement::Field(name.to_owned());
    let mut set = FieldSet::default();
    for name in ["apiVersion", "kind", "metadata"] {
        set.insert(&[field(name)]);
    }
    for name in [
        "creationTimestamp",
        "deletionGracePeriodSeconds",
        "deletionTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ] {
        set.insert(&[field("metadata"), field(name)]);
    }
    set
});

/// What a write request says of itself, and of the resource it writes to.
#[derive(Clone, Copy, Debug)]
pub struct Write<'a> {
    /// OpenAPI v3 schema of the object, without references.
    pub schema: &'a Value,
    /// Whether `status` is written through its own subresource only.
    pub status_subresource: bool,
    /// The field manager that the client names; when empty it is `unknown`.
    pub manager: &'a str,
    /// The subresource written to, `None` for the object itself.
    pub subresource: Option<&'a str>,
    /// Group and version of the request, for example `cluster.open-cluster-management.io/v1`.
    pub api_version: &'a str,
    /// The time; only whole seconds are kept.
    pub now: Timestamp,
}

/// Why a configuration was not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ApplyError {
    /// The patch is not one that can be applied here: 400 `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// Lists in the patch have items that cannot be told apart; kube-apiserver answers 500.
    #[error("failed to create typed patch object ({object}): {reason}")]
    Invalid {
        /// `namespace/name; group/version, Kind=kind`.
        object: String,
        reason: String,
    },
    /// Other managers own fields that the patch sets to other values: 409 `Conflict`.
    #[error(transparent)]
    Conflict(#[from] Conflicts),
}

/// Merges the configuration `patch` of one manager into `live`, `None` when the object does not exist yet.
///
/// Returns the whole new object with its `managedFields`; it equals `live` when the request changes nothing. What the
/// patch says of `status`, or of all else when it goes to the status subresource, is left out. A `resourceVersion` or
/// `uid` in the patch is in the result: the caller compares it with the live one. Defaults are the caller's too.
///
/// # Errors
/// See [`ApplyError`]. With `force` there are no conflicts: the manager takes the fields.
pub fn apply(write: &Write<'_>, live: Option<&Value>, patch: &Value, force: bool) -> Result<Value, ApplyError> {
    check(write, live, patch)?;
    let patch = write.configuration(patch);
    let mut managed = live.and_then(ManagedFields::read).unwrap_or_default();
    let mut base = live.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    managed_fields::remove(&mut base);
    if managed.0.is_empty() && live.is_some() {
        let earlier = Write { manager: BEFORE_FIRST_APPLY, ..*write };
        earlier.own_changes(&mut managed, &Value::Object(Map::new()), &base);
    }
    let (mut object, managed) = match write.merge(&base, &patch, managed.clone(), force) {
        Err(conflicts) if write.manager == last_applied::KUBECTL => {
            let allowed = last_applied::unchanged_fields(write.schema(), &base, write.api_version);
            match conflicts.without(&allowed) {
                Some(conflicts) => return Err(conflicts.into()),
                None => write.merge(&base, &patch, managed, true)?,
            }
        }
        merged => merged?,
    };
    if write.manager == last_applied::KUBECTL {
        last_applied::refresh(&mut object, &patch);
    }
    managed.write(&mut object);
    Ok(object)
}

/// Writes into `after` who owns its fields after a create (`before` is `None`), update or other patch.
///
/// The fields it changed are the manager's, and no longer anyone else's. `after` may carry `managedFields` of its own:
/// the client's edited ones are taken as the start, an empty list or entry asks to forget all managers. An object that
/// has no managers stays without until the next apply.
pub fn record_update(write: &Write<'_>, before: Option<&Value>, after: &mut Value) {
    let stored = || before.and_then(ManagedFields::read).unwrap_or_default();
    let mut managed = if write.subresource.is_some() {
        stored()
    } else if is_reset(after) {
        ManagedFields::default()
    } else {
        ManagedFields::read(after).filter(|managed| !managed.0.is_empty()).unwrap_or_else(stored)
    };
    managed_fields::remove(after);
    if before.is_some() && managed.0.is_empty() {
        return;
    }
    let mut before = before.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    managed_fields::remove(&mut before);
    write.own_changes(&mut managed, &before, after);
    managed.write(after);
}

/// Refuses what is no configuration of this object.
fn check(write: &Write<'_>, live: Option<&Value>, patch: &Value) -> Result<(), ApplyError> {
    let text = |object: &Value, path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text(patch, "/apiVersion"), text(patch, "/kind"));
    let core = if api_version.contains('/') { "" } else { "/" };
    let known_kind = live.map_or_else(|| kind.clone(), |live| text(live, "/kind"));
    if api_version != write.api_version || kind.is_empty() || kind != known_kind {
        return Err(ApplyError::BadRequest(format!("invalid object type: {core}{api_version}, Kind={kind}")));
    }
    if patch.pointer("/metadata/managedFields").is_some_and(|managed| !managed.is_null()) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    let name = text(patch, "/metadata/name");
    if name.is_empty() {
        return Err(ApplyError::BadRequest("name must be provided".to_owned()));
    }
    let mut errors = Vec::new();
    list_errors(write.schema(), patch, "", &mut errors);
    let reason = match errors.as_slice() {
        [] => return Ok(()),
        [error] => error.clone(),
        _ => format!("errors:\n  {}", errors.join("\n  ")),
    };
    let namespace = text(patch, "/metadata/namespace");
    Err(ApplyError::Invalid { object: format!("{namespace}/{name}; {core}{api_version}, Kind={kind}"), reason })
}

impl Write<'_> {
    fn schema(&self) -> Schema<'_> {
        Schema::object(self.schema)
    }

    fn owner(&self, operation: Operation) -> Manager {
        Manager {
            name: if self.manager.is_empty() { "unknown" } else { self.manager }.to_owned(),
            operation,
            api_version: match operation {
                Operation::Apply => String::new(),
                Operation::Update => self.api_version.to_owned(),
            },
            subresource: self.subresource.unwrap_or_default().to_owned(),
        }
    }

    fn time(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.now.as_second()).ok()
    }

    /// Whether a request to this subresource writes the field `name` of the object.
    fn writes(&self, name: &str) -> bool {
        match self.subresource {
            Some(STATUS) => name == STATUS,
            Some(_) | None => name != STATUS || !self.status_subresource,
        }
    }

    /// The part of a patch that this request may set.
    fn configuration(&self, patch: &Value) -> Value {
        let mut patch = patch.clone();
        if let Some(fields) = patch.as_object_mut() {
            fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata") || self.writes(name));
        }
        if let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut) {
            // Go clients write `creationTimestamp: null`, which is not a wish to have none.
            metadata.retain(|name, value| {
                let names_object = matches!(name.as_str(), "name" | "namespace" | "uid" | "resourceVersion");
                !value.is_null() && (names_object || self.subresource != Some(STATUS))
            });
        }
        patch
    }

    /// Lays `patch` over `base`; both are without `managedFields`.
    fn merge(
        &self,
        base: &Value,
        patch: &Value,
        mut managed: ManagedFields,
        force: bool,
    ) -> Result<(Value, ManagedFields), Conflicts> {
        let schema = self.schema();
        let me = self.owner(Operation::Apply);
        let last = managed.0.remove(&me);
        let mut object = merge(schema, base, patch);
        if let Some(last) = &last {
            let others = managed.0.values().fold(FieldSet::default(), |all, other| all.union(&other.fields));
            object = prune(schema, &object, &last.fields, patch, &others);
        }
        let unchanged = same(base, &object);
        if unchanged {
            // Equal, but perhaps written otherwise: `1.0` for `1`.
            object = base.clone();
        }
        let changes = Comparison::of(schema, base, &object);
        if !force {
            Conflicts::find(&managed, &changes.set())?;
        }
        managed.disown(&changes);
        let fields = fields_of(schema, patch).difference(&UNOWNED);
        if !fields.is_empty() {
            let mut mine = Ownership { fields, api_version: self.api_version.to_owned(), time: self.time() };
            if let Some(last) =
                last.filter(|last| unchanged && last.fields == mine.fields && last.api_version == mine.api_version)
            {
                mine.time = last.time;
            }
            managed.0.insert(me, mine);
        }
        Ok((object, managed))
    }

    /// Gives the manager what differs between two states without `managedFields`, and takes it from all others.
    fn own_changes(&self, managed: &mut ManagedFields, before: &Value, after: &Value) {
        let mut changes = Comparison::of(self.schema(), before, after);
        for set in [&mut changes.added, &mut changes.modified, &mut changes.removed] {
            set.children.retain(|element, _| matches!(element, PathElement::Field(name) if self.writes(name)));
        }
        let me = self.owner(Operation::Update);
        let previous = managed.0.get(&me).map(|mine| mine.fields.difference(&changes.removed));
        managed.disown(&changes);
        let fields = changes.set().difference(&UNOWNED);
        if !fields.is_empty() {
            let fields = previous.map_or_else(|| fields.clone(), |previous| previous.union(&fields));
            let mine = Ownership { fields, api_version: self.api_version.to_owned(), time: self.time() };
            managed.0.insert(me, mine);
        }
        managed.compact();
    }
}
