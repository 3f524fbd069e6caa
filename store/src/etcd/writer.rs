//! The writer to etcd: sends transactions, takes over what the feed shows, and answers when a transaction's marker is shown.
//!
//! Several transactions are under way at a time, each in a slot with a marker of its own; those that touch the same keys
//! follow each other. When an answer is lost, a fence is sent until etcd has taken it: after that the marker tells what
//! became of the transaction, and one that was not applied is tried again until its deadline.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc, oneshot, watch as latest};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::client::{CallError, Client};
use super::feed::{Changes, Feed, Shown, Snapshot, Stranger, versioned};
use super::layout::{Layout, Marker, Outcome, Place};
use super::message::{self, EventType, KeyValue, TxnRequest};
use crate::backoff::Backoff;
use crate::state::State;
use crate::writer::Request;
use crate::{Commit, CommitError, Event, Observer, Revision, Txn};

/// Is the only one to change the state.
pub(super) struct Writer {
    client: Arc<Client>,
    layout: Arc<Layout>,
    state: Arc<RwLock<State>>,
    publish: latest::Sender<Revision>,
    observer: Observer,
    /// Names this process in the markers' keys.
    id: String,
    /// Counts transactions.
    number: u64,
    waiting: VecDeque<Pending>,
    slots: Slots,
    /// The transactions under way, by slot.
    sent: BTreeMap<u64, Sent>,
    /// Requests to etcd: slot, number of the transaction, outcome.
    calls: JoinSet<(u64, u64, Result<(), CallError>)>,
    feed: Option<Feed>,
    stuck: Arc<Notify>,
    /// Why nothing is written any more.
    stranger: Option<Stranger>,
}

/// A transaction that is not answered yet.
struct Pending {
    txn: Txn,
    answer: oneshot::Sender<Result<Revision, CommitError>>,
    /// When it is no longer tried.
    deadline: Instant,
    /// Why the last attempt failed.
    failure: Option<CallError>,
}

struct Sent {
    pending: Pending,
    number: u64,
    /// What the fence compares.
    slot_modified: Revision,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asked,
    /// The outcome is open until the fence is taken.
    Fencing,
    /// etcd has answered; the feed must show the marker soon.
    Answered(Instant),
}

/// Markers' places: a slot is used by one transaction at a time.
#[derive(Debug, Default)]
struct Slots {
    next: u64,
    /// Slot, and the revision at which its marker was last put (zero: never).
    idle: BTreeMap<u64, Revision>,
}

/// A marker that was shown, and what the state said of its transaction's preconditions then.
struct Settled {
    slot: u64,
    revision: Revision,
    /// `None` when it was deleted.
    marker: Option<Marker>,
    conflict: Option<CommitError>,
}

/// Transactions under way at a time.
const MAX_SENT: usize = 16;
/// Transactions that wait here for a slot.
const MAX_WAITING: usize = 256;
/// How long a transaction is tried.
const COMMIT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the feed may lag behind an answer.
const SHOWN_DEADLINE: Duration = Duration::from_secs(5);
/// How long closing waits for what is under way.
const CLOSE_DEADLINE: Duration = Duration::from_secs(12);
/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);

impl Writer {
    pub(super) fn new(
        client: Arc<Client>,
        layout: Arc<Layout>,
        state: Arc<RwLock<State>>,
        publish: latest::Sender<Revision>,
        observer: Observer,
        feed: Feed,
    ) -> Self {
        Self {
            client,
            layout,
            state,
            publish,
            observer,
            id: format!("{:032x}", rand::random::<u128>()),
            number: 0,
            waiting: VecDeque::new(),
            slots: Slots::default(),
            sent: BTreeMap::new(),
            calls: JoinSet::new(),
            stuck: feed.stuck(),
            feed: Some(feed),
            stranger: None,
        }
    }

    /// Serves until every sender of the queue is gone and what came before is answered.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Request>, mut shown: mpsc::Receiver<Shown>) {
        let mut feeding = JoinSet::new();
        if let Some(feed) = self.feed.take() {
            feeding.spawn(feed.run());
        }
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut closed: Option<Instant> = None;
        loop {
            self.send_waiting();
            let busy = !self.waiting.is_empty() || !self.sent.is_empty();
            if closed.is_some_and(|closed| !busy || closed.elapsed() > CLOSE_DEADLINE) {
                break;
            }
            tokio::select! {
                // What is shown comes first: it ends what is under way.
                biased;
                Some(shown) = shown.recv() => self.show(shown),
                Some(Ok((slot, number, outcome))) = self.calls.join_next() => self.called(slot, number, outcome),
                Some(Err(error)) = feeding.join_next() => {
                    tracing::error!(%error, "nothing is heard of etcd any more");
                    break;
                }
                _ = tick.tick(), if busy => self.look_at_deadlines(),
                request = queue.recv(), if closed.is_none() && self.waiting.len() < MAX_WAITING => match request {
                    Some(request) => self.take(request),
                    None => closed = Some(Instant::now()),
                },
            }
        }
        let markers = message::delete_below(&self.layout.writer(&self.id));
        // What stays is deleted at a later start.
        let _ = timeout(Duration::from_secs(1), self.client.call(&markers)).await;
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Commit { txn, answer } => {
                let deadline = Instant::now() + COMMIT_DEADLINE;
                self.waiting.push_back(Pending { txn, answer, deadline, failure: None });
            }
            Request::Compact { revision, answer } => {
                self.state.write().log_mut().compact(revision);
                // Wakes the watchers that have fallen out of the log.
                self.publish();
                // A caller that is gone wants no answer.
                let _ = answer.send(Ok(()));
            }
            // There is no file to let go of, and what others commit is seen as it is.
            Request::LetGo { answer } | Request::Follow { answer, news: _ } => drop(answer.send(())),
        }
    }

    /// Sends transactions in their order, for as long as there are slots.
    fn send_waiting(&mut self) {
        if let Some(stranger) = self.stranger {
            for pending in self.waiting.drain(..) {
                pending.fail(refusal(stranger));
            }
        }
        while self.sent.len() < MAX_SENT
            && let Some(next) = self.waiting.front()
            && !self.sent.values().any(|sent| sent.pending.txn.overlaps(&next.txn))
            && let Some(pending) = self.waiting.pop_front()
        {
            self.send(pending);
        }
    }

    fn send(&mut self, pending: Pending) {
        let (slot, slot_modified) = self.slots.take();
        self.number += 1;
        let number = self.number;
        let marker = self.layout.marker(&self.id, slot);
        let request = message::txn(&pending.txn, &self.layout, &marker, slot_modified, number);
        let (client, deadline) = (Arc::clone(&self.client), pending.deadline);
        self.calls.spawn(async move { (slot, number, deliver(&client, &request, deadline).await) });
        self.sent.insert(slot, Sent { pending, number, slot_modified, phase: Phase::Asked });
    }

    /// A request to etcd has ended. The marker may have been shown already.
    fn called(&mut self, slot: u64, number: u64, outcome: Result<(), CallError>) {
        let Some(sent) = self.sent.get_mut(&slot).filter(|sent| sent.number == number) else { return };
        match outcome {
            Ok(()) => sent.phase = Phase::Answered(Instant::now()),
            Err(error @ (CallError::Lost { .. } | CallError::Silent)) => {
                tracing::warn!(error = &error as &dyn Error, "what became of a transaction in etcd is found out");
                sent.phase = Phase::Fencing;
                sent.pending.failure = Some(error);
                let fence = message::fence(&self.layout.marker(&self.id, slot), sent.slot_modified, number);
                let client = Arc::clone(&self.client);
                self.calls.spawn(async move { (slot, number, insist(&client, &fence).await) });
            }
            Err(error @ (CallError::Refused { .. } | CallError::Unreachable { .. })) => {
                if let Some(sent) = self.sent.remove(&slot) {
                    self.slots.idle.insert(slot, sent.slot_modified);
                    sent.pending.fail(refusal(error));
                }
            }
        }
    }

    fn look_at_deadlines(&mut self) {
        let now = Instant::now();
        while self.waiting.front().is_some_and(|pending| pending.deadline <= now)
            && let Some(late) = self.waiting.pop_front()
        {
            late.give_up();
        }
        for sent in self.sent.values_mut() {
            if let Phase::Answered(since) = sent.phase
                && now.duration_since(since) > SHOWN_DEADLINE
            {
                sent.phase = Phase::Answered(now);
                self.stuck.notify_one();
            }
        }
    }

    fn show(&mut self, shown: Shown) {
        match shown {
            Shown::Revisions(revisions) => self.apply(revisions),
            Shown::Everything(snapshot) => self.replace(&snapshot),
            Shown::Stranger(stranger) => {
                tracing::error!(error = &stranger as &dyn Error, "the registry cannot be changed any more");
                self.stranger = Some(stranger);
                for (_, sent) in std::mem::take(&mut self.sent) {
                    sent.pending.fail(refusal(stranger));
                }
            }
        }
    }

    fn apply(&mut self, revisions: Vec<Changes>) {
        let (mut commits, mut settled) = (Vec::new(), Vec::new());
        let mut state = self.state.write();
        for Changes { revision, events } in revisions {
            let (mut changes, mut markers) = (Vec::new(), Vec::new());
            for event in &events {
                let put = (event.kind == EventType::Put).then_some(&event.kv);
                match self.layout.place(&event.kv.key) {
                    Place::Content(key) => changes.extend(change(&state, key, put)),
                    Place::Marker { writer, slot } if writer == self.id => markers.push((slot, put)),
                    Place::Marker { .. } | Place::Other => {}
                }
            }
            if !changes.is_empty() {
                changes.sort_by(|a, b| a.key.cmp(&b.key));
                let commit = Arc::new(Commit { revision, events: changes });
                let excess = state.log().excess(std::slice::from_ref(&commit));
                state.log_mut().compact(excess);
                state.apply(&commit);
                commits.push(commit);
            }
            let shown = markers.into_iter().map(|(slot, put)| settle(&self.sent, &state, slot, revision, put));
            settled.extend(shown);
        }
        commits.iter().for_each(|commit| (self.observer)(commit));
        drop(state);
        self.announce(settled);
    }

    /// Takes over everything. Watchers must list again, because nobody knows what came between; the observer is told what
    /// is different, as one commit.
    fn replace(&mut self, snapshot: &Snapshot) {
        let new = snapshot.state(&self.layout);
        let revision = snapshot.revision;
        let mut state = self.state.write();
        let mut events: Vec<Event> = new
            .entries()
            .filter(|(key, after)| state.get(key).is_none_or(|before| before != *after))
            .map(|(key, after)| Event {
                key: Arc::clone(key),
                after: Some(after.clone()),
                before: state.get(key).cloned(),
            })
            .collect();
        let gone = state.entries().filter(|(key, _)| new.get(key).is_none());
        events.extend(gone.map(|(key, before)| Event {
            key: Arc::clone(key),
            after: None,
            before: Some(before.clone()),
        }));
        events.sort_by(|a, b| a.key.cmp(&b.key));
        *state = new;
        let mut markers = BTreeMap::new();
        for found in &snapshot.keys {
            if let Place::Marker { writer, slot } = self.layout.place(&found.key)
                && writer == self.id
            {
                markers.insert(slot, found);
            }
        }
        for (slot, modified) in &mut self.slots.idle {
            *modified = markers.get(slot).map_or(Revision::ZERO, |found| found.modified());
        }
        let settled =
            markers.into_iter().map(|(slot, found)| settle(&self.sent, &state, slot, found.modified(), Some(found)));
        let settled = settled.collect();
        let changes = events.len();
        if changes > 0 {
            (self.observer)(&Commit { revision, events });
        }
        drop(state);
        tracing::warn!(revision = revision.0, changes, "etcd has compacted its history; all was read again");
        self.announce(settled);
    }

    /// Tells the watchers what is in the state now, and then the callers. The observer knows: it was told while the state
    /// was locked, so that who reads a commit reads also what follows from it.
    fn announce(&mut self, settled: Vec<Settled>) {
        self.publish();
        for settled in settled {
            self.settle(settled);
        }
    }

    fn settle(&mut self, settled: Settled) {
        let Settled { slot, revision, marker, conflict } = settled;
        let Some(marker) = marker else {
            self.slots.idle.entry(slot).and_modify(|modified| *modified = Revision::ZERO);
            return;
        };
        let Some(sent) = self.sent.remove(&slot) else {
            self.slots.idle.entry(slot).and_modify(|modified| *modified = revision);
            return;
        };
        if sent.number != marker.number {
            self.sent.insert(slot, sent);
            return;
        }
        // Behind a fence the slot may be written late: another one is taken then.
        if sent.pending.failure.is_none() {
            self.slots.idle.insert(slot, revision);
        }
        let pending = sent.pending;
        match (marker.outcome, conflict) {
            // A caller that is gone wants no answer.
            (Outcome::Committed, _) => drop(pending.answer.send(Ok(self.answered(revision)))),
            (Outcome::Refused, Some(conflict)) => pending.fail(conflict),
            // Refused behind its fence, or because its marker had been deleted; or not applied at all.
            (Outcome::Refused | Outcome::Fenced, _) if pending.deadline > Instant::now() => {
                self.waiting.push_front(pending);
            }
            (Outcome::Refused | Outcome::Fenced, _) => pending.give_up(),
        }
    }

    /// The revision that a transaction applied at `revision` is told: its own, or the newest if it changed nothing.
    fn answered(&self, revision: Revision) -> Revision {
        revision.min(self.state.read().revision())
    }

    fn publish(&self) {
        self.publish.send_replace(self.state.read().revision());
    }
}

/// What a put or a deletion does to `key`; `None` if nothing.
fn change(state: &State, key: &str, put: Option<&KeyValue>) -> Option<Event> {
    let before = state.get(key).cloned();
    let after = put.map(versioned);
    (after.is_some() || before.is_some()).then(|| Event { key: key.into(), after, before })
}

fn settle(sent: &BTreeMap<u64, Sent>, state: &State, slot: u64, revision: Revision, put: Option<&KeyValue>) -> Settled {
    let conflict = sent.get(&slot).and_then(|sent| state.conflict(&sent.pending.txn));
    Settled { slot, revision, marker: put.and_then(|put| Marker::from_value(&put.value)), conflict }
}

/// Sends a transaction once, as soon as an endpoint can be reached.
async fn deliver(client: &Client, request: &TxnRequest, deadline: Instant) -> Result<(), CallError> {
    let mut backoff = Backoff::default();
    loop {
        match client.call(request).await {
            Err(CallError::Unreachable { .. }) if Instant::now() < deadline => sleep(backoff.next_wait()).await,
            outcome => return outcome.map(drop),
        }
    }
}

/// Sends a fence until etcd has taken it, which may be more than once.
async fn insist(client: &Client, request: &TxnRequest) -> Result<(), CallError> {
    let mut backoff = Backoff::default();
    while let Err(error) = client.call(request).await {
        tracing::debug!(error = &error as &dyn Error, "a fence is sent to etcd again");
        sleep(backoff.next_wait()).await;
    }
    Ok(())
}

fn refusal(source: impl Error + Send + Sync + 'static) -> CommitError {
    CommitError::Etcd { source: Arc::new(source) }
}

impl Pending {
    fn fail(self, error: CommitError) {
        // A caller that is gone wants no answer.
        let _ = self.answer.send(Err(error));
    }

    /// Its deadline has come.
    fn give_up(mut self) {
        let failure = self.failure.take().unwrap_or(CallError::Silent);
        self.fail(refusal(failure));
    }
}

impl Slots {
    fn take(&mut self) -> (u64, Revision) {
        self.idle.pop_first().unwrap_or_else(|| {
            self.next += 1;
            (self.next, Revision::ZERO)
        })
    }
}
