//! Writes: create, update, patch, apply and delete of one object, decided on what is stored and stored only if that
//! still holds.

mod approval;
mod namespace;
pub(crate) mod own;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::{
    admission::{self, Admission},
    apply,
    body::Body,
    cause::Cause,
    metadata, object,
    options::{FieldValidation, Propagation, WriteOptions},
    patch::Patch,
    request_info::{RequestInfo, ResourceRef},
    resource::Resource,
    schema,
    source::Source,
    status::Status,
    strategy::{self, Outcome},
};
use crate::registry::random_uuid;
use crate::rights_queue::{Rights, RightsTurn, mark};
use store::{CommitError, Revision, Txn};

/// One write request on objects of one resource.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write<'a> {
    pub(crate) info: RequestInfo<'a>,
    pub(crate) resource: &'static Resource,
    pub(crate) namespace: Option<&'a str>,
    pub(crate) subresource: Option<&'a str>,
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
    pub(crate) propagation: Option<Propagation>,
}

/// How an object came to be what is about to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldOwnership {
    /// Its fields are the manager's from now on.
    Update,
    /// Who owns what is noted already.
    Apply,
}

/// How often a write without a revision of its own is decided anew because another one came first.
const ATTEMPTS: usize = 100;
/// What may hand out rights: one write of these is decided and stored at a time.
const HANDS_OUT: [&str; 7] = [
    "managedclusters",
    "managedclustersets",
    "managedclustersetbindings",
    "roles",
    "clusterroles",
    "rolebindings",
    "clusterrolebindings",
];
/// How often a name is drawn for `generateName`.
const DRAWS: usize = 8;

impl Write<'_> {
    /// Stores a new object, under `body`'s name or one drawn for its `generateName`.
    pub(crate) async fn create(&self, body: Body) -> Result<Written, Status> {
        let turn = self.turn().await?;
        let (mut object, warnings) = self.completed(body.object, body.duplicates.messages().collect())?;
        if !object::metadata(&object, "resourceVersion").is_empty() {
            return Err(Status::bad_request("resourceVersion should not be set on objects to be created"));
        }
        let prefix = object::metadata(&object, "generateName").to_owned();
        let drawn = object::name(&object).is_empty() && !prefix.is_empty();
        strategy::prepare_for_create(self.resource, &mut object, random_uuid(), self.now);
        let mut draws = if drawn { DRAWS } else { 1 };
        for _ in 0..ATTEMPTS {
            let rights = turn.as_ref().map(RightsTurn::rights);
            self.info.require_still("create", &self.resource_ref(""))?;
            let mut object = object.clone();
            if drawn {
                strategy::metadata_mut(&mut object).insert("name".to_owned(), strategy::drawn_name(&prefix).into());
            }
            match self.store_new(rights, self.settled(None, object, FieldOwnership::Update)?).await {
                Err(taken) if draws > 1 && taken.reason == "AlreadyExists" => draws -= 1,
                Ok(None) => {}
                Ok(Some(object)) => return Ok(Written { object, effect: Effect::Created, warnings }),
                Err(status) => return Err(status),
            }
        }
        Err(Status::modified(self.resource, &prefix))
    }

    /// Replaces an object by `body`.
    pub(crate) async fn update(&self, name: &str, body: Body) -> Result<Written, Status> {
        let turn = self.turn().await?;
        let (sent, warnings) = self.completed(body.object, body.duplicates.messages().collect())?;
        check_name(name, &sent)?;
        if object::metadata(&sent, "resourceVersion").is_empty() && !self.resource.built_in {
            let cause = Cause {
                reason: "FieldValueInvalid",
                field: "metadata.resourceVersion".to_owned(),
                message: "Invalid value: 0x0: must be specified for an update".to_owned(),
            };
            return Err(Status::invalid(self.resource, name, vec![cause]));
        }
        let (object, effect) =
            self.change(turn.as_ref(), "update", name, FieldOwnership::Update, |_| Ok(sent.clone())).await?;
        Ok(Written { object, effect, warnings })
    }

    /// Changes an object by a patch, decided anew on what is stored when another write came first.
    pub(crate) async fn patch(&self, name: &str, patch: &Patch) -> Result<Written, Status> {
        let turn = self.turn().await?;
        let warned = Mutex::default();
        let patched = |before: &Value| {
            let fields = before.as_object().cloned().unwrap_or_default();
            let (object, warnings) = self.completed(patch.apply(fields)?, patch.duplicates().collect())?;
            check_name(name, &object)?;
            *warned.lock() = warnings;
            Ok(object)
        };
        let (object, effect) = self.change(turn.as_ref(), "patch", name, FieldOwnership::Update, patched).await?;
        Ok(Written { object, effect, warnings: warned.into_inner() })
    }

    /// Merges what one manager wants of an object into it, or makes it (server-side apply).
    pub(crate) async fn apply(&self, name: &str, body: Body) -> Result<Written, Status> {
        if (self.resource.plural, self.subresource) == ("managedclusters", Some("approval")) {
            return Err(Status::bad_request(
                "a decision is nobody's field: send a JSON patch or a merge patch instead",
            ));
        }
        let turn = self.turn().await?;
        let (wanted, warnings) = self.received(body.object, body.duplicates.messages().collect())?;
        check_name(name, &wanted)?;
        let api_version = self.resource.api_version();
        let merged = |live: Option<&Value>| {
            let mut object =
                apply::apply(&self.ownership(&api_version), live, &wanted, self.options.force.unwrap_or_default())?;
            self.resource.schema().set_defaults(&mut object);
            Ok(object)
        };
        for _ in 0..ATTEMPTS {
            match self.change(turn.as_ref(), "patch", name, FieldOwnership::Apply, |live| merged(Some(live))).await {
                Err(missing) if missing.code == 404 && self.subresource.is_none() => {}
                applied => return applied.map(|(object, effect)| Written { object, effect, warnings }),
            }
            let rights = turn.as_ref().map(RightsTurn::rights);
            self.info.require_still("create", &self.resource_ref(""))?;
            let mut object = merged(None)?;
            strategy::prepare_for_create(self.resource, &mut object, random_uuid(), self.now);
            match self.store_new(rights, self.settled(None, object, FieldOwnership::Apply)?).await {
                Err(taken) if taken.reason == "AlreadyExists" => {}
                Ok(None) => {}
                Ok(Some(object)) => return Ok(Written { object, effect: Effect::Created, warnings }),
                Err(status) => return Err(status),
            }
        }
        Err(Status::modified(self.resource, name))
    }

    /// Deletes an object, or marks it for those whose finalizers it has.
    pub(crate) async fn delete(&self, name: &str, deletion: &Deletion) -> Result<Written, Status> {
        for _ in 0..ATTEMPTS {
            let (before, revision) = self.stored(name)?;
            deletion.check(self.resource, name, &before)?;
            self.admission().release(&before)?;
            if self.resource.plural == "certificatesigningrequests" {
                return self.remove_agent(name, before).await;
            }
            let outcome = match self.resource.plural {
                "namespaces" => namespace::delete(self.info.registry, &before, self.now),
                _ => {
                    let foreground = deletion.propagation == Some(Propagation::Foreground);
                    strategy::delete(self.resource, &before, foreground, self.now)
                }
            };
            if let Some((object, effect)) = self.store(None, name, revision, before, outcome).await? {
                return Ok(Written { object, effect, warnings: Vec::new() });
            }
        }
        Err(Status::modified(self.resource, name))
    }

    /// What two writes hand out together nobody would have been asked for, were both decided before either is stored.
    async fn turn(&self) -> Result<Option<RightsTurn<'_>>, Status> {
        if !self.hands_out() || self.options.dry_run {
            return Ok(None);
        }
        match self.info.registry.turn(self.info.user()).await {
            Some(turn) => Ok(Some(turn)),
            None => Err(Status::too_many_requests(
                "other changes of rights wait to be stored; try again in a moment, and look at the store if it lasts"
                    .to_owned(),
            )),
        }
    }

    fn hands_out(&self) -> bool {
        HANDS_OUT.contains(&self.resource.plural) && self.subresource.is_none()
    }

    /// What was sent, with the defaults of what was left out, and what to warn of.
    fn completed(&self, fields: Map<String, Value>, faults: Vec<String>) -> Result<(Value, Vec<String>), Status> {
        let (mut object, warnings) = self.received(fields, faults)?;
        self.resource.schema().set_defaults(&mut object);
        Ok((object, warnings))
    }

    /// What was sent as an object of this resource, and what to warn of. Who applies owns these fields, and no defaults.
    fn received(&self, fields: Map<String, Value>, mut faults: Vec<String>) -> Result<(Value, Vec<String>), Status> {
        let mut object = Value::Object(fields);
        self.check_type(&object)?;
        self.take_namespace(&mut object)?;
        self.admission().complete(&mut object);
        let schema = self.resource.schema();
        faults.extend(schema.prune(&mut object).iter().map(|path| schema::unknown_field(path)));
        let warnings = match self.options.field_validation {
            _ if faults.is_empty() => faults,
            FieldValidation::Ignore => Vec::new(),
            FieldValidation::Warn => faults,
            FieldValidation::Strict => {
                return Err(Status::bad_request(format!("strict decoding error: {}", faults.join(", "))));
            }
        };
        Ok((object, warnings))
    }

    fn check_type(&self, object: &Value) -> Result<(), Status> {
        let text = |field: &str| object[field].as_str().unwrap_or_default();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if version.is_empty() || kind.is_empty() {
            let missing = if kind.is_empty() { "Object 'Kind'" } else { "Object 'apiVersion'" };
            return Err(Status::bad_request(format!("{missing} is missing in '{}'", shortened(object))));
        }
        let expected = self.resource.api_version();
        if version != expected {
            let message =
                format!("the API version in the data ({version}) does not match the expected API version ({expected})");
            return Err(Status::bad_request(message));
        }
        if kind != self.resource.kind {
            let message =
                format!("the kind in the data ({kind}) does not match the expected kind ({})", self.resource.kind);
            return Err(Status::bad_request(message));
        }
        Ok(())
    }

    /// The path names the namespace; an object that names another one is refused.
    fn take_namespace(&self, object: &mut Value) -> Result<(), Status> {
        let named = object::metadata(object, "namespace");
        match self.namespace {
            Some(namespace) if named.is_empty() => {
                strategy::metadata_mut(object).insert("namespace".to_owned(), namespace.into());
                Ok(())
            }
            Some(namespace) if named != namespace => Err(Status::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request ({named} vs {namespace})"
            ))),
            None if !named.is_empty() => {
                strategy::metadata_mut(object).remove("namespace");
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The object as it is stored if nothing speaks against it.
    fn settled(&self, before: Option<&Value>, mut after: Value, by: FieldOwnership) -> Result<Value, Status> {
        strategy::drop_empty(&mut after);
        let mut causes = metadata::validate(&after["metadata"], self.resource.namespaced, self.resource.names);
        if let Some(before) = before {
            causes.extend(metadata::validate_update(&after["metadata"], &before["metadata"]));
        }
        causes.extend(self.resource.schema().validate(&after));
        if !causes.is_empty() {
            return Err(Status::invalid(self.resource, object::name(&after), causes));
        }
        if self.subresource != Some("approval") {
            admission::cluster::check_size(self.resource, before, &after)?;
        }
        if self.subresource.is_none() {
            self.admission().admit(before, &mut after)?;
        }
        if by == FieldOwnership::Update {
            apply::record_update(&self.ownership(&self.resource.api_version()), before, &mut after);
        }
        Ok(after)
    }

    /// Decides on what is stored and stores the decision, again until nobody came first.
    async fn change(
        &self,
        turn: Option<&RightsTurn<'_>>,
        verb: &str,
        name: &str,
        by: FieldOwnership,
        decide: impl Fn(&Value) -> Result<Value, Status>,
    ) -> Result<(Value, Effect), Status> {
        for _ in 0..ATTEMPTS {
            let rights = turn.map(RightsTurn::rights);
            self.info.require_still(verb, &self.resource_ref(name))?;
            let (before, revision) = self.stored(name)?;
            let sent = decide(&before)?;
            strategy::check(self.resource, name, &before, &sent)?;
            let after = match (self.resource.plural, self.subresource) {
                ("certificatesigningrequests", Some("approval")) => return self.approve(name, &before, &sent).await,
                ("managedclusters", Some("approval")) => self.admission().decide(&before, &sent)?,
                _ => strategy::prepare_for_update(self.resource, self.subresource, &before, sent),
            };
            let after = self.settled(Some(&before), after, by)?;
            let outcome = match (self.resource.plural, self.subresource) {
                ("namespaces", Some("finalize")) => namespace::finalize(self.info.registry, &before, after),
                _ => strategy::finish_update(self.resource, &before, after),
            };
            if let Some(stored) = self.store(rights, name, revision, before, outcome).await? {
                return Ok(stored);
            }
        }
        Err(Status::modified(self.resource, name))
    }

    fn stored(&self, name: &str) -> Result<(Value, Revision), Status> {
        let found = Source::new(self.resource, self.namespace).get(self.info.registry.store(), name);
        found.ok_or_else(|| Status::not_found(self.resource, name))
    }

    /// What is there afterwards; `None` when the rights are others than it was decided on.
    async fn store_new(&self, rights: Option<Rights>, mut object: Value) -> Result<Option<Value>, Status> {
        let name = object::name(&object).to_owned();
        let key = object::key(self.resource, self.namespace, &name);
        let mut txn = Txn::new().expect_absent(&key).put(&key, object::write(&object));
        if let Some(namespace) = self.namespace {
            txn = namespace::expect_open(self.info.registry, self.resource, &name, namespace, txn)?;
        }
        if self.options.dry_run {
            let taken = self.info.registry.store().get(&key).is_some();
            return if taken { Err(Status::already_exists(self.resource, &name)) } else { Ok(Some(object)) };
        }
        let txn = held(rights, txn);
        match self.info.registry.store().commit(txn).await {
            Ok(revision) => {
                set_revision(&mut object, revision);
                Ok(Some(object))
            }
            Err(error) if Rights::passed(&error) => Ok(None),
            Err(CommitError::Conflict { key: other, .. }) if other != key => {
                Err(Status::conflict(self.resource, &name, "its namespace is being changed; try again"))
            }
            Err(CommitError::Conflict { .. }) => Err(Status::already_exists(self.resource, &name)),
            Err(error) => Err(Status::from(error)),
        }
    }

    /// What is there afterwards; `None` when another write came first.
    async fn store(
        &self,
        rights: Option<Rights>,
        name: &str,
        revision: Revision,
        before: Value,
        outcome: Outcome,
    ) -> Result<Option<(Value, Effect)>, Status> {
        let key = object::key(self.resource, self.namespace, name);
        let registry = self.info.registry;
        let txn = Txn::new().expect(&key, revision);
        let (txn, mut object, effect) = match outcome {
            Outcome::Same => return Ok(Some((before, Effect::Changed))),
            Outcome::Put(after) => (txn.put(&key, object::write(&after)), after, Effect::Changed),
            // What was decided while it was there is decided anew.
            Outcome::Gone(last) if self.hands_out() => (mark(txn.delete(&key)), last, Effect::Gone),
            Outcome::Gone(last) => (txn.delete(&key), last, Effect::Gone),
        };
        if self.options.dry_run {
            return Ok(Some((object, effect)));
        }
        match registry.store().commit(held(rights, txn)).await {
            Ok(revision) => {
                if effect == Effect::Changed {
                    set_revision(&mut object, revision);
                }
                namespace::follow(registry, self.resource, self.namespace, &object, effect).await;
                Ok(Some((object, effect)))
            }
            Err(CommitError::Conflict { .. }) => Ok(None),
            Err(error) => Err(Status::from(error)),
        }
    }

    fn admission(&self) -> Admission<'_> {
        Admission { resource: self.resource, info: self.info, now: self.now }
    }

    pub(crate) fn resource_ref<'a>(&'a self, name: &'a str) -> ResourceRef<'a> {
        ResourceRef { resource: self.resource, subresource: self.subresource, namespace: self.namespace, name }
    }

    fn ownership<'a>(&'a self, api_version: &'a str) -> apply::Write<'a> {
        apply::Write {
            schema: self.resource.schema().document(),
            status_subresource: self.resource.has_status(),
            manager: self.manager,
            subresource: self.subresource,
            api_version,
            now: self.now,
        }
    }
}

impl Deletion {
    fn check(&self, resource: &Resource, name: &str, before: &Value) -> Result<(), Status> {
        for (asked, field, called) in
            [(&self.uid, "uid", "UID"), (&self.resource_version, "resourceVersion", "ResourceVersion")]
        {
            let found = object::metadata(before, field);
            if let Some(asked) = asked.as_deref().filter(|asked| *asked != found) {
                let why =
                    format!("Precondition failed: {called} in precondition: {asked}, {called} in object meta: {found}");
                return Err(Status::conflict(resource, name, &why));
            }
        }
        Ok(())
    }

    /// Reads DeleteOptions; what is absent is not asked for.
    pub(crate) fn read(options: &Value) -> Result<Self, Status> {
        let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let preconditions = &options["preconditions"];
        Ok(Self {
            uid: text(&preconditions["uid"]),
            resource_version: text(&preconditions["resourceVersion"]),
            propagation: Propagation::parse(options["propagationPolicy"].as_str().unwrap_or_default())?,
        })
    }
}

fn check_name(name: &str, sent: &Value) -> Result<(), Status> {
    let named = object::name(sent);
    if named == name {
        return Ok(());
    }
    if named.is_empty() {
        return Err(Status::bad_request("name must be provided"));
    }
    Err(Status::bad_request(format!("the name of the object ({named}) does not match the name on the URL ({name})")))
}

fn held(rights: Option<Rights>, txn: Txn) -> Txn {
    match rights {
        Some(rights) => rights.guard(txn),
        None => txn,
    }
}

fn set_revision(object: &mut Value, revision: Revision) {
    strategy::metadata_mut(object).insert("resourceVersion".to_owned(), revision.to_string().into());
}

/// How a body begins, for errors.
fn shortened(object: &Value) -> String {
    const SHOWN: usize = 100;
    let text = object.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
