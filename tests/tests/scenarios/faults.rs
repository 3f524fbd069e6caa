//! Faults: what dies, freezes, stays away or runs full is seen as what it is, is got over, and loses nothing.

mod dials;
mod disk;
mod frozen;
mod handover;
mod kills;
mod rebinding;
mod restarts;
mod silence;

use std::time::Duration;

use anyhow::Result;
use tests::metrics::Metrics;
use tests::{Client, Hub, Spoke, wait_for, wait_until};

/// How long a state may take to come. Twice the 15 s after which a silent peer counts as gone.
const BOUND: Duration = Duration::from_secs(30);

/// Streams that the hub counts in the tunnels of `c1`.
async fn hub_streams(hub: &Hub) -> Result<f64> {
    Ok(Metrics::fetch(hub.addresses().metrics).await?.sum("proxy_server_streams", &[("cluster", "c1")]))
}

/// Streams that an agent counts.
async fn agent_streams(spoke: &Spoke) -> Result<f64> {
    Ok(Metrics::fetch(spoke.metrics()).await?.sum("proxy_agent_streams", &[]))
}

/// Waits until `c1` has that many agents with a tunnel.
async fn agents(hub: &Hub, count: u64) -> Result<()> {
    wait_until(BOUND, &format!("{count} agents"), async || {
        hub.cluster("c1").await.is_ok_and(|view| view["tunnel"]["agents"] == count)
    })
    .await
}

/// Dials until it works.
async fn dials_well(client: &Client, target: &str) -> Result<()> {
    wait_for(BOUND, "a dial that works", async || client.dial(target).await.map(drop)).await
}
