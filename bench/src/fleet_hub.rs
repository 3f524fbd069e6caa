//! A fleet's hub: a real hub, and the agents that are registered at it.

use std::fs;
use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;
use tests::metrics::Metrics;
use tests::{Hub, Process, allow_open_files};

use crate::cpu;
use crate::fleet::Fleet;
use crate::fleet_agents::{Connected, FleetAgents, OTHER_FILES};
use crate::report;
use crate::route::Route;

/// Connections that a hub allows to one user and to one cluster here.
const CAP: &str = "20000";

/// Below those that the kernel gives to the agents' sockets.
const TUNNEL: u16 = 8091;

/// A hub with a fleet.
#[derive(Debug)]
pub struct FleetHub {
    /// The real `proxy-server`.
    pub hub: Hub,
    folder: TempDir,
}

impl FleetHub {
    /// A hub that knows `clusters` clusters of one agent each, none of them connected, and has files for `connections`.
    pub async fn start(clusters: usize, connections: usize) -> Result<Self> {
        // The hub inherits it.
        allow_open_files(connections as u64 + OTHER_FILES)?;
        let caps = [
            "--max-connections-per-user",
            CAP,
            "--max-connections-per-cluster",
            CAP,
            "--max-connections-per-user-per-cluster",
            CAP,
        ];
        let hub = Hub::builder().args(caps).tunnel_port(TUNNEL).after_shell(&report::log_to("hub")?).quiet();
        let mut hub = hub.start().await?;
        hub.stop().await?;
        let folder = TempDir::new()?;
        Fleet::prepare(hub.state(), folder.path(), clusters).await?;
        hub.start_again().await?;
        Ok(Self { hub, folder })
    }

    /// Where the agents' state is.
    pub fn fleet(&self) -> std::path::PathBuf {
        self.folder.path().to_owned()
    }

    /// Connects the agents `first..first + count`, until the process is dropped.
    pub async fn connect(&self, first: usize, count: usize) -> Result<Process> {
        Ok(self.connect_timed(first, count).await?.0)
    }

    /// The same, and how long it took them.
    pub async fn connect_timed(&self, first: usize, count: usize) -> Result<(Process, Connected)> {
        let hub = self.hub.addresses().tunnel;
        FleetAgents { fleet: self.fleet(), hub, first, count }.start().await
    }

    /// The way to `target` through cluster `index`.
    pub fn route(&self, index: usize, target: std::net::SocketAddr) -> Result<Route> {
        let login = Some((Fleet::cluster(index), self.hub.credentials().token()?));
        Ok(Route::Connect { proxy: self.hub.addresses().proxy.to_string(), target, login })
    }

    /// Resident memory of the hub in KiB.
    pub fn memory(&self) -> Result<f64> {
        Ok(self.hub.process().resident_bytes()? as f64 / 1024.0)
    }

    /// CPU seconds that the hub has used.
    pub fn cpu(&self) -> Result<f64> {
        cpu::seconds(&[self.hub.process().pid().as_raw()])
    }

    /// Share of a core that the hub uses, over `window`.
    pub async fn load(&self, window: Duration) -> Result<f64> {
        let before = self.cpu()?;
        tokio::time::sleep(window).await;
        Ok((self.cpu()? - before) / window.as_secs_f64())
    }

    /// What the hub counts. A page of ten thousand clusters is work for the hub: not for every look.
    pub async fn metrics(&self) -> Result<Metrics> {
        Metrics::fetch(self.hub.addresses().metrics).await
    }

    /// Tunnels that the hub has opened since its start: its log tells, at no cost to it.
    pub fn opened(&self) -> Result<usize> {
        let log = fs::read_to_string(report::folder()?.join("hub.log"))?;
        Ok(log.lines().filter(|line| line.contains("tunnel opened")).count())
    }
}
