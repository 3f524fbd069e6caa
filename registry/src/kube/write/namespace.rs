//! Namespaces: nothing is made in one that is going, and it is gone when nothing is left in it.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Effect;
use crate::kube::{
    object, projection,
    resource::{self, Resource},
    status::Status,
    strategy::{self, Outcome},
};
use crate::registry::Registry;
use store::{CommitError, Revision, Txn};

const PREFIX: &str = "/namespaces/";

/// Objects that one transaction deletes.
const AT_ONCE: usize = 50;

/// Makes `txn` fail if the namespace goes meanwhile; refuses at once if it is not there or going.
pub(super) fn expect_open(
    registry: &Registry,
    resource: &Resource,
    name: &str,
    namespace: &str,
    txn: Txn,
) -> Result<Txn, Status> {
    let key = format!("{PREFIX}{namespace}");
    let stored = registry.store().get(&key);
    let found = stored.as_ref().and_then(|stored| Some((object::read(stored)?, stored.modified)));
    let (found, revision) = found.ok_or_else(|| Status::namespace_not_found(namespace))?;
    if strategy::is_deleted(&found) {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        return Err(Status::forbidden(resource, name, &why));
    }
    Ok(txn.expect(&key, revision))
}

/// What a deletion makes of a namespace: it goes with all that is in it, and stays for what has finalizers.
pub(super) fn delete(registry: &Registry, before: &Value, now: Timestamp) -> Outcome {
    if strategy::is_deleted(before) {
        return Outcome::Same;
    }
    let mut after = before.clone();
    let metadata = strategy::metadata_mut(&mut after);
    metadata.insert("deletionTimestamp".to_owned(), strategy::seconds(now).into());
    after["status"]["phase"] = "Terminating".into();
    if contents(registry, object::name(before)).is_empty() {
        return finalize(registry, before, without_kubernetes(after));
    }
    Outcome::Put(after)
}

/// Whether a namespace that is going is gone.
pub(super) fn finalize(registry: &Registry, before: &Value, after: Value) -> Outcome {
    let empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    if strategy::is_deleted(&after)
        && empty(&after["spec"]["finalizers"])
        && strategy::finalizers(&after).is_empty()
        && contents(registry, object::name(&after)).is_empty()
    {
        return Outcome::Gone(after);
    }
    if after == *before { Outcome::Same } else { Outcome::Put(after) }
}

/// After a write: empties a namespace that has begun to go, and ends it when the last object in it has gone.
pub(super) async fn follow(
    registry: &Registry,
    resource: &Resource,
    namespace: Option<&str>,
    object: &Value,
    effect: Effect,
) {
    let going = match (resource.plural, namespace, effect) {
        ("namespaces", _, Effect::Changed) if strategy::is_deleted(object) => object::name(object),
        (_, Some(namespace), Effect::Gone) => namespace,
        _ => return,
    };
    if let Err(error) = end(registry, going).await {
        // What is left is tried again with the next deletion in the namespace.
        tracing::warn!(%error, namespace = going, "a namespace could not be ended");
    }
}

/// Deletes what can go of a namespace that is going, marks the rest, and ends it when nothing is left.
async fn end(registry: &Registry, namespace: &str) -> Result<(), CommitError> {
    let key = format!("{PREFIX}{namespace}");
    loop {
        let Some(stored) = registry.store().get(&key) else { return Ok(()) };
        let Some(found) = object::read(&stored).filter(strategy::is_deleted) else { return Ok(()) };
        let left = contents(registry, namespace);
        let unmarked = left
            .iter()
            .filter(|(_, _, object)| strategy::finalizers(object).is_empty() || !strategy::is_deleted(object));
        let mut txn = Txn::new();
        let mut changed = false;
        for (key, revision, object) in unmarked.take(AT_ONCE) {
            changed = true;
            txn = leave(txn.expect(key, *revision), key, object, &found["metadata"]["deletionTimestamp"]);
        }
        if !changed {
            if left.is_empty() && strategy::finalizers(&found).is_empty() {
                registry.store().commit(Txn::new().expect(&key, stored.modified).delete(&key)).await?;
            }
            return Ok(());
        }
        match registry.store().commit(txn).await {
            // Somebody has changed an object meanwhile: look again. Nothing new is made in the namespace any more.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Deletes an object, or marks it for those whose finalizers it has.
fn leave(txn: Txn, key: &str, object: &Value, since: &Value) -> Txn {
    if strategy::finalizers(object).is_empty() {
        return txn.delete(key);
    }
    let mut marked = object.clone();
    let metadata = strategy::metadata_mut(&mut marked);
    metadata.insert("deletionTimestamp".to_owned(), since.clone());
    metadata.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
    txn.put(key, object::write(&marked))
}

/// Everything that is stored in a namespace.
fn contents(registry: &Registry, namespace: &str) -> Vec<(String, Revision, Value)> {
    let kinds = resource::all().iter().filter(|resource| resource.namespaced && projection::of(resource).is_none());
    let mut contents = Vec::new();
    for resource in kinds.filter(|resource| resource.has_verb("list")) {
        for (key, stored) in registry.store().list(&object::prefix(resource, Some(namespace))).0 {
            let object = object::read(&stored).unwrap_or_else(|| json!({}));
            contents.push((key.to_string(), stored.modified, object));
        }
    }
    contents
}

/// Kubernetes' own finalizer of a namespace stands for emptying it.
fn without_kubernetes(mut namespace: Value) -> Value {
    if let Some(finalizers) = namespace.pointer_mut("/spec/finalizers").and_then(Value::as_array_mut) {
        finalizers.retain(|finalizer| finalizer != "kubernetes");
    }
    namespace
}
