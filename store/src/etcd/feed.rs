//! The feed: reads what etcd holds and watches what becomes of it; the only source of what is in memory.
//!
//! When the watch is lost it is taken up again where it was, at another endpoint. When etcd has compacted that place
//! meanwhile, everything is read again.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};
use tonic::Streaming;

use super::client::{CallError, Client};
use super::layout::{Identity, Layout, Marker, Place};
use super::message::{self, KeyValue, RangeRequest, WatchEvent, WatchResponse};
use crate::backoff::Backoff;
use crate::log::EventLog;
use crate::state::State;
use crate::{Revision, Versioned};

/// What the feed tells the writer, in the order of the revisions.
#[derive(Debug)]
pub(super) enum Shown {
    /// Whole revisions, the oldest first.
    Revisions(Vec<Changes>),
    /// What came between is not known.
    Everything(Snapshot),
    /// Nothing more will come.
    Stranger(Stranger),
}

/// What happened in one revision.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) revision: Revision,
    pub(super) events: Vec<WatchEvent>,
}

/// Every key below the prefix.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) revision: Revision,
    pub(super) keys: Vec<KeyValue>,
}

/// Following it would make revisions go back.
#[derive(Clone, Copy, Debug, Error)]
pub(super) enum Stranger {
    #[error(
        "etcd is no longer the one that this process has started on; check its endpoints, then restart the process"
    )]
    Other,
    #[error(
        "etcd has gone back from revision {seen} to {found}, as after a backup was restored; restart this process to go \
         on from there"
    )]
    WentBack { seen: Revision, found: Revision },
}

pub(super) struct Feed {
    client: Arc<Client>,
    layout: Arc<Layout>,
    identity: Identity,
    /// Everything up to here has been told.
    seen: Revision,
    /// The place at `seen` has been compacted.
    reread: bool,
    shown: mpsc::Sender<Shown>,
    /// The writer misses something that must have been shown by now.
    stuck: Arc<Notify>,
}

/// Why the watch ended.
#[derive(Debug, Error)]
enum FeedEnd {
    #[error("it was lost")]
    Lost(#[source] CallError),
    #[error("etcd ended it: {0}")]
    Ended(String),
    #[error("etcd has compacted what follows")]
    Compacted,
    #[error("it shows nothing although etcd has changed")]
    Stuck,
    #[error(transparent)]
    Stranger(Stranger),
    #[error("nobody listens")]
    Unwanted,
}

/// Keys in one answer: a hundred of the largest values stay below the largest answer.
const PAGE: u32 = 100;
/// Answers that may wait for the writer.
const QUEUE: usize = 16;
/// How often the watch's endpoint is asked whether it still is one with a leader: a watch is quiet when nothing happens.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
/// Until etcd says that the watch has begun.
const BEGIN_DEADLINE: Duration = Duration::from_secs(5);
/// Dead markers deleted at a start, one transaction's worth.
const MAX_DEAD: usize = 100;

impl Feed {
    /// A feed of what comes after the revision `seen`.
    pub(super) fn new(
        client: Arc<Client>,
        layout: Arc<Layout>,
        identity: Identity,
        seen: Revision,
    ) -> (Self, mpsc::Receiver<Shown>) {
        let (shown, receiver) = mpsc::channel(QUEUE);
        (Self { client, layout, identity, seen, reread: false, shown, stuck: Arc::default() }, receiver)
    }

    /// Told when the watch shows nothing of what it must: it is made anew then.
    pub(super) fn stuck(&self) -> Arc<Notify> {
        Arc::clone(&self.stuck)
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::default();
        loop {
            let endpoint = self.client.preferred();
            let before = self.seen;
            match self.follow(endpoint).await {
                FeedEnd::Unwanted => return,
                FeedEnd::Stranger(stranger) => {
                    // Without a listener it is the end as well.
                    let _ = self.shown.send(Shown::Stranger(stranger)).await;
                    return;
                }
                FeedEnd::Compacted => self.reread = true,
                end @ (FeedEnd::Lost(_) | FeedEnd::Ended(_) | FeedEnd::Stuck) => {
                    tracing::warn!(error = &end as &dyn Error, "the watch on etcd is taken up again");
                    self.client.avoid(endpoint);
                }
            }
            if self.seen > before {
                backoff = Backoff::default();
            }
            sleep(backoff.next_wait()).await;
        }
    }

    /// Watches at one endpoint for as long as that goes well.
    async fn follow(&mut self, endpoint: usize) -> FeedEnd {
        let stuck = Arc::clone(&self.stuck);
        let watch = async {
            match self.watch(endpoint).await {
                Ok(never) => match never {},
                Err(end) => end,
            }
        };
        tokio::select! {
            end = watch => end,
            () = stuck.notified() => FeedEnd::Stuck,
        }
    }

    async fn watch(&mut self, endpoint: usize) -> Result<std::convert::Infallible, FeedEnd> {
        self.identify(endpoint).await?;
        if self.reread {
            let snapshot = Snapshot::read(&self.client, &self.layout).await.map_err(FeedEnd::Lost)?;
            let revision = snapshot.revision;
            self.tell(Shown::Everything(snapshot)).await?;
            self.seen = revision;
            self.reread = false;
        }
        let (first, end) = self.layout.range();
        let request = message::watch(&first, &end, self.seen.next());
        let mut answers = self.client.converse(endpoint, request).await.map_err(FeedEnd::Lost)?;
        let begun = timeout(BEGIN_DEADLINE, self.next(endpoint, &mut answers)).await;
        let begun = begun.map_err(|late| FeedEnd::Lost(self.client.lost(endpoint, late)))??;
        check(&begun)?;
        let client = Arc::clone(&self.client);
        let probe = probe(&client, endpoint, message::get(&self.layout.store()));
        tokio::pin!(probe);
        // Of the newest revision, which may go on in the next answer.
        let mut events = Vec::new();
        loop {
            let answer = tokio::select! {
                answer = self.next(endpoint, &mut answers) => answer?,
                error = &mut probe => return Err(FeedEnd::Lost(error)),
            };
            check(&answer)?;
            self.take(answer, &mut events).await?;
        }
    }

    /// Makes sure that this is still the same etcd and that it has not lost what was seen.
    async fn identify(&self, endpoint: usize) -> Result<(), FeedEnd> {
        let store = message::get(&self.layout.store());
        let found = self.client.call_at(endpoint, &store).await.map_err(FeedEnd::Lost)?;
        let identity = found.kvs.first().and_then(|key| Identity::from_json(&key.value));
        if identity.as_ref() != Some(&self.identity) {
            return Err(FeedEnd::Stranger(Stranger::Other));
        }
        let found = message::revision(found.header);
        if found < self.seen {
            return Err(FeedEnd::Stranger(Stranger::WentBack { seen: self.seen, found }));
        }
        Ok(())
    }

    async fn next(&self, endpoint: usize, answers: &mut Streaming<WatchResponse>) -> Result<WatchResponse, FeedEnd> {
        let answer = answers.message().await;
        let answer = answer.map_err(|status| FeedEnd::Lost(self.client.failure(endpoint, status)))?;
        answer.ok_or_else(|| FeedEnd::Ended("the answer is over".to_owned()))
    }

    /// Tells the revisions that are complete. Large answers come in fragments, which may end within a revision.
    async fn take(&mut self, answer: WatchResponse, events: &mut Vec<WatchEvent>) -> Result<(), FeedEnd> {
        if answer.events.is_empty() && events.is_empty() {
            // Told of progress: nothing of ours has happened up to here.
            self.seen = self.seen.max(message::revision(answer.header));
            return Ok(());
        }
        events.extend(answer.events.into_iter().map(WatchEvent::from));
        let newest = events.last().map_or(Revision::ZERO, |event| event.kv.modified());
        let mut revisions: BTreeMap<Revision, Vec<WatchEvent>> = BTreeMap::new();
        for event in events.drain(..) {
            revisions.entry(event.kv.modified()).or_default().push(event);
        }
        if answer.fragment {
            *events = revisions.remove(&newest).unwrap_or_default();
        }
        let Some(last) = revisions.keys().next_back().copied() else { return Ok(()) };
        let complete = revisions.into_iter().map(|(revision, events)| Changes { revision, events }).collect();
        self.tell(Shown::Revisions(complete)).await?;
        self.seen = last;
        Ok(())
    }

    async fn tell(&self, shown: Shown) -> Result<(), FeedEnd> {
        self.shown.send(shown).await.map_err(|_| FeedEnd::Unwanted)
    }
}

/// Whether the watch goes on.
fn check(answer: &WatchResponse) -> Result<(), FeedEnd> {
    if answer.compact_revision > 0 {
        return Err(FeedEnd::Compacted);
    }
    if answer.canceled {
        return Err(FeedEnd::Ended(answer.cancel_reason.clone()));
    }
    Ok(())
}

/// Ends when the endpoint does not answer, or not for a majority.
async fn probe(client: &Client, endpoint: usize, request: RangeRequest) -> CallError {
    loop {
        sleep(PROBE_INTERVAL).await;
        if let Err(error) = client.call_at(endpoint, &request).await {
            return error;
        }
    }
}

impl Snapshot {
    /// Reads all pages at one revision. Refused if etcd compacts that meanwhile.
    pub(super) async fn read(client: &Client, layout: &Layout) -> Result<Self, CallError> {
        let (first, end) = layout.range();
        let mut first = Bytes::from(first);
        let mut snapshot = Self { revision: Revision::ZERO, keys: Vec::new() };
        loop {
            let request = message::range(first, &end, PAGE, snapshot.revision);
            let page = client.call(&request).await?;
            if snapshot.revision == Revision::ZERO {
                snapshot.revision = message::revision(page.header);
            }
            snapshot.keys.extend(page.kvs);
            match snapshot.keys.last() {
                // The key right after it.
                Some(last) if page.more => first = [&*last.key, b"\0"].concat().into(),
                _ => return Ok(snapshot),
            }
        }
    }

    pub(super) fn identity(&self, layout: &Layout) -> Option<Identity> {
        let store = layout.store();
        let found = self.keys.iter().find(|found| *found.key == *store.as_bytes())?;
        Identity::from_json(&found.value)
    }

    /// The store's content, with a log that begins here.
    pub(super) fn state(&self, layout: &Layout) -> State {
        let entries = self.keys.iter().filter_map(|found| match layout.place(&found.key) {
            Place::Content(key) => Some((Arc::from(key), versioned(found))),
            Place::Marker { .. } | Place::Other => None,
        });
        State::restored(entries.collect(), EventLog::after(self.revision))
    }

    /// Deletes markers that processes have left behind. Does nothing if etcd does not want it now.
    pub(super) async fn forget_dead_writers(&self, client: &Client, layout: &Layout) {
        let dead: Vec<(&str, Revision)> = self
            .keys
            .iter()
            .filter(|found| matches!(layout.place(&found.key), Place::Marker { .. }) && Marker::is_dead(&found.value))
            .filter_map(|found| Some((str::from_utf8(&found.key).ok()?, found.modified())))
            .take(MAX_DEAD)
            .collect();
        if dead.is_empty() {
            return;
        }
        let request = message::delete_unchanged(dead.iter().copied());
        if let Err(error) = client.call(&request).await {
            tracing::debug!(error = &error as &dyn Error, "old markers stay in etcd");
        }
    }
}

pub(super) fn versioned(found: &KeyValue) -> Versioned<Arc<[u8]>> {
    Versioned { value: (*found.value).into(), created: found.created(), modified: found.modified() }
}
