//! A watch: one JSON event per line, for as long as the client stays.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::stream;
use hyper::Response;
use hyper::body::Frame;
use serde_json::json;
use tokio::sync::watch::Receiver;

use super::answer::{self, Body};
use super::pods::{self, Selector};
use super::state::{Cluster, Event};

/// One client's place in the history.
struct Watcher {
    cluster: Receiver<Cluster>,
    /// Index of the next event to look at.
    next: usize,
    /// Events at or below this revision are known to the client.
    since: u64,
    selector: Selector,
    table: bool,
}

/// Streams the events after revision `since` (none: all), of the pods that `selector` takes.
pub(super) fn answer(
    cluster: Receiver<Cluster>,
    since: Option<u64>,
    selector: Selector,
    table: bool,
) -> Response<Body> {
    let watcher = Watcher { cluster, next: 0, since: since.unwrap_or(0), selector, table };
    let events = stream::unfold(watcher, |mut watcher| async move {
        let line = watcher.line().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), watcher))
    });
    answer::streamed("application/json", events)
}

impl Watcher {
    /// The next event for this client, which may be long in coming; `None` when the server is gone.
    async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(event) = self.next_known() {
                let object = pods::one(&event.pod, event.pod.revision, self.table);
                return Some(format!("{}\n", json!({ "type": event.kind, "object": object })).into());
            }
            self.cluster.changed().await.ok()?;
        }
    }

    fn next_known(&mut self) -> Option<Event> {
        let cluster = self.cluster.borrow_and_update();
        let concerns = |event: &Event| event.pod.revision > self.since && self.selector.takes(&event.pod);
        let found = cluster.events[self.next..].iter().position(concerns);
        let index = found.map_or(cluster.events.len(), |offset| self.next + offset);
        self.next = if found.is_some() { index + 1 } else { index };
        cluster.events.get(index).cloned()
    }
}
