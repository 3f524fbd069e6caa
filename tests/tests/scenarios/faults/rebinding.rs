//! A NAT that gives an agent another address in mid-connection costs neither a stream nor the tunnel.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use tests::metrics::Metrics;
use tests::pattern::Pattern;
use tests::service::echo;
use tests::{Client, Hub, Nat, Spoke};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use super::BOUND;

/// More than is under way at any time, so that each half is still being carried when the next begins.
const HALF: usize = 8 << 20;
/// The outer addresses that follow the first: another address, another port of it, and back.
const OUTER: [Ipv4Addr; 3] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST];

/// Sends a stream to a target that echoes and compares what comes back, with a rebinding in its middle.
async fn echo_over_a_rebinding(client: &Client, echo: SocketAddr, nat: &Nat, outer: Ipv4Addr, seed: u64) -> Result<()> {
    let connection = client.dial(&echo.to_string()).await.context("no new stream")?;
    let (mut reader, mut writer) = tokio::io::split(connection);
    let pattern = Pattern::new(seed, 2 * HALF as u64);
    let bytes = pattern.to_vec();
    let write = async {
        writer.write_all(&bytes[..HALF]).await?;
        nat.rebind(outer);
        writer.write_all(&bytes[HALF..]).await?;
        anyhow::Ok(writer.shutdown().await?)
    };
    let read = async { Ok(pattern.read_bytes(&mut reader).await.map(drop)?) };
    let both = async { tokio::try_join!(write, read) };
    timeout(BOUND, both).await.context("the stream stands still after the rebinding")??;
    Ok(())
}

/// Demands that the tunnel is the one that there was at first.
async fn assert_same_tunnel(hub: &Hub) -> Result<()> {
    let metrics = Metrics::fetch(hub.addresses().metrics).await?;
    let opened = metrics.sum("proxy_server_tunnels_opened_total", &[]);
    let closed = metrics.sum("proxy_server_tunnels_closed_total", &[]);
    ensure!((opened, closed) == (1.0, 0.0), "{opened} tunnels were opened and {closed} closed");
    Ok(())
}

#[tokio::test]
async fn an_open_stream_goes_on_byte_for_byte_and_new_ones_open_after_a_nat_rebinds() -> Result<()> {
    let hub = Hub::start().await?;
    let nat = Nat::start(hub.addresses().tunnel).await?;
    let _spoke = Spoke::of(&hub, "c1").via(nat.address()).start().await?;
    let (client, service) = (hub.client("c1")?, echo::start().await?);
    for (seed, outer) in (1..).zip(OUTER) {
        echo_over_a_rebinding(&client, service.address(), &nat, outer, seed).await?;
        assert_same_tunnel(&hub).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_dial_over_a_tunnel_that_was_rebound_while_idle_is_served() -> Result<()> {
    let hub = Hub::start().await?;
    let nat = Nat::start(hub.addresses().tunnel).await?;
    let _spoke = Spoke::of(&hub, "c1").via(nat.address()).start().await?;
    let (client, service) = (hub.client("c1")?, echo::start().await?);
    for outer in OUTER {
        // The hub still sends to the old address: the agent's keep-alive shows it the new one well within the dial's deadline.
        nat.rebind(outer);
        client.dial(&service.address().to_string()).await.context("a dial after an idle rebinding")?;
        assert_same_tunnel(&hub).await?;
    }
    Ok(())
}
