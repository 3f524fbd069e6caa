//! Watches: the changes of those objects that were asked for and may be seen, as a client's cache needs them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    options::ReadOptions,
    rbac::Visible,
    selection::Selection,
    source::Source,
    status::Status,
};
use crate::registry::Registry;
use crate::store::{Commit, Event, Revision, Versioned, Watch, WatchEnd};

/// What a watcher is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum WatchEvent {
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
pub(super) struct Watcher {
    registry: Arc<Registry>,
    watch: Watch,
    source: Source,
    selection: Selection,
    sight: Visible,
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
        let initial = asked == 0 || options.send_initial_events;
        let start = if initial { newest } else { Revision(asked) };
        let (watch, now) = (store.watch(start), Instant::now());
        let sight = selection.sight(&registry);
        let mut watcher = Self {
            registry,
            watch,
            source,
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
    pub(super) async fn next(&mut self) -> Option<WatchEvent> {
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
                Err(_) if Instant::now() >= self.end => {
                    self.ended = true;
                    // So that the client's next watch begins here, however old the last change that it has seen.
                    if self.bookmarks {
                        return Some(WatchEvent::Bookmark { revision: self.seen, initial: false });
                    }
                }
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
            for event in &commit.events {
                self.tell(event, commit.revision);
            }
        }
        self.seen = commit.revision;
        Ok(())
    }

    /// What comes into the selection is added, what leaves it is deleted.
    fn tell(&mut self, event: &Event, revision: Revision) {
        if !event.key.starts_with(self.source.prefix()) {
            return;
        }
        let selected = |stored: Option<&Versioned<Arc<[u8]>>>| -> BTreeMap<String, Value> {
            let objects = stored.map(|stored| self.source.objects(&event.key, stored, revision)).unwrap_or_default();
            objects.into_iter().filter(|(_, object)| self.selection.wants(object, &self.sight)).collect()
        };
        let (before, after) = (selected(event.before.as_ref()), selected(event.after.as_ref()));
        self.tell_difference(before, after);
    }

    /// The rights have changed, and with them what is seen.
    fn look_anew(&mut self, commit: &Commit, sight: Visible) -> Result<(), WatchEnd> {
        let mut before = self.seen_at(self.seen, &self.sight)?;
        let after = self.seen_at(commit.revision, &sight)?;
        for (_, last) in before.iter_mut().filter(|(key, _)| !after.contains_key(*key)) {
            last["metadata"]["resourceVersion"] = commit.revision.to_string().into();
        }
        self.sight = sight;
        self.tell_difference(before, after);
        Ok(())
    }

    fn tell_difference(&mut self, mut before: BTreeMap<String, Value>, after: BTreeMap<String, Value>) {
        for (key, object) in after {
            match before.remove(&key) {
                None => self.queue.push_back(WatchEvent::Added(object)),
                Some(old) if old != object => self.queue.push_back(WatchEvent::Modified(object)),
                Some(_) => {}
            }
        }
        self.queue.extend(before.into_values().map(WatchEvent::Deleted));
    }

    fn seen_at(&self, revision: Revision, sight: &Visible) -> Result<BTreeMap<String, Value>, WatchEnd> {
        let entries = self.registry.store().list_at(self.source.prefix(), revision)?;
        Ok(self.source.all(&entries, |object| self.selection.wants(object, sight)))
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").field("source", &self.source).field("seen", &self.seen).finish_non_exhaustive()
    }
}

fn too_old(asked: Revision, end: WatchEnd) -> Status {
    match end {
        WatchEnd::Compacted { compacted } => Status::expired(format!("too old resource version: {asked} ({compacted})")),
        WatchEnd::Closed => Status::unavailable("the registry is closed; the process is stopping"),
    }
}
