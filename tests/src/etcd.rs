//! A real etcd of one member on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use crate::{Fetch, Process, loopback, tool, wait_until};

/// How long etcd may take to be ready on a loaded machine.
const START: Duration = Duration::from_secs(60);

/// A running etcd. It is killed and its data removed when dropped.
#[derive(Debug)]
pub struct Etcd {
    process: Process,
    clients: SocketAddr,
    peers: SocketAddr,
    folder: TempDir,
}

impl Etcd {
    /// Starts it and waits until it is ready.
    pub async fn start() -> Result<Self> {
        let folder = TempDir::new().context("no temporary folder for etcd")?;
        let address = loopback::unused();
        let (clients, peers) = ((address, 2379).into(), (address, 2380).into());
        let process = launch(clients, peers, &folder)?;
        ready(clients).await?;
        Ok(Self { process, clients, peers, folder })
    }

    /// As `--etcd-endpoint` takes it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.clients)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills it at once.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Starts it again on what it has written, and waits until it is ready.
    pub async fn start_again(&mut self) -> Result<()> {
        self.begin_again()?;
        ready(self.clients).await
    }

    /// As [`Self::start_again`], and waits for nothing.
    pub fn begin_again(&mut self) -> Result<()> {
        self.process = launch(self.clients, self.peers, &self.folder)?;
        Ok(())
    }

    /// Whether its process has not ended.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process.is_running()
    }
}

fn launch(clients: SocketAddr, peers: SocketAddr, folder: &TempDir) -> Result<Process> {
    tool::etcd()?
        .arg(format!("--data-dir={}", folder.path().join("data").display()))
        .args([format!("--listen-client-urls=http://{clients}"), format!("--advertise-client-urls=http://{clients}")])
        .args([format!("--listen-peer-urls=http://{peers}"), format!("--initial-advertise-peer-urls=http://{peers}")])
        .arg(format!("--initial-cluster=default=http://{peers}"))
        .spawn()
}

async fn ready(clients: SocketAddr) -> Result<()> {
    wait_until(START, "etcd to be ready", async || {
        Fetch::get("/health").plain(clients).await.is_ok_and(|answer| answer.status.is_success())
    })
    .await
}
