//! Watches: the changes of those objects that were asked for and may be seen, as a client's cache needs them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    object,
    options::ReadOptions,
    selection::{Selection, Sight},
    status::Status,
};
use crate::registry::Registry;
use crate::store::{Commit, Event, Revision, Watch, WatchEnd};

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
pub enum WatchEvent {
    Added(Value),
    Modified(Value),
    /// The object's last state, with the revision of its deletion.
    Deleted(Value),
    /// Everything up to this revision is told; `initial` after the events that a watch begins with.
    Bookmark { revision: Revision, initial: bool },
    /// The watch ends.
    Error(Status),
}

/// How long a watch lives that names no time: as kube-apiserver's, at least half an hour.
const LIFE: Duration = Duration::from_secs(45 * 60);

/// Between bookmarks.
const BOOKMARK: Duration = Duration::from_secs(60);

/// Tells events from [`Watcher::next`]; loses nothing when that is cancelled.
pub struct Watcher {
    registry: Arc<Registry>,
    watch: Watch,
    prefix: String,
    selection: Selection,
    sight: Sight,
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
        prefix: String,
        selection: Selection,
        options: &ReadOptions,
    ) -> Result<Self, Status> {
        let store = registry.store();
        let newest = store.revision();
        let asked = options.revision.unwrap_or_default();
        if asked > newest.0 {
            return Err(Status::revision_too_large(asked, newest.0));
        }
        let initial = asked == 0 || options.send_initial_events;
        let start = if initial { newest } else { Revision(asked) };
        let (watch, now) = (store.watch(start), Instant::now());
        let sight = selection.sight(&registry);
        let mut watcher = Self {
            registry,
            watch,
            prefix,
            selection,
            sight,
            queue: VecDeque::new(),
            seen: start,
            bookmarks: options.bookmarks,
            bookmark: now + BOOKMARK,
            end: now + options.timeout.unwrap_or(LIFE),
            ended: false,
        };
        if initial {
            let found = watcher.seen_at(start, &watcher.sight).map_err(|end| too_old(start, end))?;
            watcher.queue.extend(found.into_values().map(WatchEvent::Added));
        }
        if options.send_initial_events {
            watcher.queue.push_back(WatchEvent::Bookmark { revision: start, initial: true });
        }
        Ok(watcher)
    }

    /// The next event; `None` when the watch's time is over.
    pub async fn next(&mut self) -> Option<WatchEvent> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            match timeout_at(self.end.min(self.bookmark), self.watch.next()).await {
                Ok(commit) => {
                    let followed = commit.and_then(|commit| self.follow(&commit));
                    if let Err(end) = followed {
                        self.ended = true;
                        self.queue.push_back(WatchEvent::Error(too_old(self.seen, end)));
                    }
                }
                Err(_) if Instant::now() >= self.end => self.ended = true,
                Err(_) => {
                    self.bookmark = Instant::now() + BOOKMARK;
                    if self.bookmarks {
                        return Some(WatchEvent::Bookmark { revision: self.seen, initial: false });
                    }
                }
            }
        }
    }

    fn follow(&mut self, commit: &Commit) -> Result<(), WatchEnd> {
        if let Some(sight) = self.selection.sight_after(commit, &self.registry).filter(|sight| *sight != self.sight) {
            self.look_anew(commit, sight)?;
        } else {
            for event in commit.events.iter().filter(|event| event.key.starts_with(&self.prefix)) {
                let told = self.told(event, commit.revision);
                self.queue.extend(told);
            }
        }
        self.seen = commit.revision;
        Ok(())
    }

    /// What the client is told of a change: what comes into the selection is added, what leaves it is deleted.
    fn told(&self, event: &Event, revision: Revision) -> Option<WatchEvent> {
        let wanted = |object: &Value| self.selection.wants(object, &self.sight);
        let before = event.before.as_ref().and_then(|before| object::read_at(before, revision)).filter(wanted);
        let after = event.after.as_ref().and_then(object::read).filter(wanted);
        match (before, after) {
            (None, Some(object)) => Some(WatchEvent::Added(object)),
            (Some(_), Some(object)) => Some(WatchEvent::Modified(object)),
            (Some(last), None) => Some(WatchEvent::Deleted(last)),
            (None, None) => None,
        }
    }

    /// The rights have changed, and with them what is seen.
    fn look_anew(&mut self, commit: &Commit, sight: Sight) -> Result<(), WatchEnd> {
        let mut before = self.seen_at(self.seen, &self.sight)?;
        let after = self.seen_at(commit.revision, &sight)?;
        for (key, object) in after {
            match before.remove(&key) {
                None => self.queue.push_back(WatchEvent::Added(object)),
                Some(old) if old != object => self.queue.push_back(WatchEvent::Modified(object)),
                Some(_) => {}
            }
        }
        for (_, mut last) in before {
            last["metadata"]["resourceVersion"] = commit.revision.to_string().into();
            self.queue.push_back(WatchEvent::Deleted(last));
        }
        self.sight = sight;
        Ok(())
    }

    fn seen_at(&self, revision: Revision, sight: &Sight) -> Result<BTreeMap<Arc<str>, Value>, WatchEnd> {
        let entries = self.registry.store().list_at(&self.prefix, revision)?;
        let read = entries.into_iter().filter_map(|(key, stored)| Some((key, object::read(&stored)?)));
        Ok(read.filter(|(_, object)| self.selection.wants(object, sight)).collect())
    }
}

fn too_old(asked: Revision, end: WatchEnd) -> Status {
    match end {
        WatchEnd::Compacted { compacted } => Status::expired(format!("too old resource version: {asked} ({compacted})")),
        WatchEnd::Closed => Status::unavailable("the registry is closed; the process is stopping"),
    }
}
