//! The controller: keeps what follows from the clusters and sets: conditions of sets and bindings, roles of sets, namespaces,
//! events.

mod chronicle;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use certs::ClusterName;
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio::time::{Instant, interval, sleep_until};

use self::chronicle::Chronicle;
use super::{admission, object, projection::CLUSTER_LABEL, rbac::builtin, sets::CLUSTER_SET_LABEL};
use crate::cluster::Standing;
use crate::condition::Fact;
use crate::registry::{Registry, beginning};
use crate::store::{CommitError, Txn};
use crate::view::Change;

/// How long changes gather, so that a thousand clusters that come at once are counted once.
const GATHERED: Duration = Duration::from_millis(50);

/// Between looks for events that are too old.
const PRUNING: Duration = Duration::from_secs(60);

/// How often a write is decided anew because another one came first. What is left then comes with the next change.
const ATTEMPTS: usize = 10;

/// Sees to the registry's own objects for as long as it runs.
#[derive(Debug)]
pub struct Controller {
    registry: Arc<Registry>,
    chronicle: Chronicle,
}

/// What is to be looked at.
#[derive(Debug, Default)]
struct Concerned {
    everything: bool,
    clusters: BTreeSet<ClusterName>,
    sets: bool,
    rights: bool,
}

impl Controller {
    pub fn new(registry: Arc<Registry>) -> Self {
        let chronicle = Chronicle::new(&registry);
        Self { registry, chronicle }
    }

    /// Runs until the registry is closed.
    pub async fn run(mut self) {
        let mut changes = self.registry.changes();
        let mut pruning = interval(PRUNING);
        let mut concerned = Concerned { everything: true, ..Concerned::default() };
        loop {
            if let Err(error) = self.settle(&concerned).await {
                tracing::warn!(%error, "the registry's conditions are behind");
            }
            concerned = tokio::select! {
                gathered = gather(&mut changes) => match gathered {
                    Some(concerned) => concerned,
                    None => return,
                },
                _ = pruning.tick() => {
                    if let Err(error) = chronicle::prune(&self.registry, Timestamp::now()).await {
                        tracing::warn!(%error, "old events could not be deleted");
                    }
                    Concerned::default()
                }
            };
        }
    }

    /// What [`Self::run`] does about a change, at once.
    #[cfg(test)]
    pub(crate) async fn look_at_everything(&mut self) {
        let all = Concerned { everything: true, ..Concerned::default() };
        self.settle(&all).await.expect("the store of a test takes writes");
    }

    async fn settle(&mut self, concerned: &Concerned) -> Result<(), CommitError> {
        let now = Timestamp::now();
        let Concerned { everything, clusters, sets, rights } = concerned;
        if *everything {
            let all = self.registry.clusters().into_iter().map(|cluster| cluster.name().clone()).collect();
            self.settle_clusters(&all, now).await?;
        } else {
            self.settle_clusters(clusters, now).await?;
        }
        if *everything || *sets || !clusters.is_empty() {
            self.settle_sets(now).await?;
        }
        if *everything || *sets {
            self.settle_roles(now).await?;
        }
        if *everything || *sets || *rights {
            self.settle_bindings(now).await?;
        }
        Ok(())
    }

    /// A namespace for each accepted cluster, and events of what has happened.
    async fn settle_clusters(&mut self, names: &BTreeSet<ClusterName>, now: Timestamp) -> Result<(), CommitError> {
        for name in names {
            let cluster = self.registry.cluster(name);
            if cluster.as_ref().is_some_and(|cluster| cluster.standing() == Standing::Accepted) {
                let mut namespace = beginning::namespace(name.as_ref());
                namespace["metadata"]["labels"][CLUSTER_LABEL] = name.as_ref().into();
                self.registry.make_if_missing(namespace, now).await?;
            }
            self.chronicle.look(&self.registry, name, cluster.as_deref(), now).await?;
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
            for _ in 0..ATTEMPTS {
                let Some(stored) = self.registry.store().get(&key) else { break };
                let Some(before) = object::read(&stored) else { break };
                let mut after = before.clone();
                admission::note(&mut after, fact(&before), now);
                if after == before {
                    break;
                }
                let txn = Txn::new().expect(&*key, stored.modified).put(&*key, object::write(&after));
                match self.registry.store().commit(txn).await {
                    Ok(_) => break,
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

impl Concerned {
    fn add(&mut self, change: Result<Change, RecvError>) -> Option<()> {
        match change {
            Ok(Change::Cluster(name)) => drop(self.clusters.insert(name)),
            Ok(Change::Set(_)) => self.sets = true,
            Ok(Change::Rights(_)) => self.rights = true,
            Ok(Change::User(_) | Change::Token(_)) => {}
            Err(RecvError::Lagged(_)) => self.everything = true,
            Err(RecvError::Closed) => return None,
        }
        Some(())
    }
}

/// Waits for a change, and gathers those that come with it; `None` when the registry is closed.
async fn gather(changes: &mut Receiver<Change>) -> Option<Concerned> {
    let mut concerned = Concerned::default();
    concerned.add(changes.recv().await)?;
    let end = Instant::now() + GATHERED;
    loop {
        tokio::select! {
            change = changes.recv() => concerned.add(change)?,
            () = sleep_until(end) => return Some(concerned),
        }
    }
}
