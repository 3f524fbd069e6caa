//! A spoke of the demonstration: an agent in this process, and the little service that it alone lets the hub reach.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use certs::{AgentName, ClusterName};
use proxy_agent::{Config, JoinConfig, policy::Policy};
use registry::api::{HubStatus, TokenCreated};

use super::{DemoError, Stage, service};
use crate::failure::{Exit, Failure, complain};

/// For the hub to decide about a join.
const JOIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Streams still open when the demonstration ends are cut after this.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);

/// A spoke, before its agent has joined.
#[derive(Debug)]
pub(super) struct Spoke {
    pub(super) cluster: ClusterName,
    pub(super) agent: AgentName,
    /// Where the agent keeps its key.
    pub(super) state: PathBuf,
    /// As only the spoke's own agent may dial it.
    pub(super) service: SocketAddr,
}

impl Spoke {
    /// A spoke with its service running.
    pub(super) async fn start(cluster: &str, state: PathBuf, stage: &Stage) -> Result<Self, DemoError> {
        let service = service::start(cluster, stage).await.map_err(DemoError::Service)?;
        let cluster = cluster.parse().expect("a cluster name");
        Ok(Self { cluster, agent: "agent-1".parse().expect("an agent name"), state, service })
    }

    /// Joins, as 'proxy-agent join' does; ends when the cluster is accepted.
    pub(super) async fn join(&self, hub: &HubStatus, token: TokenCreated) -> Result<(), DemoError> {
        let addresses: Result<Vec<_>, _> = hub.agent_addresses.iter().map(|address| address.parse()).collect();
        let join = JoinConfig {
            state: self.state.clone(),
            hubs: addresses.map_err(DemoError::HubAddress)?,
            token: token.token,
            pin: hub.pin.parse().map_err(DemoError::Pin)?,
            cluster: Some(self.cluster.clone()),
            agent: self.agent.clone(),
            timeout: JOIN_TIMEOUT,
        };
        let joined = proxy_agent::join(&join, |_| {}).await;
        joined.map(drop).map_err(|source| DemoError::Join { cluster: self.cluster.clone(), source: Box::new(source) })
    }

    /// Runs the agent, as 'proxy-agent run --allow 127.0.0.1:PORT' does, on `stage`.
    pub(super) fn run(&self, stage: &Stage) -> Result<(), DemoError> {
        let rule = self.service.to_string().parse().map_err(DemoError::Rule)?;
        let mut config = Config::new(&self.state);
        config.policy = Policy::new(vec![rule], Vec::new());
        config.drain_timeout = DRAIN_TIMEOUT;
        let running = proxy_agent::run(config, stage.stop.clone());
        let cluster = self.cluster.clone();
        stage.tasks.spawn(async move {
            if let Err(error) = running.await {
                complain(&Failure::new(Exit::Other, error).next(format!("the agent of {cluster} has ended")).line());
            }
        });
        Ok(())
    }
}
