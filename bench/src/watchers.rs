//! Watchers of the hub's clusters, each on a connection of its own, and how long a change takes to reach them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;
use tests::Hub;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::api_client::ApiClient;

/// Where clusters are.
pub const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";

/// How long an event may take.
const BOUND: Duration = Duration::from_secs(30);

/// They watch until dropped.
#[derive(Debug)]
pub struct Watchers {
    count: usize,
    events: mpsc::Receiver<Instant>,
    _clients: Vec<ApiClient>,
    _tasks: JoinSet<()>,
}

/// How long changes took until the watchers had them, each sorted.
#[derive(Debug, Default)]
pub struct Latencies {
    /// Of each change, until the last of the watchers had it.
    pub all: Vec<Duration>,
    /// Of each change at each of the watchers.
    pub each: Vec<Duration>,
}

impl Watchers {
    /// One for each token, told of what happens from now on.
    pub async fn start(hub: &Hub, tokens: &[String]) -> Result<Self> {
        let (sender, events) = mpsc::channel(tokens.len().max(1));
        let (mut clients, mut tasks) = (Vec::new(), JoinSet::new());
        for token in tokens {
            let mut client = ApiClient::connect(hub, token).await?;
            let list: Value = serde_json::from_slice(&client.get(&format!("{CLUSTERS}?limit=1")).await?)?;
            let revision = list["metadata"]["resourceVersion"].as_str().context("a list has no revision")?;
            let frames = client.watch(&format!("{CLUSTERS}?watch=true&resourceVersion={revision}")).await?;
            tasks.spawn(read(frames, sender.clone()));
            clients.push(client);
        }
        Ok(Self { count: tokens.len(), events, _clients: clients, _tasks: tasks })
    }

    /// Makes changes, one after another, each of which is one event for every watcher.
    pub async fn time(
        &mut self,
        changes: usize,
        mut change: impl AsyncFnMut(usize) -> Result<()>,
    ) -> Result<Latencies> {
        let mut latencies = Latencies::default();
        for index in 0..changes {
            let start = Instant::now();
            change(index).await?;
            let first = latencies.each.len();
            for _ in 0..self.count {
                let arrived = timeout(BOUND, self.events.recv()).await.context("an event is missing")?;
                latencies.each.push(arrived.context("the watches have ended")? - start);
            }
            latencies.all.extend(latencies.each[first..].iter().max());
        }
        latencies.all.sort();
        latencies.each.sort();
        Ok(latencies)
    }
}

/// Tells when each frame has come.
async fn read(mut frames: Incoming, arrived: mpsc::Sender<Instant>) {
    while let Some(Ok(frame)) = frames.frame().await {
        let now = Instant::now();
        let ends = frame.data_ref().map_or(0, |data| data.iter().filter(|byte| **byte == b'\n').count());
        for _ in 0..ends {
            if arrived.send(now).await.is_err() {
                return;
            }
        }
    }
}
