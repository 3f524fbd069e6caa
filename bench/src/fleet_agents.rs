//! The role of a fleet's agents: many real ones in one process, each with its own socket, back-off and state, as the library of
//! `proxy-agent`. As many processes would not fit on one machine; at the hub there is no difference.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use proxy_agent::policy::Policy;
use proxy_agent::{Agent, Config};
use serde::{Deserialize, Serialize};
use tests::{Process, allow_open_files};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::fleet::Fleet;
use crate::place::Place;
use crate::role::{self, Role};

/// Files of a process beside one for each agent or connection.
pub const OTHER_FILES: u64 = 256;

/// Agents that connect at a time at the start, so that a hub's memory is that of tunnels and not that of a storm.
const TOGETHER: usize = 32;

/// How long ten thousand agents may take to connect on a loaded machine.
const CONNECTED: Duration = Duration::from_secs(180);

/// The role: the agents of the clusters `first..first + count` of a fleet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FleetAgents {
    /// Where [`Fleet::prepare`] left the agents' state.
    pub fleet: PathBuf,
    /// The hub's tunnel port.
    pub hub: SocketAddr,
    /// The first agent.
    pub first: usize,
    /// How many.
    pub count: usize,
}

/// Printed when all agents have had a tunnel.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Connected {
    /// How many.
    pub agents: usize,
    /// How long that took, in seconds: one after the other, as fast as the machine can.
    pub seconds: f64,
}

impl FleetAgents {
    /// Starts one, and waits until all its agents are connected.
    pub async fn start(self) -> Result<(Process, Connected)> {
        // Each agent's socket has megabytes of buffers that stay untouched as long as they come fresh from the kernel
        // (mallopt(3), M_MMAP_THRESHOLD).
        let program = Role::FleetAgents(self).program(&Place::loopback())?.env("MALLOC_MMAP_THRESHOLD_", "131072");
        let process = program.spawn()?;
        let connected = process.stdout_json(CONNECTED).await.context("the agents do not connect")?;
        Ok((
            process,
            serde_json::from_value(connected)
                .context("what the agents' process printed is no report of its connections")?,
        ))
    }

    /// Plays the role until it is killed.
    pub async fn run(self) -> Result<()> {
        allow_open_files(self.count as u64 + OTHER_FILES)?;
        let fleet = Fleet::at(&self.fleet);
        let (mut bound, mut agents, mut connecting) = (Vec::new(), JoinSet::new(), JoinSet::new());
        for index in self.first..self.first + self.count {
            let mut config = Config::new(fleet.agent(index));
            config.hubs = vec![self.hub.to_string().parse()?];
            // The services of the measurements are on loopback, which is denied otherwise.
            config.policy = Policy::new(vec!["127.0.0.1/32".parse()?], Vec::new());
            bound.push(Agent::bind(config).await.with_context(|| format!("agent {index}"))?);
        }
        let start = Instant::now();
        for agent in bound {
            let mut readiness = agent.readiness();
            if connecting.len() >= TOGETHER {
                connecting.join_next().await;
            }
            connecting.spawn(async move { readiness.wait().await });
            agents.spawn(agent.run(CancellationToken::new(), CancellationToken::new()));
        }
        let connected = async { while connecting.join_next().await.is_some() {} };
        let ended = tokio::select! {
            () = connected => {
                role::say(&Connected { agents: self.count, seconds: start.elapsed().as_secs_f64() })?;
                agents.join_next().await
            }
            ended = agents.join_next() => ended,
        };
        bail!("an agent has ended: {ended:?}")
    }
}
