//! What commits changed, read once for all who watch: a thousand watchers of a resource cost a change little more than one does.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use serde_json::Value;

use super::source::Source;
use store::{Commit, Event, Revision};

/// An object that several watchers are told of.
#[derive(Debug)]
pub(crate) struct Object {
    value: Value,
    text: OnceLock<Box<str>>,
}

/// What became of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) key: String,
    pub(crate) before: Option<Arc<Object>>,
    /// The same as before, where it has not changed.
    pub(crate) after: Option<Arc<Object>>,
}

/// The commits that watchers have read last.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    recent: Mutex<VecDeque<Arc<Read>>>,
}

/// What one commit changed of one resource, in all or in one namespace.
#[derive(Debug)]
struct Read {
    revision: Revision,
    plural: &'static str,
    namespace: Option<String>,
    /// As it is stored; what is read takes ten times as much, or more.
    bytes: usize,
    changes: OnceLock<Vec<Change>>,
}

/// How much of it is kept. Watchers follow at once: who comes later reads for itself.
const COMMITS: usize = 64;
const BYTES: usize = 4 << 20;

impl Object {
    pub(crate) fn new(value: Value) -> Arc<Self> {
        Arc::new(Self { value, text: OnceLock::new() })
    }

    /// As JSON.
    pub(crate) fn text(&self) -> &str {
        self.text.get_or_init(|| self.value.to_string().into())
    }
}

impl Deref for Object {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.value
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Changes {
    /// Does `with` each change that a commit made of the objects of a source.
    pub(crate) fn each(&self, source: &Source, commit: &Commit, mut with: impl FnMut(&Change)) {
        let touched = || commit.events.iter().filter(|event| event.key.starts_with(source.prefix()));
        if touched().next().is_none() {
            return;
        }
        let read = self.read(source, commit, || touched().map(stored).sum());
        let changes = read.changes.get_or_init(|| touched().flat_map(|event| changes(source, event, commit)).collect());
        changes.iter().for_each(&mut with);
    }

    /// The place where it is read, or was already.
    fn read(&self, source: &Source, commit: &Commit, bytes: impl Fn() -> usize) -> Arc<Read> {
        let (revision, plural, namespace) = (commit.revision, source.resource().plural, source.namespace());
        let is_it = |read: &&Arc<Read>| {
            read.revision == revision && read.plural == plural && read.namespace.as_deref() == namespace
        };
        let mut recent = self.recent.lock();
        if let Some(read) = recent.iter().rev().find(is_it) {
            return read.clone();
        }
        let (namespace, bytes) = (namespace.map(str::to_owned), bytes());
        let read = Arc::new(Read { revision, plural, namespace, bytes, changes: OnceLock::new() });
        recent.push_back(read.clone());
        let mut held: usize = recent.iter().map(|read| read.bytes).sum();
        while recent.len() > COMMITS || held > BYTES {
            held -= recent.pop_front().map_or(held, |oldest| oldest.bytes);
        }
        read
    }
}

fn stored(event: &Event) -> usize {
    [&event.before, &event.after].into_iter().flatten().map(|stored| stored.value.len()).sum()
}

fn changes(source: &Source, event: &Event, commit: &Commit) -> Vec<Change> {
    let read = |stored: &Option<_>| {
        stored.as_ref().map(|stored| source.objects(&event.key, stored, commit.revision)).unwrap_or_default()
    };
    let change = |(key, after)| Change { key, before: None, after: Some(Object::new(after)) };
    let mut changes: Vec<_> = read(&event.after).into_iter().map(change).collect();
    for (key, before) in read(&event.before) {
        let before = Object::new(before);
        match changes.iter_mut().find(|change| change.key == key) {
            Some(change) => {
                let same = change.after.clone().filter(|after| *after == before);
                change.before = Some(same.unwrap_or(before));
            }
            None => changes.push(Change { key, before: Some(before), after: None }),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::resource;
    use store::Versioned;

    fn commit(revision: u64, before: Option<&Value>, after: Option<&Value>) -> Commit {
        let revision = Revision(revision);
        let versioned = |value: &Value| Versioned {
            value: value.to_string().into_bytes().into(),
            created: revision,
            modified: revision,
        };
        let (key, before, after) = ("/clusterroles/r".into(), before.map(versioned), after.map(versioned));
        Commit { revision, events: vec![Event { key, after, before }] }
    }

    fn source() -> Source {
        Source::new(resource::find("rbac.authorization.k8s.io", "v1", "clusterroles").unwrap(), None)
    }

    fn told(changes: &Changes, commit: &Commit) -> Vec<[Option<Arc<Object>>; 2]> {
        let mut told = Vec::new();
        changes.each(&source(), commit, |change| told.push([change.before.clone(), change.after.clone()]));
        told
    }

    #[test]
    fn a_commit_is_read_and_written_once_for_all_and_not_for_ever() {
        let changes = Changes::default();
        let [old, new] = ["old", "new"].map(|word| json!({"metadata": {"name": "r", "uid": word}}));
        let first = commit(1, Some(&old), Some(&new));
        let [once, again] = [told(&changes, &first), told(&changes, &first)].map(|mut told| told.remove(0));
        for (one, other) in once.iter().zip(&again) {
            let (one, other) = (one.as_ref().unwrap(), other.as_ref().unwrap());
            assert!(Arc::ptr_eq(one, other));
            assert!(std::ptr::eq(one.text(), other.text()));
        }
        assert_eq!(once[1].as_ref().unwrap()["metadata"]["resourceVersion"], "1");
        let same = told(&changes, &commit(2, Some(&old), Some(&old))).remove(0).map(Option::unwrap);
        assert!(Arc::ptr_eq(&same[0], &same[1]), "what has not changed is one object");
        for revision in 3..1000 {
            assert!(told(&changes, &commit(revision, Some(&old), None))[0][1].is_none());
        }
        assert_eq!(changes.recent.lock().len(), COMMITS);
        let large = json!({"metadata": {"name": "r"}, "much": "x".repeat(BYTES)});
        told(&changes, &commit(1000, None, Some(&large)));
        assert!(changes.recent.lock().is_empty());
    }
}
