//! The registry as the hub uses it: questions answered from memory, changes decided by the rules and then stored.

pub(crate) mod bootstrap;
mod presence;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use certs::{AgentName, ClusterName, KeyFingerprint};
use jiff::Timestamp;
use parking_lot::RwLock;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::broadcast;

pub use self::presence::{Presence, Sighting};
pub use self::users::{NewUserError, TokenRefusal, UserError, new_uid};

use crate::admit::{AgentRefusal, admit};
use crate::cluster::{AgentPhase, ManagedCluster, ShownAgent, whole_second};
use crate::join::{self, JoinAsk, JoinRefusal, Joined};
use crate::kube::object;
use crate::kube::rbac::{Attributes, Caller, Decision, Denial, Policy, REGISTER_GROUP};
use crate::kube::sets::Rule;
use crate::kube::write::own::{self, Outcome};
use crate::rights_queue::{RightsQueue, RightsTurn};
use crate::secret::{DrawnToken, PresentedToken, TokenKind};
use crate::token::{JoinToken, MAX_TIME_TO_LIVE, NewToken};
use crate::view::{Change, View, is_set};
#[cfg(test)]
use store::faults::Fault;
use store::{Backend, CommitError, Event, Observer, OpenError, Revision, Store, Txn, Versioned};

/// Clusters, join tokens and users. Cheap to ask from any task; share it in an `Arc`.
///
/// When a changing method returns, its change is on disk, visible to every reader, and announced by
/// [`Registry::changes`]. When it fails, nothing changed.
pub struct Registry {
    store: Store,
    /// Written by the store's writer alone.
    view: Arc<RwLock<View>>,
    changes: broadcast::Sender<Change>,
    /// Held from the decision on what a write hands out until it is stored.
    pub(crate) turns: RightsQueue,
}

/// A cluster as it is stored, and what the hub reads of it.
#[derive(Debug)]
pub(crate) struct StoredCluster {
    object: Value,
    revision: Revision,
    pub(crate) cluster: ManagedCluster,
}

/// Why a cluster was not changed.
#[derive(Debug, Error)]
pub enum ClusterError {
    #[error("no cluster {cluster} is registered; list them: cluster-proxy clusters")]
    Unknown { cluster: ClusterName },
    #[error("cluster {cluster} has no agent {agent}")]
    UnknownAgent { cluster: ClusterName, agent: AgentName },
    #[error(
        "agent {agent} of cluster {cluster} is not there any more with the key that was shown, or was denied; look \
         again: cluster-proxy clusters -o wide"
    )]
    OtherAgent { cluster: ClusterName, agent: AgentName },
    #[error("cluster {cluster} could not be changed; try again in a moment")]
    Store {
        cluster: ClusterName,
        #[source]
        source: CommitError,
    },
}

/// Why a join token was not made.
#[derive(Debug, Error)]
pub enum NewTokenError {
    #[error("a join token lives from one second to {} days; choose another life time", MAX_TIME_TO_LIVE.as_secs() / 86_400)]
    TimeToLive,
    #[error("the join token could not be stored; try again in a moment")]
    Store(#[source] CommitError),
}

/// Why a join token was not deleted.
#[derive(Debug, Error)]
pub enum TokenError {
    #[error("no join token has the id {id}")]
    Unknown { id: String },
    #[error("the join token could not be deleted; try again in a moment")]
    Store(#[source] CommitError),
}

/// How often a change is decided anew because somebody else changed the same object meanwhile. Each failed attempt means
/// that another one got through, so even every agent of a cluster at once gets its turn.
const ATTEMPTS: usize = 100;

/// Changes a receiver may fall behind before it has to look at everything anew.
const CHANGES: usize = 1024;

impl Registry {
    /// Opens the registry in the file `path`, making it if there is none. Blocks; meant for the start of a process.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::on(&Backend::File(path.as_ref().to_owned()))
    }

    /// Opens the registry in a file or in etcd. Blocks; meant for the start of a process.
    pub fn on(backend: &Backend) -> Result<Self, OpenError> {
        Self::over(backend.place(), |observer| Store::on(backend, observer))
    }

    /// Opens the registry over a store, which is at `place`.
    fn over(place: PathBuf, open: impl FnOnce(Observer) -> Result<Store, OpenError>) -> Result<Self, OpenError> {
        let (changes, _) = broadcast::channel(CHANGES);
        let view = Arc::new(RwLock::new(View::default()));
        let store = open(observer(Arc::clone(&view), changes.clone()))?;
        {
            // Taken before the list, so what another process commits meanwhile is applied after it.
            let mut view = view.write();
            // The sets first: then each cluster is put into its sets once, instead of each set asking every cluster.
            let (sets, others): (Vec<_>, Vec<_>) = store.list("").0.into_iter().partition(|(key, _)| is_set(key));
            for (key, after) in sets.into_iter().chain(others) {
                let event = Event { key, after: Some(after), before: None };
                view.apply(&event)
                    .map_err(|source| OpenError::Damaged { path: place.clone(), source: source.into() })?;
            }
        }
        Ok(Self { store, view, changes, turns: RightsQueue::default() })
    }

    /// A registry in a file whose disk fails as it is told to.
    #[cfg(test)]
    pub(crate) fn on_failing(path: &Path) -> (Self, Arc<parking_lot::Mutex<Fault>>) {
        let mut switch = None;
        let open = |observer| {
            let (store, fault) = Store::on_failing(path, observer)?;
            switch = Some(fault);
            Ok(store)
        };
        (Self::over(path.to_owned(), open).unwrap(), switch.unwrap())
    }

    /// Finishes what is being written, and lets go of the file, for another process to open it. Changes end with an error then.
    pub async fn release(&self) {
        self.store.release().await;
    }

    /// Finishes what is being written and closes the file. Questions are still answered; changes end with an error.
    pub async fn close(&self) {
        self.store.close().await;
    }

    /// Whether there is nothing in it, not even what every registry has from its beginning.
    pub fn is_new(&self) -> bool {
        self.store.list("").0.is_empty()
    }

    /// Waits until nothing can be written any more, which only [`Self::close`] asks for.
    pub async fn ended(&self) {
        self.store.ended().await;
    }

    /// Announces every change after this call. A receiver that lags must look at everything anew.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// The turn to decide on what a write of `user` hands out and to store it; `None` where it does not come soon.
    pub(crate) async fn turn(&self, user: &str) -> Option<RightsTurn<'_>> {
        self.turns.take(&self.store, user).await
    }

    /// What is beneath, for an API that needs revisions, lists and watches.
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub fn cluster(&self, name: &ClusterName) -> Option<Arc<ManagedCluster>> {
        value(self.view.read().clusters.get(name))
    }

    /// Every cluster, sorted by name.
    pub fn clusters(&self) -> Vec<Arc<ManagedCluster>> {
        values(&self.view.read().clusters)
    }

    /// Every join token, sorted by id, also those that have expired.
    pub fn tokens(&self) -> Vec<Arc<JoinToken>> {
        values(&self.view.read().tokens)
    }

    /// Asks the policy as it is now.
    pub fn with_policy<T>(&self, ask: impl FnOnce(&Policy) -> T) -> T {
        ask(&self.view.read().policy)
    }

    /// The sets that hold a cluster with these labels.
    pub(crate) fn sets_of(&self, labels: Option<&Map<String, Value>>) -> BTreeSet<Arc<str>> {
        self.view.read().sets_of(labels)
    }

    /// How many clusters a set of this form holds.
    pub(crate) fn held_by(&self, set: &Value) -> usize {
        self.view.read().held_by(&Rule::of(set)).count()
    }

    /// The clusters that a rule holds, and another one, where there is one, does not.
    pub(crate) fn gained_by(&self, rule: &Rule, before: Option<&Rule>) -> Vec<ClusterName> {
        let view = self.view.read();
        let known: BTreeSet<_> = before.into_iter().flat_map(|before| view.held_by(before)).collect();
        view.held_by(rule).filter(|name| !known.contains(name)).cloned().collect()
    }

    pub(crate) fn has_set(&self, name: &str) -> bool {
        self.view.read().has_set(name)
    }

    /// Whether an agent that showed a certificate for these names and this key may serve its cluster now.
    pub fn admit_agent(
        &self,
        cluster: &ClusterName,
        agent: &AgentName,
        key: &KeyFingerprint,
    ) -> Result<(), AgentRefusal> {
        admit(self.cluster(cluster).as_deref(), cluster, agent, key)
    }

    /// Whether the asker may let in what would join by the token: one that accepts is the right to accept, and one that
    /// is bound to a cluster changes who its agents are.
    pub fn may_create_token(&self, asker: &Caller, new: &NewToken) -> Result<(), Denial> {
        if new.cluster.is_none() && !new.auto_accept {
            return Ok(());
        }
        let name = new.cluster.as_ref().map_or("", |cluster| cluster.as_ref());
        let accept = Attributes::of(asker, "update", REGISTER_GROUP, "managedclusters/accept", name);
        match self.with_policy(|policy| policy.decide(&accept)) {
            Decision::Allowed(_) => Ok(()),
            Decision::Denied(denial) => Err(denial),
        }
    }

    /// Makes a join token. Its text is in the answer and nowhere else.
    pub async fn create_token(
        &self,
        new: NewToken,
        now: Timestamp,
    ) -> Result<(JoinToken, SecretString), NewTokenError> {
        if new.time_to_live.as_secs() == 0 || new.time_to_live > MAX_TIME_TO_LIVE {
            return Err(NewTokenError::TimeToLive);
        }
        let expires_at = now.checked_add(new.time_to_live).map_err(|_| NewTokenError::TimeToLive)?;
        let drawn = DrawnToken::draw(TokenKind::Join);
        let token = JoinToken {
            id: drawn.id,
            hash: drawn.hash,
            expires_at: whole_second(expires_at),
            cluster: new.cluster,
            auto_accept: new.auto_accept,
            reusable: new.reusable,
            created_by: new.created_by,
            created_at: whole_second(now),
            used_by: Vec::new(),
        };
        let key = Change::Token(token.id.clone()).key();
        let txn = Txn::new().expect_absent(&key).put(key, json(&token));
        self.store.commit(txn).await.map_err(NewTokenError::Store)?;
        Ok((token, drawn.text))
    }

    /// Deletes a join token. Agents that joined with it stay.
    pub async fn delete_token(&self, id: &str) -> Result<(), TokenError> {
        let unknown = || TokenError::Unknown { id: id.to_owned() };
        let change = self.view.read().tokens.get(id).map(|_| Change::Token(id.to_owned()));
        let key = change.ok_or_else(unknown)?.key();
        self.store.commit(Txn::new().delete(key)).await.map_err(TokenError::Store)?;
        Ok(())
    }

    /// Decides what becomes of an agent that asks to join, and notes it. A refused join writes nothing.
    pub async fn request_join(&self, ask: JoinAsk, now: Timestamp) -> Result<Joined, JoinRefusal> {
        let mut attempts = ATTEMPTS;
        loop {
            let (txn, joined, replaced) = self.decide_join(&ask, now)?;
            let Some(txn) = txn else {
                return Ok(joined);
            };
            attempts -= 1;
            match self.store.commit(txn).await {
                Ok(_) => {
                    if let Some(old_key) = replaced {
                        let JoinAsk { agent, key, .. } = &ask;
                        tracing::warn!(%agent, %old_key, %key, ?joined, "an agent that joined again has a new key");
                    }
                    return Ok(joined);
                }
                Err(CommitError::Conflict { .. }) if attempts > 0 => {}
                Err(error) => return Err(JoinRefusal::Store(error)),
            }
        }
    }

    /// Lets agents of a cluster in, or sends them away: their tunnels are cut and their keys stay out. One that is let in
    /// may serve once its cluster is accepted.
    pub async fn decide_agents(
        &self,
        cluster: &ClusterName,
        shown: &[ShownAgent],
        phase: AgentPhase,
        now: Timestamp,
    ) -> Result<(), ClusterError> {
        self.update_cluster(cluster, now, |cluster| shown.iter().try_for_each(|agent| decide(cluster, agent, phase)))
            .await
    }

    /// Forgets an agent of a cluster. It comes back only with a join token.
    pub async fn remove_agent(
        &self,
        cluster: &ClusterName,
        shown: &ShownAgent,
        now: Timestamp,
    ) -> Result<(), ClusterError> {
        self.update_cluster(cluster, now, |cluster| match cluster.remove_agent(shown) {
            true => Ok(()),
            false => Err(not_as_shown(cluster, shown)),
        })
        .await
    }

    /// The join rule on what is registered now, and the transaction that writes its decision if nothing changed since.
    fn decide_join(
        &self,
        ask: &JoinAsk,
        now: Timestamp,
    ) -> Result<(Option<Txn>, Joined, Option<KeyFingerprint>), JoinRefusal> {
        let presented =
            PresentedToken::parse(TokenKind::Join, ask.token.expose_secret()).ok_or(JoinRefusal::UnknownToken)?;
        let token = self.view.read().tokens.get(presented.id).cloned().ok_or(JoinRefusal::UnknownToken)?;
        if !presented.matches(&token.value.hash) {
            return Err(JoinRefusal::UnknownToken);
        }
        let name = join::cluster_name(&token.value, ask, now)?;
        let stored = self.stored_cluster(&name);
        let known = stored.as_ref().map(|stored| &stored.cluster);
        let decision = join::decide(&token.value, name.clone(), known, ask, random_uuid, now)?;
        if decision.cluster.is_none() && decision.token.is_none() {
            return Ok((None, decision.joined, None));
        }
        if let Some(new) = &decision.cluster {
            join::check_room(&self.view.read().join_counts, &token.value, known, new, ask)?;
        }
        let (token_key, cluster_key) = (Change::Token(token.value.id.clone()).key(), Change::Cluster(name).key());
        let mut txn = Txn::new().expect(&token_key, token.modified);
        txn = match (&decision.cluster, &stored) {
            (Some(new), stored) => StoredCluster::put(stored.as_ref(), new, txn, now),
            (None, Some(stored)) => txn.expect(&cluster_key, stored.revision),
            (None, None) => txn.expect_absent(&cluster_key),
        };
        if let Some(token) = &decision.token {
            txn = txn.put(token_key, json(token));
        }
        Ok((Some(txn), decision.joined, decision.replaced))
    }

    pub(crate) fn stored_cluster(&self, name: &ClusterName) -> Option<StoredCluster> {
        let stored = self.store.get(&Change::Cluster(name.clone()).key())?;
        let object = object::read(&stored)?;
        let cluster = ManagedCluster::deserialize(&object).ok()?;
        Some(StoredCluster { object, revision: stored.modified, cluster })
    }

    pub(crate) async fn update_cluster(
        &self,
        name: &ClusterName,
        now: Timestamp,
        change: impl Fn(&mut ManagedCluster) -> Result<(), ClusterError>,
    ) -> Result<(), ClusterError> {
        let mut attempts = ATTEMPTS;
        loop {
            let stored = self.stored_cluster(name).ok_or_else(|| ClusterError::Unknown { cluster: name.clone() })?;
            let mut new = stored.cluster.clone();
            change(&mut new)?;
            if new == stored.cluster {
                return Ok(());
            }
            attempts -= 1;
            match self.store.commit(StoredCluster::put(Some(&stored), &new, Txn::new(), now)).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Conflict { .. }) if attempts > 0 => {}
                Err(source) => {
                    return Err(ClusterError::Store { cluster: name.clone(), source });
                }
            }
        }
    }
}

impl StoredCluster {
    /// Adds to `txn` what becomes of a stored cluster, or a new one, that is to be as `new` says.
    pub(crate) fn put(before: Option<&Self>, new: &ManagedCluster, txn: Txn, now: Timestamp) -> Txn {
        let key = Change::Cluster(new.name().clone()).key();
        let txn = match before {
            Some(before) => txn.expect(&key, before.revision),
            None => txn.expect_absent(&key),
        };
        match own::outcome(before.map(|before| &before.object), new, now) {
            Outcome::Same => txn,
            Outcome::Put(object) => txn.put(&key, object::write(&object)),
            Outcome::Gone(_) => txn.delete(&key),
        }
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("store", &self.store).finish_non_exhaustive()
    }
}

/// Keeps the view and announces the changes, on the writer's thread, before the writer answers its callers.
fn observer(view: Arc<RwLock<View>>, changes: broadcast::Sender<Change>) -> Observer {
    Box::new(move |commit| {
        for event in &commit.events {
            let applied = view.write().apply(event);
            match applied {
                // Without receivers there is nobody to tell.
                Ok(Some(change)) => drop(changes.send(change)),
                Ok(None) => {}
                Err(error) => tracing::error!(error = &error as &dyn Error, "a stored resource is ignored"),
            }
        }
    })
}

fn decide(cluster: &mut ManagedCluster, shown: &ShownAgent, phase: AgentPhase) -> Result<(), ClusterError> {
    if cluster.decide_agent(shown, phase) { Ok(()) } else { Err(not_as_shown(cluster, shown)) }
}

fn not_as_shown(cluster: &ManagedCluster, shown: &ShownAgent) -> ClusterError {
    match cluster.agent(&shown.name) {
        None => unknown_agent(cluster, &shown.name),
        Some(_) => ClusterError::OtherAgent { cluster: cluster.name().clone(), agent: shown.name.clone() },
    }
}

fn unknown_agent(cluster: &ManagedCluster, agent: &AgentName) -> ClusterError {
    ClusterError::UnknownAgent { cluster: cluster.name().clone(), agent: agent.clone() }
}

fn value<T>(found: Option<&Versioned<Arc<T>>>) -> Option<Arc<T>> {
    found.map(|versioned| Arc::clone(&versioned.value))
}

fn values<K, T>(resources: &BTreeMap<K, Versioned<Arc<T>>>) -> Vec<Arc<T>> {
    resources.values().map(|versioned| Arc::clone(&versioned.value)).collect()
}

fn json(resource: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(resource).expect("resources have only string keys, and no serializer of theirs fails")
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn random_uuid() -> String {
    uuid(rand::random(), 4)
}

/// A UUID of that version (RFC 9562) that has the rest of its bits from `bits`.
pub(crate) fn uuid(bits: u128, version: u128) -> String {
    let bits = bits & !(0xf << 76) | version << 76;
    let bits = bits & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests;
