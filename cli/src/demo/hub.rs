//! The demonstration's hub, in this process, and its API as an administrator's command uses it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use certs::{AgentName, ClusterName, Credentials};
use proxy_server::{Config, RunError};
use registry::{
    ClusterAgent, ClusterScope,
    api::{HubStatus, NewToken, TokenCreated},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{DemoError, Stage};
use crate::{
    api::{Api, CallError},
    cluster_view::{self, ClusterView},
    clusters, decision, token, user,
};

/// Between two looks at a cluster.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// For a cluster to come to the state that is waited for.
const CLUSTER_DEADLINE: Duration = Duration::from_secs(30);

/// Connections still open when the demonstration ends are cut after this.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A running hub.
#[derive(Debug)]
pub(super) struct Hub {
    /// Of the first administrator.
    pub(super) admin: Credentials,
    /// Where its credentials are.
    pub(super) folder: PathBuf,
    pub(super) api: Api,
    pub(super) proxy: SocketAddr,
    pub(super) running: JoinHandle<Result<(), RunError>>,
}

impl Hub {
    /// Starts a hub on loopback with its state in `folder`; it runs on `stage`.
    pub(super) async fn start(folder: &Path, stage: &Stage) -> Result<Self, DemoError> {
        let mut config = Config::on_loopback(folder.to_owned());
        config.drain_timeout = DRAIN_TIMEOUT;
        let hub = proxy_server::Hub::bind(config).await.map_err(DemoError::Hub)?;
        let addresses = hub.addresses().clone();
        let admin = Credentials::load(&addresses.admin).map_err(|error| DemoError::Credentials(error.into()))?;
        let api = Api::new(&admin).map_err(DemoError::Entry)?;
        let running = stage.tasks.spawn(hub.run(stage.stop.clone(), CancellationToken::new()));
        Ok(Self { admin, folder: addresses.admin, api, proxy: addresses.proxy, running })
    }

    pub(super) async fn status(&self) -> Result<HubStatus, CallError> {
        self.api.get("/v1/status").await
    }

    /// A token for one cluster.
    pub(super) async fn token(&self, cluster: &ClusterName, auto_accept: bool) -> Result<TokenCreated, CallError> {
        let new = NewToken { cluster: Some(cluster.clone()), auto_accept, reusable: false, ttl_seconds: 300 };
        token::create(&self.api, &new).await
    }

    /// Lets in a cluster as soon as its agent has asked to join.
    pub(super) async fn accept(&self, cluster: &ClusterName, agent: &AgentName) -> Result<(), DemoError> {
        self.wait_for(cluster, |view| view.cluster.agent(agent).is_some()).await?;
        let list = cluster_view::list(&self.api).await.map_err(DemoError::Call)?;
        let waiting = list.items.iter().filter(|view| view.cluster.name() == cluster);
        let agents: Vec<_> = waiting.flat_map(|view| view.cluster.waiting().map(ClusterAgent::shown)).collect();
        decision::accept(&self.api, cluster, &agents).await.map_err(DemoError::Decision)
    }

    /// Waits until the cluster can be reached.
    pub(super) async fn available(&self, cluster: &ClusterName) -> Result<(), DemoError> {
        self.wait_for(cluster, |view| view.tunnel.available).await
    }

    /// A user who reaches every cluster; its credentials are in `folder`.
    pub(super) async fn create_user(&self, folder: &Path) -> Result<Credentials, DemoError> {
        let name = "demo".parse().expect("a user name");
        let new = user::New {
            name,
            admin: false,
            groups: Vec::new(),
            clusters: ClusterScope::All,
            validity: Duration::from_secs(86_400),
        };
        user::create(&self.api, &self.admin, new, folder).await.map_err(DemoError::User)
    }

    /// The table of 'cluster-proxy clusters'.
    pub(super) async fn table(&self) -> Result<String, DemoError> {
        let list = cluster_view::list(&self.api).await.map_err(DemoError::Call)?;
        Ok(clusters::table(&list.items, jiff::Timestamp::now()).render())
    }

    async fn wait_for(&self, cluster: &ClusterName, reached: impl Fn(&ClusterView) -> bool) -> Result<(), DemoError> {
        let deadline = Instant::now() + CLUSTER_DEADLINE;
        loop {
            let list = cluster_view::list(&self.api).await.map_err(DemoError::Call)?;
            if list.items.iter().any(|view| view.cluster.name() == cluster && reached(view)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(DemoError::Late(cluster.clone()));
            }
            sleep(LOOK_AGAIN).await;
        }
    }
}
