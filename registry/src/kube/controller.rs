//! The controller: keeps what follows from the clusters and sets: conditions of sets and bindings, roles of sets, namespaces,
//! events.

mod event_recorder;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use certs::ClusterName;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, interval, sleep_until};

use self::event_recorder::{EventRecorder, PendingEvents};
use super::{admission, object, projection::CLUSTER_LABEL, rbac::builtin, sets::CLUSTER_SET_LABEL};
use crate::cluster::AcceptanceStatus;
use crate::condition::Fact;
use crate::registry::{Registry, bootstrap};
use crate::view::Change;
use store::Backoff;
use store::{CommitError, Txn};

/// How long changes gather, so that a thousand clusters that come at once are counted once.
const GATHERED: Duration = Duration::from_millis(50);

/// Between looks for events that are too old.
const PRUNING: Duration = Duration::from_secs(60);

/// How often a write is decided anew because another one came first. What is left then is tried again later.
const ATTEMPTS: usize = 10;

/// Sees to the registry's own objects for as long as it runs.
#[derive(Debug)]
pub struct Controller {
    registry: Arc<Registry>,
    events: EventRecorder,
    queue: WorkQueue,
}

/// What is to be looked at: what was heard of stays until it has been seen to.
#[derive(Debug, Default)]
struct WorkQueue {
    clusters: BTreeSet<ClusterName>,
    /// How many clusters the sets hold.
    sets: bool,
    /// The roles of the sets.
    roles: bool,
    bindings: bool,
}

impl Controller {
    pub fn new(registry: Arc<Registry>) -> Self {
        let events = EventRecorder::new(&registry);
        Self { registry, events, queue: WorkQueue::default() }
    }

    /// Runs until the registry is closed.
    pub async fn run(mut self) {
        let mut changes = self.registry.changes();
        let mut pruning = interval(PRUNING);
        let mut backoff = Backoff::default();
        let mut behind = false;
        self.hear_of_everything();
        let mut due = Some(Instant::now());
        loop {
            tokio::select! {
                change = changes.recv() => {
                    match change {
                        Ok(change) => self.queue.add(change),
                        Err(RecvError::Lagged(_)) => self.hear_of_everything(),
                        Err(RecvError::Closed) => return,
                    }
                    due.get_or_insert_with(|| Instant::now() + GATHERED);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = match self.reconcile(Timestamp::now()).await {
                        Ok(()) => {
                            backoff = Backoff::default();
                            if std::mem::take(&mut behind) {
                                tracing::info!("the registry's conditions are up to date again");
                            }
                            None
                        }
                        Err(error) => {
                            if !std::mem::replace(&mut behind, true) {
                                tracing::warn!(%error, "the registry's conditions are behind; they are tried again");
                            }
                            Some(Instant::now() + backoff.next_wait())
                        }
                    };
                }
                _ = pruning.tick() => {
                    // What is left is as old a minute later.
                    if let Err(error) = event_recorder::prune(&self.registry, Timestamp::now()).await {
                        tracing::warn!(%error, "old events could not be deleted");
                    }
                }
            }
        }
    }

    /// What [`Self::run`] does about a change, at once.
    #[cfg(test)]
    pub(crate) async fn look_at_everything(&mut self) {
        self.hear_of_everything();
        self.reconcile(Timestamp::now()).await.expect("the store of a test takes writes");
    }

    fn hear_of_everything(&mut self) {
        // Those that were told of and are there no more have their end told.
        self.queue.clusters.extend(self.events.known().cloned());
        self.queue.clusters.extend(self.registry.clusters().iter().map(|cluster| cluster.name().clone()));
        (self.queue.sets, self.queue.roles, self.queue.bindings) = (true, true, true);
    }

    /// Sees to what was heard of. What failed, and what comes after it, is still to be seen to.
    async fn reconcile(&mut self, now: Timestamp) -> Result<(), CommitError> {
        while !self.queue.clusters.is_empty() {
            self.settle_clusters(now).await?;
        }
        if self.queue.sets {
            possible(self.settle_sets(now).await)?;
            self.queue.sets = false;
        }
        if self.queue.roles {
            possible(self.settle_roles(now).await)?;
            self.queue.roles = false;
        }
        if self.queue.bindings {
            possible(self.settle_bindings(now).await)?;
            self.queue.bindings = false;
        }
        Ok(())
    }

    /// A namespace for each accepted cluster, and events of what has happened: of as many clusters as fit into one commit.
    async fn settle_clusters(&mut self, now: Timestamp) -> Result<(), CommitError> {
        let mut pending = PendingEvents::default();
        for name in &self.queue.clusters {
            let cluster = self.registry.cluster(name);
            if cluster.as_ref().is_some_and(|cluster| cluster.acceptance() == AcceptanceStatus::Accepted) {
                let mut namespace = bootstrap::namespace(name.as_ref());
                namespace["metadata"]["labels"][CLUSTER_LABEL] = name.as_ref().into();
                self.registry.make_if_missing(namespace, now).await?;
            }
            self.events.look(&self.registry, name, cluster.as_deref(), now, &mut pending);
            if pending.is_full() {
                break;
            }
        }
        possible(self.registry.store().commit(pending.events()).await.map(drop))?;
        for name in self.events.told(pending) {
            self.queue.clusters.remove(&name);
        }
        Ok(())
    }

    async fn settle_sets(&self, now: Timestamp) -> Result<(), CommitError> {
        let fact =
            |set: &Value| Fact::SetHolds(self.registry.with_policy(|policy| policy.member_count(object::name(set))));
        self.note_all("/managedclustersets/", fact, now).await
    }

    async fn settle_bindings(&self, now: Timestamp) -> Result<(), CommitError> {
        let fact = |binding: &Value| {
            Fact::Bound(self.registry.has_set(binding["spec"]["clusterSet"].as_str().unwrap_or_default()))
        };
        self.note_all("/managedclustersetbindings/", fact, now).await
    }

    /// The roles of each set, to be bound to people. Those of a set that was deleted go; an admin's changes are kept.
    async fn settle_roles(&self, now: Timestamp) -> Result<(), CommitError> {
        let store = self.registry.store();
        for (key, _) in store.list("/managedclustersets/").0 {
            let set = key.rsplit('/').next().unwrap_or_default();
            for role in builtin::set_roles(set) {
                self.registry.make_if_missing(role, now).await?;
            }
        }
        for (key, stored) in store.list(&format!("/clusterroles/{}", builtin::SET_ROLE)).0 {
            let set = object::read(&stored).map(|mut role| role["metadata"]["labels"][CLUSTER_SET_LABEL].take());
            let Some(set) = set.as_ref().and_then(Value::as_str) else { continue };
            if self.registry.has_set(set) {
                continue;
            }
            match store.commit(Txn::new().expect(&*key, stored.modified).delete(&*key)).await {
                // Whoever changed it has a use for it.
                Ok(_) | Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Notes a fact in each object below `prefix` that does not say so yet.
    async fn note_all(&self, prefix: &str, fact: impl Fn(&Value) -> Fact, now: Timestamp) -> Result<(), CommitError> {
        for (key, _) in self.registry.store().list(prefix).0 {
            let mut attempts = ATTEMPTS;
            while let Some(stored) = self.registry.store().get(&key) {
                let Some(before) = object::read(&stored) else { break };
                let mut after = before.clone();
                admission::set_condition(&mut after, fact(&before), now);
                if after == before {
                    break;
                }
                let txn = Txn::new().expect(&*key, stored.modified).put(&*key, object::write(&after));
                attempts -= 1;
                match possible(self.registry.store().commit(txn).await.map(drop)) {
                    Ok(()) => break,
                    Err(CommitError::Conflict { .. }) if attempts > 0 => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

impl WorkQueue {
    fn add(&mut self, change: Change) {
        match change {
            Change::Cluster(name) => {
                self.clusters.insert(name);
                self.sets = true;
            }
            Change::Set(_) => (self.sets, self.roles, self.bindings) = (true, true, true),
            Change::Rights(_) => self.bindings = true,
            Change::User(_) | Change::Token(_) => {}
        }
    }
}

/// What will never fit into the store is told and left: trying again would hold up the rest for ever.
fn possible(outcome: Result<(), CommitError>) -> Result<(), CommitError> {
    if let Err(error @ CommitError::TooLarge { .. }) = &outcome {
        tracing::warn!(%error, "something that follows from a change of the registry cannot be written");
        return Ok(());
    }
    outcome
}

#[cfg(test)]
mod tests;
