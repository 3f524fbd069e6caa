//! The recorder of Events: what happens to clusters, for `kubectl events` and `describe`.

use std::collections::HashMap;

use certs::ClusterName;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::cluster::{AgentPhase, ManagedCluster};
use crate::condition::{AVAILABLE, Condition, ConditionStatus, HUB_ACCEPTED, JOINED, find};
use crate::kube::{object, strategy};
use crate::registry::{Registry, random_uuid};
use store::{CommitError, Txn};

const PREFIX: &str = "/events/";

/// As long as kube-apiserver keeps them by default.
const LIFE: SignedDuration = SignedDuration::from_hours(1);

/// Events in one transaction that leave room for those of another cluster, of which each waiting agent may make one.
const MANY: usize = 80;

/// Deletions in one transaction.
const AT_ONCE: usize = 100;

/// The clusters as they were when their last events were recorded.
#[derive(Debug, Default)]
pub(super) struct EventRecorder {
    known: HashMap<ClusterName, State>,
}

/// What of a cluster is worth an event when it changes.
#[derive(Clone, Debug, Default, PartialEq)]
struct State {
    conditions: Vec<Condition>,
    /// The requests of agents that wait.
    waiting: Vec<String>,
}

/// Events to be written, and the clusters as they are after them; `None` if they are gone.
#[derive(Debug, Default)]
pub(super) struct PendingEvents {
    told: Vec<(ClusterName, Option<State>)>,
    events: Vec<(String, Vec<u8>)>,
}

impl EventRecorder {
    /// Begins with the clusters that there are: they cause no events.
    pub(super) fn new(registry: &Registry) -> Self {
        let known = registry.clusters().into_iter().map(|cluster| (cluster.name().clone(), State::of(&cluster)));
        Self { known: known.collect() }
    }

    /// The clusters that have had events.
    pub(super) fn known(&self) -> impl Iterator<Item = &ClusterName> {
        self.known.keys()
    }

    /// Adds what is new about a cluster, `None` if it has gone.
    pub(super) fn look(
        &self,
        registry: &Registry,
        name: &ClusterName,
        cluster: Option<&ManagedCluster>,
        now: Timestamp,
        pending: &mut PendingEvents,
    ) {
        pending.told.push((name.clone(), cluster.map(State::of)));
        let (Some(cluster), Some((_, Some(new)))) = (cluster, pending.told.last()) else { return };
        let nothing = State::default();
        let old = self.known.get(name).unwrap_or(&nothing);
        let mut tell = |warns, reason: &str, message: &str| {
            let event = event(registry, cluster, warns, reason, message, now);
            let key = format!("{PREFIX}{}/{}", object::metadata(&event, "namespace"), object::name(&event));
            pending.events.push((key, object::write(&event)));
        };
        for condition in &new.conditions {
            if find(&old.conditions, &condition.type_).is_none_or(|old| old.status != condition.status) {
                tell(condition.status != ConditionStatus::True, &condition.reason, &condition.message);
            }
        }
        for request in new.waiting.iter().filter(|request| !old.waiting.contains(request)) {
            let message = format!("An agent asks to join; to let it in: kubectl certificate approve {request}");
            tell(false, "AgentWaits", &message);
        }
    }

    /// Takes over what was told, and says of which clusters it was.
    pub(super) fn told(&mut self, pending: PendingEvents) -> impl Iterator<Item = ClusterName> {
        pending.told.into_iter().map(|(name, state)| {
            match state {
                Some(state) => drop(self.known.insert(name.clone(), state)),
                None => drop(self.known.remove(&name)),
            }
            name
        })
    }
}

impl PendingEvents {
    /// Whether the events of one more cluster might not fit into a commit.
    pub(super) fn is_full(&self) -> bool {
        self.events.len() >= MANY
    }

    /// The transaction that tells them.
    pub(super) fn events(&self) -> Txn {
        self.events.iter().fold(Txn::new(), |txn, (key, event)| txn.put(key, event.clone()))
    }
}

impl State {
    fn of(cluster: &ManagedCluster) -> Self {
        let told = |condition: &&Condition| [HUB_ACCEPTED, JOINED, AVAILABLE].contains(&condition.type_.as_str());
        let waiting = cluster.status.agents.iter().filter(|agent| agent.phase == AgentPhase::Pending);
        Self {
            conditions: cluster.status.conditions.iter().filter(told).cloned().collect(),
            waiting: waiting.map(|agent| format!("{}.{}", cluster.name(), agent.name)).collect(),
        }
    }
}

/// An event of core/v1, in the cluster's namespace once there is one.
fn event(
    registry: &Registry,
    cluster: &ManagedCluster,
    warns: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Value {
    let name = cluster.name();
    let has_namespace = registry.store().get(&format!("/namespaces/{name}")).is_some();
    let time = strategy::seconds(now);
    let drawn: u64 = rand::random();
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{name}.{drawn:016x}"),
            "namespace": if has_namespace { name.as_ref() } else { "default" },
            "uid": random_uuid(),
            "creationTimestamp": time,
        },
        "involvedObject": {
            "apiVersion": cluster.api_version, "kind": cluster.kind, "name": name, "uid": cluster.metadata.uid,
        },
        "reason": reason,
        "message": message,
        "type": if warns { "Warning" } else { "Normal" },
        "source": {"component": "cluster-proxy"},
        "reportingComponent": "cluster-proxy",
        "reportingInstance": "",
        "firstTimestamp": time,
        "lastTimestamp": time,
        "count": 1,
    })
}

/// Deletes the events that are too old.
pub(super) async fn prune(registry: &Registry, now: Timestamp) -> Result<(), CommitError> {
    let old = |event: &Value| {
        let time = |field: &str| event[field].as_str().and_then(|time| time.parse::<Timestamp>().ok());
        let created = || object::metadata(event, "creationTimestamp").parse::<Timestamp>().ok();
        let last = time("lastTimestamp").or_else(|| time("eventTime")).or_else(created);
        last.is_none_or(|last| now.duration_since(last) > LIFE)
    };
    let events = registry.store().list(PREFIX).0;
    let old: Vec<_> =
        events.iter().filter(|(_, stored)| object::read(stored).is_none_or(|event| old(&event))).collect();
    for some in old.chunks(AT_ONCE) {
        let txn = some.iter().fold(Txn::new(), |txn, (key, _)| txn.delete(&**key));
        registry.store().commit(txn).await?;
    }
    Ok(())
}
