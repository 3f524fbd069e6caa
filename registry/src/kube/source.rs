//! Where the objects of a resource come from: stored as they are, or projected from the clusters.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::{
    object,
    projection::{self, Projection},
    rbac::Visibility,
    resource::Resource,
    selection::Selection,
};
use store::{Revision, Store, Versioned};

/// All objects of a resource, or those of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    resource: &'static Resource,
    namespace: Option<String>,
    /// What the store's keys begin with.
    prefix: String,
    projection: Option<Projection>,
}

/// A stored value and its key.
pub(crate) type Entry = (Arc<str>, Versioned<Arc<[u8]>>);

/// What the store holds below a prefix, sorted by key.
pub(crate) type Entries = Vec<Entry>;

impl Source {
    pub(crate) fn new(resource: &'static Resource, namespace: Option<&str>) -> Self {
        let projection = projection::of(resource);
        let prefix = match projection {
            Some(_) => projection::SOURCE.to_owned(),
            None => object::prefix(resource, namespace),
        };
        Self { resource, namespace: namespace.map(str::to_owned), prefix, projection }
    }

    pub(crate) fn resource(&self) -> &'static Resource {
        self.resource
    }

    pub(crate) fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// What the keys that matter begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn is_projected(&self) -> bool {
        self.projection.is_some()
    }

    /// Namespace (empty at the cluster scope) and name of the object that is stored at a key; `None` for what is projected.
    pub(crate) fn place<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = key.strip_prefix('/')?.strip_prefix(self.resource.plural)?.strip_prefix('/')?;
        match self.projection {
            Some(_) => None,
            None if self.resource.namespaced => rest.split_once('/'),
            None => Some(("", rest)),
        }
    }

    /// The objects in one stored value, by their own keys, with `revision`: what is deleted has that of its deletion.
    pub(crate) fn objects(&self, key: &str, stored: &Versioned<Arc<[u8]>>, revision: Revision) -> Vec<(String, Value)> {
        let Some(read) = object::read_at(stored, revision) else { return Vec::new() };
        let Some(project) = self.projection else { return vec![(key.to_owned(), read)] };
        let keyed = |projected: Value| {
            let namespace = self.resource.namespaced.then(|| object::metadata(&projected, "namespace"));
            (object::key(self.resource, namespace, object::name(&projected)), projected)
        };
        let mine = |projected: &Value| {
            self.namespace.as_deref().is_none_or(|namespace| object::metadata(projected, "namespace") == namespace)
        };
        project(&read).into_iter().filter(mine).map(keyed).collect()
    }

    /// Where the object of this name is stored, if that can be told by its name.
    pub(crate) fn key(&self, name: &str) -> Option<String> {
        let is_told = !self.is_projected() && self.resource.namespaced == self.namespace.is_some();
        is_told.then(|| format!("{}{name}", self.prefix))
    }

    /// The objects of several stored values that are wanted, by key.
    pub(crate) fn all(
        &self,
        entries: &[Entry],
        selection: &Selection,
        visible: &Visibility,
    ) -> BTreeMap<String, Value> {
        let may = |key: &str| self.place(key).is_none_or(|place| selection.may_want(place, visible));
        let objects = entries.iter().filter(|(key, _)| may(key));
        let objects = objects.flat_map(|(key, stored)| self.objects(key, stored, stored.modified));
        objects.filter(|(_, object)| selection.wants(object, visible)).collect()
    }

    /// One object, and the revision at which it was last changed.
    pub(crate) fn get(&self, store: &Store, name: &str) -> Option<(Value, Revision)> {
        let key = object::key(self.resource, self.namespace.as_deref(), name);
        match self.projection {
            None => {
                let stored = store.get(&key)?;
                Some((object::read(&stored)?, stored.modified))
            }
            Some(_) => {
                let stored = store.get(&projection::source_key(self.resource, self.namespace.as_deref(), name)?)?;
                let found = self.objects("", &stored, stored.modified).into_iter().find(|(own, _)| *own == key)?;
                Some((found.1, stored.modified))
            }
        }
    }
}
