//! Dials that get no answer end at their deadline, or with their client, and leave nothing behind.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::client::DialError;
use tests::metrics::Metrics;
use tests::service::{black_hole, echo};
use tests::{Client, Hub, Spoke, wait_until};
use tokio::task::JoinSet;

use super::{BOUND, agent_streams, dials_well, hub_streams};

/// Longer than any wait of these scenarios: what ends before was ended by something else.
const FAR_DEADLINE: &str = "300s";

/// The open files of hub and agent when nothing is going on, after they have worked once.
async fn files_at_rest(hub: &Hub, spoke: &Spoke) -> Result<[usize; 2]> {
    let service = echo::start().await?;
    dials_well(&hub.client("c1")?, &service.address().to_string()).await?;
    wait_until(BOUND, "the target to be left", async || service.open() == 0).await?;
    assert_nothing_open(hub, spoke).await?;
    Ok([hub.process().open_files()?, spoke.process().open_files()?])
}

async fn assert_nothing_open(hub: &Hub, spoke: &Spoke) -> Result<()> {
    wait_until(BOUND, "no stream at the hub", async || hub_streams(hub).await.is_ok_and(|streams| streams == 0.0))
        .await?;
    wait_until(BOUND, "no connection at the hub", async || {
        let metrics = Metrics::fetch(hub.addresses().metrics).await;
        metrics.is_ok_and(|metrics| metrics.sum("proxy_server_connections", &[]) == 0.0)
    })
    .await?;
    wait_until(BOUND, "no stream at the agent", async || agent_streams(spoke).await.is_ok_and(|streams| streams == 0.0))
        .await
}

async fn assert_nothing_left(hub: &Hub, spoke: &Spoke, files: [usize; 2]) -> Result<()> {
    assert_nothing_open(hub, spoke).await?;
    wait_until(BOUND, "the files at rest", async || {
        let now = [hub.process().open_files(), spoke.process().open_files()];
        matches!(now, [Ok(hub), Ok(agent)] if hub <= files[0] && agent <= files[1])
    })
    .await
}

#[tokio::test]
async fn dials_into_a_black_hole_end_at_their_deadline_and_leave_nothing() -> Result<()> {
    const DIALS: usize = 50;
    let hub = Hub::builder().args(["--dial-timeout", "2s"]).start().await?;
    let spoke = Spoke::of(&hub, "c1").start().await?;
    let files = files_at_rest(&hub, &spoke).await?;
    let hole = black_hole::start().await?;
    let target = hole.address()?.to_string();
    let start = Instant::now();
    let mut dials = JoinSet::new();
    for count in 0..DIALS {
        let client = hub.client("c1")?;
        let (client, target) = (if count % 2 == 0 { client } else { client.socks5() }, target.clone());
        dials.spawn(async move { client.dial(&target).await.err() });
    }
    while let Some(dialled) = dials.join_next().await {
        match dialled? {
            // RFC 1928 knows "TTL expired" for what took too long.
            Some(DialError::Status { status: 504, .. } | DialError::Reply { reply: 6 }) => {}
            other => anyhow::bail!("a dial into a black hole gave {other:?}"),
        }
    }
    let took = start.elapsed();
    eprintln!("{DIALS} dials with a deadline of 2 s took {took:?}");
    ensure!(took >= Duration::from_secs(1) && took < BOUND);
    assert_nothing_left(&hub, &spoke, files).await?;
    ensure!(dials_of(&spoke, "timed_out").await? > 0.0, "the agent did not notice");
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_dial() -> Result<()> {
    let hub = Hub::builder().args(["--dial-timeout", FAR_DEADLINE]).start().await?;
    let spoke = Spoke::of(&hub, "c1").start().await?;
    let files = files_at_rest(&hub, &spoke).await?;
    let hole = black_hole::start().await?;
    let target = hole.address()?.to_string();
    let entries: [Client; 2] = [hub.client("c1")?, hub.client("c1")?.socks5()];
    for (count, client) in (1_u32..).zip(entries) {
        let mut dial = Box::pin(client.dial(&target));
        let pending =
            wait_until(BOUND, "the agent's dial", async || agent_streams(&spoke).await.is_ok_and(|open| open == 1.0));
        tokio::select! {
            dialled = &mut dial => anyhow::bail!("a dial into a black hole gave {:?}", dialled.err()),
            pending = pending => pending?,
        }
        // Closes the client's connection.
        drop(dial);
        wait_until(BOUND, "the agent's dial to be cancelled", async || {
            dials_of(&spoke, "cancelled").await.is_ok_and(|cancelled| cancelled == f64::from(count))
        })
        .await?;
        assert_nothing_left(&hub, &spoke, files).await?;
    }
    Ok(())
}

/// How many dials of an agent have ended so.
async fn dials_of(spoke: &Spoke, result: &str) -> Result<f64> {
    Ok(Metrics::fetch(spoke.metrics()).await?.sum("proxy_agent_dials_total", &[("result", result)]))
}
