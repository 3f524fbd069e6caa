//! Hubs and agents that go and come back find each other again.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use tests::client::DialError;
use tests::metrics::Metrics;
use tests::service::echo;
use tests::{Fetch, Hub, Spoke, wait_until};
use tokio::time::sleep;

use super::{BOUND, dials_well};

/// 2 s are promised after a restart, on a machine that has time for it.
const RECONNECT: Duration = Duration::from_secs(5);
/// What is silent for 15 s is gone.
const SILENT: Duration = Duration::from_secs(25);

/// Measures from the hub's readiness.
async fn reconnects(hub: &Hub, bound: Duration) -> Result<Duration> {
    let start = Instant::now();
    wait_until(bound, "the agent to be back", async || hub.is_available("c1").await).await?;
    Ok(start.elapsed())
}

#[tokio::test]
async fn agents_are_back_soon_after_the_hubs_restart() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "1s"]).start().await?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    for _ in 0..3 {
        hub.restart().await?;
        let took = reconnects(&hub, RECONNECT).await?;
        eprintln!("back {took:?} after the restarted hub was ready");
        dials_well(&hub.client("c1")?, &service.address().to_string()).await?;
    }
    ensure!(spoke.is_running()?, "the agent has ended");
    Ok(())
}

#[tokio::test]
async fn agents_are_back_soon_after_the_hub_was_killed() -> Result<()> {
    // A killed hub says nothing. The next one answers the agents' keep-alive with a stateless reset.
    const KEEP_ALIVE: Duration = Duration::from_secs(2);
    let mut hub = Hub::start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    for _ in 0..2 {
        hub.kill().await?;
        hub.start_again().await?;
        let took = reconnects(&hub, KEEP_ALIVE + RECONNECT).await?;
        eprintln!("back {took:?} after the hub that follows a killed one was ready");
        dials_well(&hub.client("c1")?, &service.address().to_string()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn agents_wait_for_a_hub_that_is_away() -> Result<()> {
    // The absence itself is what this waits for. It is longer than the time after which a silent tunnel is gone.
    const AWAY: Duration = Duration::from_secs(20);
    let mut hub = Hub::start().await?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    hub.kill().await?;
    let gone = Instant::now();
    wait_until(BOUND, "the agent to say that its hub is away", async || !is_ready(&spoke).await).await?;
    eprintln!("an agent said after {:?} that its hub was away", gone.elapsed());
    sleep(AWAY.saturating_sub(gone.elapsed())).await;
    ensure!(spoke.is_running()?, "the agent has given up");
    hub.start_again().await?;
    let took = reconnects(&hub, RECONNECT).await?;
    eprintln!("back {took:?} after a hub that had been away for {AWAY:?} was ready");
    wait_until(BOUND, "the agent to be ready", async || is_ready(&spoke).await).await
}

async fn is_ready(spoke: &Spoke) -> bool {
    Fetch::get("/readyz").plain(spoke.metrics()).await.is_ok_and(|answer| answer.status.is_success())
}

#[tokio::test]
async fn a_dead_agent_is_soon_seen_as_away_and_back_as_soon_as_it_lives() -> Result<()> {
    let hub = Hub::start().await?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    spoke.kill().await?;
    let start = Instant::now();
    wait_until(SILENT, "the dead agent to be away", async || !hub.is_available("c1").await).await?;
    eprintln!("a killed agent was away after {:?}", start.elapsed());
    let away = hub.client("c1")?.dial("127.0.0.1:1").await.err();
    ensure!(
        matches!(&away, Some(DialError::Status { status: 503, body, .. }) if body.contains("last seen")),
        "{away:?}"
    );
    spoke.start_again().await?;
    ensure!(hub.is_available("c1").await, "the agent is ready and the hub does not know");
    Ok(())
}

#[tokio::test]
async fn a_stopping_agent_is_away_at_once() -> Result<()> {
    let hub = Hub::start().await?;
    let spoke = Spoke::of(&hub, "c1").start().await?;
    spoke.process().signal(Signal::SIGTERM)?;
    wait_until(RECONNECT, "the stopped agent to be away", async || !hub.is_available("c1").await).await
}

/// A hub has no other to dial meanwhile, or has one and leaves the agent that drains alone.
#[tokio::test]
async fn an_agent_that_drains_serves_until_there_is_another() -> Result<()> {
    let hub = Hub::start().await?;
    let first = Spoke::of(&hub, "c1").agent("first").start().await?;
    let service = echo::start().await?;
    let address = service.address().to_string();
    let client = hub.client("c1")?;
    let dials = async |spoke: &Spoke| {
        let metrics = Metrics::fetch(spoke.metrics()).await?;
        anyhow::Ok(metrics.sum("proxy_agent_dials_total", &[("result", "connected")]))
    };
    let held = client.dial(&address).await?;
    first.process().signal(Signal::SIGTERM)?;
    wait_until(BOUND, "the agent to drain", async || !is_ready(&first).await).await?;
    client.dial(&address).await?;
    ensure!(hub.is_available("c1").await, "an agent that serves is away");

    let second = Spoke::of(&hub, "c1").agent("second").start().await?;
    client.dial(&address).await?;
    ensure!((dials(&first).await?, dials(&second).await?) == (2.0, 1.0), "the wrong agent was dialled");
    drop(held);
    Ok(())
}
