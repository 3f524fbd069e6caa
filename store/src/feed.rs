//! The feed: what a store commits, for another process that had the file before and keeps a copy in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::state::State;
use super::{Commit, Event, Revision, Store, Versioned, Watch, WatchEnd};

/// What has become of a store, e.g.
/// `{"revision":7,"changes":{"/a":{"value":"dg==","created":5,"modified":7},"/b":null},"whole":false}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    revision: Revision,
    /// What each key holds now; `None` where it was deleted.
    changes: BTreeMap<String, Option<Kept>>,
    /// Whether there are no other keys.
    whole: bool,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    #[serde(serialize_with = "to_base64", deserialize_with = "of_base64")]
    value: Arc<[u8]>,
    created: Revision,
    modified: Revision,
}

/// Tells all that becomes of a store.
#[derive(Debug)]
pub struct Feed<'a> {
    store: &'a Store,
    watch: Watch,
}

impl Store {
    /// Tells what was committed after `revision`, and then what is.
    pub fn feed(&self, after: Revision) -> Feed<'_> {
        Feed { store: self, watch: self.watch(after) }
    }
}

impl Feed<'_> {
    /// The next news; waits for them. `None` when the store is closed. Loses nothing when it is cancelled.
    pub async fn next(&mut self) -> Option<News> {
        match self.watch.next().await {
            Ok(commit) => {
                let changes = commit.events.iter().map(|event| (event.key.to_string(), event.after.as_ref().map(kept)));
                Some(News { revision: commit.revision, changes: changes.collect(), whole: false })
            }
            // How it came to be so is no longer known.
            Err(WatchEnd::Compacted { .. }) => {
                let (entries, revision) = self.store.list("");
                self.watch = self.store.watch(revision);
                let changes = entries.iter().map(|(key, versioned)| (key.to_string(), Some(kept(versioned))));
                Some(News { revision, changes: changes.collect(), whole: true })
            }
            Err(WatchEnd::Closed) => None,
        }
    }
}

impl State {
    /// The commit that news amount to here; `None` if there is nothing new.
    pub(super) fn learn(&self, news: News) -> Option<Commit> {
        if news.revision <= self.revision() {
            return None;
        }
        let mut changes: BTreeMap<Arc<str>, _> = BTreeMap::new();
        if news.whole {
            changes.extend(self.entries().map(|(key, _)| (Arc::clone(key), None)));
        }
        changes.extend(news.changes.into_iter().map(|(key, kept)| (Arc::from(key), kept.map(versioned))));
        let events = changes.into_iter().filter_map(|(key, after)| {
            let before = self.get(&key).cloned();
            (before != after).then_some(Event { key, after, before })
        });
        let events: Vec<_> = events.collect();
        (!events.is_empty()).then_some(Commit { revision: news.revision, events })
    }
}

fn kept(versioned: &Versioned<Arc<[u8]>>) -> Kept {
    let Versioned { value, created, modified } = versioned;
    Kept { value: Arc::clone(value), created: *created, modified: *modified }
}

fn versioned(kept: Kept) -> Versioned<Arc<[u8]>> {
    let Kept { value, created, modified } = kept;
    Versioned { value, created, modified }
}

fn to_base64<S: Serializer>(value: &Arc<[u8]>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&BASE64_STANDARD.encode(value))
}

fn of_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[u8]>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text).map(Into::into).map_err(serde::de::Error::custom)
}

/// Without the values, which may be secrets.
impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { revision, changes, whole } = self;
        let keys: Vec<_> = changes.keys().collect();
        f.debug_struct("News").field("revision", revision).field("keys", &keys).field("whole", whole).finish()
    }
}
