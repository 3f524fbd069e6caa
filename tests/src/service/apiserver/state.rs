//! What the API server holds: pods, their logs, the history of changes, other objects, and the requests it got.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::{fs, io};

use hyper::StatusCode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use super::Seen;
use super::port_forward::Ports;

/// How many requests are remembered.
const REMEMBERED: usize = 10_000;

/// Everything, changed by a scenario's commands and seen by the requests under way.
#[derive(Debug)]
pub(super) struct State {
    cluster: watch::Sender<Cluster>,
    requests: watch::Sender<VecDeque<Seen>>,
    /// What the pods have as their file systems.
    folder: TempDir,
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
    pub(super) config_maps: BTreeMap<String, Value>,
    pub(super) cordoned: bool,
    /// What a WebSocket's handshake is refused with.
    pub(super) websockets_refused: Option<StatusCode>,
}

/// A running pod with one container.
#[derive(Debug, Clone)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) revision: u64,
    pub(super) log: Vec<String>,
    pub(super) log_ended: bool,
    /// Its ephemeral containers, as their specification has them.
    pub(super) ephemeral: Vec<Value>,
    pub(super) ports: Ports,
}

/// One change.
#[derive(Debug, Clone)]
pub(super) struct Event {
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub(super) kind: &'static str,
    /// The pod with the revision of this change.
    pub(super) pod: Pod,
}

impl State {
    pub(super) fn new() -> io::Result<Self> {
        // Revision 0 means "any" to clients, so that the first list must be later.
        let cluster = Cluster { revision: 1, ..Cluster::default() };
        Ok(Self {
            cluster: watch::Sender::new(cluster),
            requests: watch::Sender::default(),
            services: watch::Sender::default(),
            folder: tempfile::Builder::new().prefix("pods").tempdir()?,
        })
    }

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
            let pod = Pod {
                name: name.to_owned(),
                revision,
                log: Vec::new(),
                log_ended: false,
                ephemeral: Vec::new(),
                ports: Ports::new(),
            };
            cluster.pods.insert(name.to_owned(), pod.clone());
            cluster.publish("ADDED", pod);
        });
    }

    /// Whether there was one.
    pub(super) fn delete_pod(&self, name: &str) -> bool {
        let mut deleted = false;
        self.cluster.send_modify(|cluster| {
            if let Some(pod) = cluster.pods.remove(name) {
                let revision = cluster.revision + 1;
                cluster.publish("DELETED", Pod { revision, ..pod });
                deleted = true;
            }
        });
        deleted
    }

    pub(super) fn log(&self, pod: &str, line: &str) {
        self.change_pod(pod, |pod| pod.log.push(format!("{line}\n")));
    }

    pub(super) fn end_log(&self, pod: &str) {
        self.change_pod(pod, |pod| pod.log_ended = true);
    }

    pub(super) fn forward(&self, pod: &str, port: u16, target: SocketAddr) {
        self.change_pod(pod, |pod| {
            pod.ports.insert(port, target);
        });
    }

    /// Gives a pod these ephemeral containers; watchers see `MODIFIED`.
    pub(super) fn set_ephemeral(&self, pod: &str, containers: &[Value]) {
        self.cluster.send_modify(|cluster| {
            let revision = cluster.revision + 1;
            if let Some(pod) = cluster.pods.get_mut(pod) {
                pod.ephemeral = containers.to_vec();
                pod.revision = revision;
                let pod = pod.clone();
                cluster.publish("MODIFIED", pod);
            }
        });
    }

    /// Changes what is not a pod.
    pub(super) fn change(&self, change: impl FnOnce(&mut Cluster)) {
        self.cluster.send_modify(|cluster| {
            cluster.revision += 1;
            change(cluster);
        });
    }

    /// The folder that is a pod's file system.
    pub(super) fn folder(&self, pod: &str) -> io::Result<PathBuf> {
        let folder = self.folder.path().join(pod);
        fs::create_dir_all(&folder)?;
        Ok(folder)
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

    pub(super) fn websockets_refused(&self) -> Option<StatusCode> {
        self.cluster.borrow().websockets_refused
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

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    fn publish(&mut self, kind: &'static str, pod: Pod) {
        self.revision = pod.revision;
        self.events.push(Event { kind, pod });
    }
}
