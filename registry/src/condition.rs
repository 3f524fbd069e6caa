//! Conditions of a managed cluster, in Open Cluster Management's exact words.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Whether a condition holds, as Kubernetes writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// One entry of `status.conditions`; a type appears at most once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// One of the constants below, or a type some other component wrote.
    #[serde(rename = "type")]
    pub type_: String,
    pub status: ConditionStatus,
    /// One CamelCase word for programs.
    pub reason: String,
    /// One sentence for people.
    pub message: String,
    /// When `status` last changed; a new reason alone does not move it.
    pub last_transition_time: Timestamp,
}

/// What the hub may say about a cluster. Each fact is one row of OCM's table of conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// An admin, or a token an admin made for it, let the cluster in.
    Accepted,
    /// An admin refused the cluster.
    Denied,
    /// An agent of the cluster has connected at least once.
    Joined,
    /// A tunnel of the cluster is up.
    Available,
    /// No tunnel is up; whether the cluster is well cannot be told from the hub.
    Unreachable,
    /// How many clusters a set holds.
    SetHolds(usize),
    /// Whether the set that a binding names exists.
    Bound(bool),
}

/// Type of the condition that says what the hub's admin decided.
pub const HUB_ACCEPTED: &str = "HubAcceptedManagedCluster";
/// Type of the condition that says an agent has been here.
pub const JOINED: &str = "ManagedClusterJoined";
/// Type of the condition that says whether the cluster can be reached now.
pub const AVAILABLE: &str = "ManagedClusterConditionAvailable";
/// The conditions of a cluster that are the hub's to say.
pub const OF_CLUSTERS: [&str; 3] = [HUB_ACCEPTED, JOINED, AVAILABLE];
/// Type of the condition of a set.
pub const SET_EMPTY: &str = "ClusterSetEmpty";
/// Type of the condition of a set's binding.
pub const BOUND: &str = "Bound";

impl Fact {
    fn condition(self, now: Timestamp) -> Condition {
        let selected;
        let (type_, status, reason, message) = match self {
            Self::Accepted => {
                (HUB_ACCEPTED, ConditionStatus::True, "HubClusterAdminAccepted", "Accepted by hub cluster admin")
            }
            Self::Denied => {
                (HUB_ACCEPTED, ConditionStatus::False, "HubClusterAdminDenied", "Denied by hub cluster admin")
            }
            Self::Joined => (JOINED, ConditionStatus::True, "ManagedClusterJoined", "Managed cluster joined"),
            Self::Available => {
                (AVAILABLE, ConditionStatus::True, "ManagedClusterAvailable", "Managed cluster is available")
            }
            Self::Unreachable => (
                AVAILABLE,
                ConditionStatus::Unknown,
                "ManagedClusterLeaseUpdateStopped",
                "Registration agent stopped updating its lease.",
            ),
            Self::SetHolds(0) => (SET_EMPTY, ConditionStatus::True, "NoClusterMatched", "No ManagedCluster selected"),
            Self::SetHolds(count) => {
                selected = format!("{count} ManagedClusters selected");
                (SET_EMPTY, ConditionStatus::False, "ClustersSelected", selected.as_str())
            }
            Self::Bound(true) => (BOUND, ConditionStatus::True, "ClusterSetBound", ""),
            Self::Bound(false) => (BOUND, ConditionStatus::False, "ClusterSetNotFound", ""),
        };
        Condition {
            type_: type_.to_owned(),
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_transition_time: now,
        }
    }
}

/// The condition of that type, if there is one.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Records `fact`, replacing what was said about its type before.
///
/// `lastTransitionTime` moves only when the status changes, as in Kubernetes.
pub fn set(conditions: &mut Vec<Condition>, fact: Fact, now: Timestamp) {
    let new = fact.condition(now);
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => *old = new.after(old),
        None => conditions.push(new),
    }
}

/// The same among conditions as they are stored, of which others have fields of their own.
pub(crate) fn set_stored(conditions: &mut Vec<Value>, fact: Fact, now: Timestamp) {
    let new = fact.condition(now);
    match conditions.iter_mut().find(|old| old["type"] == new.type_.as_str()) {
        Some(old) => {
            let new = Condition::deserialize(&*old).map_or_else(|_| new.clone(), |old| new.clone().after(&old));
            *old = json!(new);
        }
        None => conditions.push(json!(new)),
    }
}

impl Condition {
    fn after(self, old: &Self) -> Self {
        let same = old.status == self.status;
        Self { last_transition_time: if same { old.last_transition_time } else { self.last_transition_time }, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_condition_is_written_as_kubernetes_writes_it() {
        let mut conditions = Vec::new();
        set(&mut conditions, Fact::Accepted, second(1_700_000_000));
        assert_eq!(
            serde_json::to_string(&conditions).unwrap(),
            r#"[{"type":"HubAcceptedManagedCluster","status":"True","reason":"HubClusterAdminAccepted","message":"Accepted by hub cluster admin","lastTransitionTime":"2023-11-14T22:13:20Z"}]"#
        );
    }

    #[test]
    fn the_words_are_those_of_open_cluster_management() {
        let said = |fact: Fact| {
            let condition = fact.condition(second(1));
            (condition.type_, condition.status, condition.reason, condition.message)
        };
        let row = |type_: &str, status, reason: &str, message: &str| {
            (type_.to_owned(), status, reason.to_owned(), message.to_owned())
        };
        use ConditionStatus::{False, True, Unknown};
        assert_eq!(
            said(Fact::Denied),
            row("HubAcceptedManagedCluster", False, "HubClusterAdminDenied", "Denied by hub cluster admin")
        );
        assert_eq!(
            said(Fact::Joined),
            row("ManagedClusterJoined", True, "ManagedClusterJoined", "Managed cluster joined")
        );
        assert_eq!(
            said(Fact::Available),
            row("ManagedClusterConditionAvailable", True, "ManagedClusterAvailable", "Managed cluster is available")
        );
        assert_eq!(
            said(Fact::Unreachable),
            row(
                "ManagedClusterConditionAvailable",
                Unknown,
                "ManagedClusterLeaseUpdateStopped",
                "Registration agent stopped updating its lease."
            )
        );
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, Fact::Accepted, second(1));
        set(&mut conditions, Fact::Accepted, second(2));
        assert_eq!(conditions[0].last_transition_time, second(1));
        set(&mut conditions, Fact::Denied, second(3));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, second(3));
    }
}
