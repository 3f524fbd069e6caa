//! An agent that has joined a hub double, running in the test's process.

use std::time::Duration;

use certs::PrivateKey;
use proxy_agent::{
    Agent, Config, Readiness, RunError,
    policy::{Policy, Rule},
    state::{Membership, StateFolder},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::hub::{Hub, SOON};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct Spoke {
    pub(crate) state: StateFolder,
    pub(crate) readiness: Readiness,
    pub(crate) stop: CancellationToken,
    pub(crate) abort: CancellationToken,
    metrics: std::net::SocketAddr,
    running: JoinHandle<Result<(), RunError>>,
    _folder: TempDir,
}

/// Keeps an identity for cluster `c1`, agent `a1` at `hub` in a new folder.
pub(crate) fn joined(hub: &Hub, validity: Duration) -> (TempDir, StateFolder) {
    let folder = tempfile::tempdir().unwrap();
    let state = StateFolder::new(folder.path());
    let key = state.load_or_create_key().unwrap();
    state.save_join(&membership(hub), hub.authority.certificate_pem(), &chain(hub, &key, validity)).unwrap();
    (folder, state)
}

pub(crate) fn chain(hub: &Hub, key: &PrivateKey, validity: Duration) -> String {
    let Membership { cluster, agent, .. } = membership(hub);
    hub.authority.issue_agent(&key.csr_der().unwrap(), &cluster, &agent, validity).unwrap().chain_pem
}

fn membership(hub: &Hub) -> Membership {
    Membership {
        hubs: vec![hub.address.to_string().parse().unwrap()],
        cluster: "c1".parse().unwrap(),
        agent: "a1".parse().unwrap(),
    }
}

pub(crate) fn rules(texts: &[&str]) -> Vec<Rule> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

impl Spoke {
    /// An agent that may reach this machine's loopback.
    pub(crate) async fn start(hub: &Hub) -> Self {
        Self::start_with(hub, DAY, |_| {}).await
    }

    pub(crate) async fn start_with(hub: &Hub, validity: Duration, change: impl FnOnce(&mut Config)) -> Self {
        let (folder, state) = joined(hub, validity);
        let mut config = Config::new(state.path());
        config.policy = Policy::new(rules(&["127.0.0.0/8"]), Vec::new());
        config.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
        change(&mut config);
        let agent = Agent::bind(config).await.unwrap();
        let (readiness, metrics) = (agent.readiness(), agent.metrics_address().unwrap());
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let running = TaskTracker::new().spawn(agent.run(stop.clone(), abort.clone()));
        Self { state, readiness, stop, abort, metrics, running, _folder: folder }
    }

    /// The status and body of a page of the health port.
    pub(crate) async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.metrics).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    /// Waits until a page of the health port has `text` in it.
    pub(crate) async fn shows(&self, path: &str, text: &str) {
        let mut last = String::new();
        let shown = async {
            loop {
                last = self.get(path).await;
                if last.contains(text) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = tokio::time::timeout(SOON, shown).await.is_ok();
        assert!(found, "{path} never showed {text:?}:\n{last}");
    }

    /// Waits until a tunnel is up.
    pub(crate) async fn ready(&mut self) {
        assert!(tokio::time::timeout(SOON, self.readiness.wait()).await.expect("no tunnel"));
    }

    /// Waits for the agent's own end, which must be a good one.
    pub(crate) async fn ended(self) {
        tokio::time::timeout(SOON, self.running).await.expect("the agent does not end").unwrap().unwrap();
    }

    /// Stops it, and demands a good end.
    pub(crate) async fn stopped(self) {
        self.stop.cancel();
        self.ended().await;
    }
}
