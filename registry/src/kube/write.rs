//! Writes: create, update, patch and delete of one object, decided on what is stored and stored only if that still holds.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    access::Access,
    admission::Admission,
    apply,
    object,
    options::{FieldValidation, WriteOptions},
    patch::Patch,
    resource::Resource,
    schema, sets,
    status::Status,
    strategy::{self, Outcome},
};
use crate::registry::{Registry, random_uuid};
use crate::store::{CommitError, Txn};
use crate::view::Change;

/// One write request on objects of one resource.
pub(crate) struct Write<'a> {
    pub(crate) registry: &'a Arc<Registry>,
    pub(crate) resource: &'static Resource,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) subresource: Option<&'a str>,
    pub(crate) access: &'a Access,
    pub(crate) options: &'a WriteOptions,
    /// Who owns the fields that are set.
    pub(crate) manager: &'a str,
    pub(crate) now: Timestamp,
}

/// What a write has done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Written {
    /// The object as it is now; as it was last if it is gone.
    pub(crate) object: Value,
    pub(crate) effect: Effect,
    /// For `Warning` headers.
    pub(crate) warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Created,
    Changed,
    Gone,
}

/// What a client asks of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) foreground: bool,
}

/// How often a write without a revision of its own is decided anew because another one came first.
const ATTEMPTS: usize = 100;
/// How often a name is drawn for `generateName`.
const DRAWS: usize = 8;

impl Write<'_> {
    /// Stores a new object, under `body`'s name or one drawn for its `generateName`.
    pub(crate) async fn create(&self, body: Value) -> Result<Written, Status> {
        let (mut object, warnings) = self.received(body)?;
        if !object::metadata(&object, "resourceVersion").is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let prefix = object::metadata(&object, "generateName").to_owned();
        let drawn = object::name(&object).is_empty() && !prefix.is_empty();
        strategy::begin(self.resource, &mut object, random_uuid(), self.now);
        for _ in 0..if drawn { DRAWS } else { 1 } {
            let mut object = object.clone();
            if drawn {
                let name = strategy::drawn_name(&prefix);
                strategy::metadata_mut(&mut object).insert("name".to_owned(), name.into());
            }
            let name = object::name(&object).to_owned();
            let object = self.settled(None, object)?;
            match self.store_new(&name, object).await {
                Err(taken) if drawn && taken.reason == "AlreadyExists" => {}
                stored => return stored.map(|object| Written { object, effect: Effect::Created, warnings }),
            }
        }
        Err(Status::already_exists(self.resource, &prefix))
    }

    /// Replaces an object by `body`.
    pub(crate) async fn update(&self, name: &str, body: Value) -> Result<Written, Status> {
        let (sent, warnings) = self.received(body)?;
        if object::name(&sent) != name {
            let named = object::name(&sent);
            let message = format!("the name of the object ({named}) does not match the name on the URL ({name})");
            return Err(Status::bad_request(message));
        }
        if object::metadata(&sent, "resourceVersion").is_empty() && !self.resource.built_in {
            let cause = Cause::invalid("metadata.resourceVersion", &0.into(), "must be specified for an update");
            return Err(Status::invalid(self.resource, name, vec![cause]));
        }
        let (object, effect) = self.change(name, |before| Ok(Some((before.clone(), sent.clone())))).await?;
        Ok(Written { object, effect, warnings })
    }

    /// Changes an object by a patch, decided anew on what is stored when another write came first.
    pub(crate) async fn patch(&self, name: &str, patch: &Patch) -> Result<Written, Status> {
        let warnings = Mutex::default();
        let patched = |before: &Value| {
            let (object, warned) = self.checked(patch.apply(before)?, Vec::new())?;
            *warnings.lock() = warned;
            Ok(object)
        };
        let (object, effect) = self.change(name, true, patched).await?;
        Ok(Written { object, effect, warnings: warnings.into_inner() })
    }

    /// Merges what one manager wants of an object into it, or makes it (server-side apply).
    pub(crate) async fn apply(&self, name: &str, wanted: Value) -> Result<Written, Status> {
        let (wanted, warnings) = self.checked(wanted, Vec::new())?;
        if object::name(&wanted) != name {
            let named = object::name(&wanted);
            let message = format!("the name of the object ({named}) does not match the name on the URL ({name})");
            return Err(Status::bad_request(message));
        }
        let merged = |live: Option<&Value>| {
            let merge = apply::Apply { schema: self.resource.schema(), manager: self.manager, force: self.options.force, now: self.now };
            Ok(merge.merge(live, &wanted)?)
        };
        loop {
            let applied = self.change(name, false, |live| merged(Some(live))).await;
            match applied {
                Err(missing) if missing.code == 404 && self.subresource.is_none() => {}
                applied => return applied.map(|(object, effect)| Written { object, effect, warnings }),
            }
            self.access.require("create", self.resource, self.namespace, name)?;
            let mut object = merged(None)?;
            strategy::begin(self.resource, &mut object, random_uuid(), self.now);
            match self.store_new(name, self.settled(None, object)?).await {
                Err(taken) if taken.reason == "AlreadyExists" => {}
                stored => return stored.map(|object| Written { object, effect: Effect::Created, warnings }),
            }
        }
    }

    /// Deletes an object, or marks it for those whose finalizers it has.
    pub(crate) async fn delete(&self, name: &str, deletion: &Deletion) -> Result<Written, Status> {
        let key = object::key(self.resource, self.namespace, name);
        for _ in 0..ATTEMPTS {
            let (before, revision) = self.stored(&key, name)?;
            deletion.check(self.resource, name, &before)?;
            self.admission().release(&before)?;
            let outcome = strategy::delete(self.resource, &before, deletion.foreground, self.now);
            if let Some((object, effect)) = self.store(&key, name, revision, before, outcome).await? {
                return Ok(Written { object, effect, warnings: Vec::new() });
            }
        }
        Err(Status::modified(self.resource, name))
    }

    /// Decides on what is stored and stores the decision, again until nobody came first.
    async fn change(
        &self,
        name: &str,
        tracked: bool,
        decide: impl Fn(&Value) -> Result<Value, Status>,
    ) -> Result<(Value, Effect), Status> {
        let key = object::key(self.resource, self.namespace, name);
        for _ in 0..ATTEMPTS {
            let (before, revision) = self.stored(&key, name)?;
            let sent = decide(&before)?;
            strategy::check(self.resource, name, &before, &sent)?;
            let after = strategy::keep(self.resource, self.subresource, &before, sent);
            let after = self.settled(Some(&before), after, tracked)?;
            let outcome = strategy::settle(self.resource, &before, after);
            if let Some(stored) = self.store(&key, name, revision, before, outcome).await? {
                return Ok(stored);
            }
        }
        Err(Status::modified(self.resource, name))
    }
}
