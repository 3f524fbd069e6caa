//! What the API server holds: pods, their logs, the history of changes, and the requests it got.

use std::collections::{BTreeMap, VecDeque};

use serde_json::Value;
use tokio::sync::watch;

use super::Seen;

/// How many requests are remembered.
const REMEMBERED: usize = 10_000;

/// Everything, changed by a scenario's commands and seen by the requests under way.
#[derive(Debug)]
pub(super) struct State {
    cluster: watch::Sender<Cluster>,
    requests: watch::Sender<VecDeque<Seen>>,
    services: watch::Sender<Vec<Value>>,
}

/// The pods now and how it came to that.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// Grows by one with each event.
    revision: u64,
    pods: BTreeMap<String, Pod>,
    /// Since the beginning: nothing is compacted away.
    pub(super) events: Vec<Event>,
}

/// A running pod with one container.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) revision: u64,
    pub(super) log: Vec<String>,
    pub(super) log_ended: bool,
}

/// One change.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// `ADDED` or `DELETED`.
    pub(super) kind: &'static str,
    /// The pod with the revision of this change.
    pub(super) pod: Pod,
}

impl Default for State {
    fn default() -> Self {
        // Revision 0 means "any" to clients, so that the first list must be later.
        let cluster = Cluster { revision: 1, ..Cluster::default() };
        Self {
            cluster: watch::Sender::new(cluster),
            requests: watch::Sender::default(),
            services: watch::Sender::default(),
        }
    }
}

impl State {
    pub(super) fn add_service(&self, service: Value) {
        self.services.send_modify(|services| services.push(service));
    }

    /// A page of the services, two at a time, and where the next one begins.
    pub(super) fn services(&self, from: usize) -> (Vec<Value>, Option<usize>) {
        const PAGE: usize = 2;
        let services = self.services.borrow();
        let next = (services.len() > from + PAGE).then_some(from + PAGE);
        (services.iter().skip(from).take(PAGE).cloned().collect(), next)
    }

    pub(super) fn add_pod(&self, name: &str) {
        self.cluster.send_modify(|cluster| {
            let revision = cluster.revision + 1;
            let pod = Pod { name: name.to_owned(), revision, log: Vec::new(), log_ended: false };
            cluster.pods.insert(name.to_owned(), pod.clone());
            cluster.publish("ADDED", pod);
        });
    }

    pub(super) fn delete_pod(&self, name: &str) {
        self.cluster.send_modify(|cluster| {
            if let Some(pod) = cluster.pods.remove(name) {
                let revision = cluster.revision + 1;
                cluster.publish("DELETED", Pod { revision, ..pod });
            }
        });
    }

    pub(super) fn log(&self, pod: &str, line: &str) {
        self.change_pod(pod, |pod| pod.log.push(format!("{line}\n")));
    }

    pub(super) fn end_log(&self, pod: &str) {
        self.change_pod(pod, |pod| pod.log_ended = true);
    }

    pub(super) fn pod(&self, name: &str) -> Option<Pod> {
        self.cluster.borrow().pod(name).cloned()
    }

    pub(super) fn pods(&self) -> Vec<Pod> {
        self.cluster.borrow().pods.values().cloned().collect()
    }

    pub(super) fn revision(&self) -> u64 {
        self.cluster.borrow().revision
    }

    /// All of it, as it changes.
    pub(super) fn watch(&self) -> watch::Receiver<Cluster> {
        self.cluster.subscribe()
    }

    pub(super) fn record(&self, request: Seen) {
        self.requests.send_modify(|requests| {
            if requests.len() == REMEMBERED {
                requests.pop_front();
            }
            requests.push_back(request);
        });
    }

    pub(super) fn requests(&self) -> Vec<Seen> {
        self.requests.borrow().iter().cloned().collect()
    }

    fn change_pod(&self, name: &str, change: impl FnOnce(&mut Pod)) {
        self.cluster.send_modify(|cluster| {
            if let Some(pod) = cluster.pods.get_mut(name) {
                change(pod);
            }
        });
    }
}

impl Cluster {
    pub(super) fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.get(name)
    }

    fn publish(&mut self, kind: &'static str, pod: Pod) {
        self.revision = pod.revision;
        self.events.push(Event { kind, pod });
    }
}
