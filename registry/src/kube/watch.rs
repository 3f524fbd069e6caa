//! Watches: the changes of those objects that were asked for and may be seen, as a client's cache needs them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    changes::{Changes, Object},
    options::ReadOptions,
    policy_at,
    rbac::Visibility,
    selection::Selection,
    source::{Entry, Source},
    status::Status,
};
use crate::registry::Registry;
use crate::view::View;
use store::{Commit, Revision, Watch, WatchEnd};

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The object's last state, with the revision of its deletion.
    Deleted(Arc<Object>),
    /// Everything up to this revision is told; `initial` after the events that a watch begins with.
    Bookmark {
        revision: Revision,
        initial: bool,
    },
    /// The watch ends.
    Error(Status),
}

/// Objects by their keys.
type Seen = BTreeMap<String, Arc<Object>>;

/// How long a watch lives that names no time: as kube-apiserver's, at least half an hour.
const LIFE: Duration = Duration::from_secs(45 * 60);

/// Between bookmarks.
const BOOKMARK: Duration = Duration::from_secs(60);

/// Tells events from [`Watcher::next`]; loses nothing when that is cancelled.
pub(super) struct Watcher {
    registry: Arc<Registry>,
    changes: Arc<Changes>,
    watch: Watch,
    source: Source,
    selection: Selection,
    visible: Visibility,
    /// What there was at the beginning and is still to be told. Not read before its turn comes: a watcher that reads slowly
    /// would hold all of it as objects, many times as large.
    initial: std::vec::IntoIter<Entry>,
    /// Told after the last of these.
    mark: Option<WatchEvent>,
    queue: VecDeque<WatchEvent>,
    /// Everything up to here is in the queue, or told.
    seen: Revision,
    bookmarks: bool,
    bookmark: Instant,
    end: Instant,
    ended: bool,
}

impl Watcher {
    /// Begins where `options` say: after a revision, or with what there is.
    pub(crate) fn new(
        registry: Arc<Registry>,
        changes: Arc<Changes>,
        source: Source,
        selection: Selection,
        options: &ReadOptions,
    ) -> Result<Self, Status> {
        let store = registry.store();
        let newest = store.revision();
        let asked = options.revision.unwrap_or_default();
        if asked > newest.0 {
            return Err(Status::revision_too_large(asked, newest.0));
        }
        let initial = options.send_initial_events.unwrap_or(asked == 0);
        let start = if initial || asked == 0 { newest } else { Revision(asked) };
        let (watch, now) = (store.watch(start), Instant::now());
        let now_seen = selection.visible(&registry);
        // A client that goes on from a revision has seen what its user might see then.
        let past =
            if start < newest { policy_at::view_at(store, start, now_seen == Visibility::All) } else { Ok(None) };
        // Told in the watch and not instead of it: there are clients that only list anew after that.
        let (past, gone) = past.map_or_else(|end| (None, Some(end)), |past| (past, None));
        let visible = past.as_ref().map_or(now_seen, |past| selection.sight_by(&past.policy));
        let mut watcher = Self {
            registry,
            changes,
            watch,
            source,
            selection,
            visible,
            initial: Vec::new().into_iter(),
            mark: None,
            queue: VecDeque::new(),
            seen: start,
            bookmarks: options.bookmarks,
            bookmark: now + BOOKMARK,
            end: now + options.timeout.unwrap_or(LIFE),
            ended: false,
        };
        if initial {
            let found = watcher.registry.store().list_at(watcher.source.prefix(), start);
            watcher.initial = found.map_err(|end| too_old(start, end))?.into_iter();
        }
        let caught_up = past.map_or(Ok(()), |past| watcher.catch_up(past));
        if let Some(end) = gone.or_else(|| caught_up.err()) {
            watcher.ended = true;
            watcher.queue.push_back(WatchEvent::Error(too_old(start, end)));
        }
        if options.send_initial_events == Some(true) {
            watcher.mark = Some(WatchEvent::Bookmark { revision: start, initial: true });
        }
        Ok(watcher)
    }

    /// The next event; `None` when the watch's time is over.
    pub(super) async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            // Reading what was there takes its time; others have their turn, too.
            tokio::task::consume_budget().await;
            if let Some(entry) = self.initial.next() {
                let found = self.source.all(&[entry], &self.selection, &self.visible).into_values();
                self.queue.extend(found.map(|object| WatchEvent::Added(Object::new(object))));
                continue;
            }
            if let Some(mark) = self.mark.take() {
                return Some(mark);
            }
            if self.ended {
                return None;
            }
            // Looked at first: a hub that never pauses has always one more commit to tell.
            let commit = if Instant::now() < self.end {
                timeout_at(self.end.min(self.bookmark), self.watch.next()).await.ok()
            } else {
                None
            };
            let Some(commit) = commit else {
                // At the end too, so that the client's next watch begins here, however old the last change that it saw.
                self.ended = Instant::now() >= self.end;
                self.bookmark = Instant::now() + BOOKMARK;
                if self.bookmarks {
                    return Some(WatchEvent::Bookmark { revision: self.seen, initial: false });
                }
                continue;
            };
            match commit.and_then(|commit| self.follow(&commit)) {
                Ok(()) => {}
                // As a kube-apiserver that stops ends it: the client goes on with the next hub, from here.
                Err(WatchEnd::Closed) => self.end = Instant::now(),
                Err(end @ WatchEnd::Compacted { .. }) => {
                    self.ended = true;
                    self.queue.push_back(WatchEvent::Error(too_old(self.seen, end)));
                }
            }
        }
    }

    /// Follows what was committed until now, by the rights of each moment, which are `past` at the beginning.
    fn catch_up(&mut self, mut past: View) -> Result<(), WatchEnd> {
        while let Some(commit) = self.committed()? {
            for event in &commit.events {
                // What cannot be read gave nobody a right.
                drop(past.apply(event));
            }
            let decides = commit.events.iter().any(|event| policy_at::affects_policy(&event.key));
            self.follow_by(&commit, decides.then(|| self.selection.sight_by(&past.policy)))?;
        }
        Ok(())
    }

    /// The next commit, if it is there already.
    fn committed(&mut self) -> Result<Option<Arc<Commit>>, WatchEnd> {
        match pin!(self.watch.next()).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(commit) => commit.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    fn follow(&mut self, commit: &Commit) -> Result<(), WatchEnd> {
        self.follow_by(commit, self.selection.sight_after(commit, &self.registry))
    }

    /// Tells a commit; `visible` is what is seen after it, if that may have changed.
    fn follow_by(&mut self, commit: &Commit, visible: Option<Visibility>) -> Result<(), WatchEnd> {
        let visible = visible.filter(|visible| *visible != self.visible);
        let is_new = visible.is_some();
        let (before, after) = match visible {
            Some(visible) => {
                let old = std::mem::replace(&mut self.visible, visible);
                self.look_anew(commit, &old)?
            }
            None => self.changed(commit, &self.visible),
        };
        self.tell_difference(before, after);
        if is_new && self.bookmarks {
            // What became visible is as old as its last change: from there the client must not go on.
            self.queue.push_back(WatchEvent::Bookmark { revision: commit.revision, initial: false });
        }
        self.seen = commit.revision;
        Ok(())
    }

    /// What the commit changed, as it was seen before and as it is seen now.
    fn changed(&self, commit: &Commit, old: &Visibility) -> (Seen, Seen) {
        let (mut before, mut after) = (Seen::new(), Seen::new());
        self.changes.each(&self.source, commit, |change| {
            let sides = [(&mut before, &change.before, old), (&mut after, &change.after, &self.visible)];
            for (seen, object, visible) in sides {
                let wanted = object.iter().filter(|object| self.selection.wants(object, visible));
                seen.extend(wanted.map(|object| (change.key.clone(), object.clone())));
            }
        });
        (before, after)
    }

    /// The same when the rights have changed with the commit, and with them what is seen of all the rest.
    fn look_anew(&self, commit: &Commit, old: &Visibility) -> Result<(Seen, Seen), WatchEnd> {
        let names = old.difference(&self.visible);
        let keys = names.and_then(|names| names.iter().map(|name| self.source.key(name)).collect::<Option<Vec<_>>>());
        let (mut before, after) = match keys {
            Some(keys) => {
                let (mut before, mut after) = self.changed(commit, old);
                for key in keys.iter().filter(|key| commit.events.iter().all(|event| *event.key != ***key)) {
                    let mut found = self.registry.store().list_at(key, commit.revision)?;
                    found.retain(|(found, _)| **found == **key);
                    before.extend(self.seen_of(&found, old));
                    after.extend(self.seen_of(&found, &self.visible));
                }
                (before, after)
            }
            None => (self.seen_at(self.seen, old)?, self.seen_at(commit.revision, &self.visible)?),
        };
        for (_, last) in before.iter_mut().filter(|(key, _)| !after.contains_key(*key)) {
            let mut deleted = Value::clone(last);
            deleted["metadata"]["resourceVersion"] = commit.revision.to_string().into();
            *last = Object::new(deleted);
        }
        Ok((before, after))
    }

    /// What comes into the selection is added, what leaves it is deleted.
    fn tell_difference(&mut self, mut before: Seen, after: Seen) {
        for (key, object) in after {
            match before.remove(&key) {
                None => self.queue.push_back(WatchEvent::Added(object)),
                Some(old) if !Arc::ptr_eq(&old, &object) && old != object => {
                    self.queue.push_back(WatchEvent::Modified(object))
                }
                Some(_) => {}
            }
        }
        self.queue.extend(before.into_values().map(WatchEvent::Deleted));
    }

    fn seen_at(&self, revision: Revision, visible: &Visibility) -> Result<Seen, WatchEnd> {
        let entries = self.registry.store().list_at(self.source.prefix(), revision)?;
        Ok(self.seen_of(&entries, visible))
    }

    fn seen_of(&self, entries: &[Entry], visible: &Visibility) -> Seen {
        let found = self.source.all(entries, &self.selection, visible);
        found.into_iter().map(|(key, object)| (key, Object::new(object))).collect()
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("source", &self.source).field("seen", &self.seen).finish_non_exhaustive()
    }
}

fn too_old(asked: Revision, end: WatchEnd) -> Status {
    match end {
        WatchEnd::Compacted { compacted } => {
            Status::expired(format!("too old resource version: {asked} ({compacted})"))
        }
        WatchEnd::Closed => Status::unavailable("the registry is closed; the process is stopping"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tempfile::TempDir;

    use super::*;
    use crate::kube::{object, rbac::review::Caller, resource};
    use store::Txn;

    const GROUP: &str = "cluster.open-cluster-management.io";

    async fn put(registry: &Registry, key: &str, object: Value) {
        registry.store().commit(Txn::new().put(key, object.to_string().into_bytes())).await.unwrap();
    }

    async fn put_cluster(registry: &Registry, name: &str, set: &str) {
        let cluster = crate::ManagedCluster::new(name.parse().unwrap(), String::new(), jiff::Timestamp::UNIX_EPOCH);
        let mut cluster = serde_json::to_value(cluster).unwrap();
        cluster["metadata"]["labels"] = json!({crate::kube::sets::CLUSTER_SET_LABEL: set});
        put(registry, &format!("/managedclusters/{name}"), cluster).await;
    }

    /// Alice may see the set `prod`.
    async fn put_rights(registry: &Registry, verbs: Value) {
        let rule = json!({"apiGroups": [GROUP], "resources": ["managedclustersets"], "resourceNames": ["prod"], "verbs": verbs});
        let role = json!({"kind": "ClusterRole", "metadata": {"name": "r"}, "rules": [rule]});
        put(registry, "/clusterroles/r", role).await;
    }

    fn watch(registry: &Arc<Registry>, revision: Revision) -> Watcher {
        let clusters = resource::find(GROUP, "v1", "managedclusters").unwrap();
        let options = ReadOptions { watch: true, revision: Some(revision.0), ..ReadOptions::default() };
        let caller = Caller { user: "alice".to_owned(), ..Caller::default() };
        let selection = Selection::new(clusters, None, &options, &caller).unwrap();
        Watcher::new(Arc::clone(registry), Arc::default(), Source::new(clusters, None), selection, &options).unwrap()
    }

    /// The events with the set that each object names.
    async fn told(watcher: &mut Watcher, count: usize) -> Vec<String> {
        let said = |kind: &str, object: &Value| {
            format!("{kind} {} in {}", object::name(object), crate::kube::sets::set_label(object::labels(object)))
        };
        let mut told = Vec::new();
        for _ in 0..count {
            told.push(match watcher.next().await.unwrap() {
                WatchEvent::Added(object) => said("ADDED", &object),
                WatchEvent::Modified(object) => said("MODIFIED", &object),
                WatchEvent::Deleted(object) => said("DELETED", &object),
                other @ (WatchEvent::Bookmark { .. } | WatchEvent::Error(_)) => format!("{other:?}"),
            });
        }
        told
    }

    #[tokio::test]
    async fn a_watch_that_goes_on_from_a_revision_tells_what_has_come_into_sight_and_left_it_since() {
        let folder = TempDir::new().unwrap();
        let registry = Arc::new(Registry::open(folder.path().join("registry.redb")).unwrap());
        put(&registry, "/managedclustersets/prod", json!({"metadata": {"name": "prod"}})).await;
        put_rights(&registry, json!(["watch"])).await;
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"});
        let subjects = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "alice"}]);
        let binding =
            json!({"kind": "ClusterRoleBinding", "metadata": {"name": "b"}, "roleRef": role, "subjects": subjects});
        put(&registry, "/clusterrolebindings/b", binding).await;
        put_cluster(&registry, "c1", "prod").await;
        put_cluster(&registry, "c2", "other").await;

        let before = registry.store().revision();
        put_cluster(&registry, "c1", "other").await;
        put_cluster(&registry, "c2", "prod").await;
        let moved = registry.store().revision();
        // Not how c2 was before it could be seen.
        assert_eq!(told(&mut watch(&registry, before), 2).await, ["DELETED c1 in prod", "ADDED c2 in prod"]);
        put_cluster(&registry, "c1", "other").await;
        put_cluster(&registry, "c3", "prod").await;
        assert_eq!(told(&mut watch(&registry, moved), 1).await, ["ADDED c3 in prod"]);

        let held = registry.store().revision();
        put_rights(&registry, json!([])).await;
        assert_eq!(told(&mut watch(&registry, held), 2).await, ["DELETED c2 in prod", "DELETED c3 in prod"]);
        let without = registry.store().revision();
        put_rights(&registry, json!(["watch"])).await;
        assert_eq!(told(&mut watch(&registry, without), 2).await, ["ADDED c2 in prod", "ADDED c3 in prod"]);
    }
}
