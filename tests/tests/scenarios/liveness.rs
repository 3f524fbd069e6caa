//! What the registry says of who is there, when the store or the hub was away as it happened.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use certs::shown_time;
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Etcd, Hub, Spoke, wait_until};
use tokio::time::sleep;

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);

/// How long the store is away: longer than the registry tries one commit.
const AWAY: Duration = Duration::from_secs(13);

/// Whether the registry, and not the hub by its tunnels, says that the cluster is available.
fn recorded(cluster: &Value) -> bool {
    let conditions = cluster["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().any(|said| said["type"] == "ManagedClusterConditionAvailable" && said["status"] == "True")
}

/// To the second, and as text in the order of time.
fn last_seen(cluster: &Value) -> Result<String> {
    let text = cluster["tunnel"]["lastSeen"].as_str().context("never seen")?;
    Ok(text.split(['.', 'Z']).next().unwrap_or_default().to_owned())
}

async fn is_recorded(hub: &Hub, available: bool) -> bool {
    hub.cluster("c1").await.is_ok_and(|cluster| recorded(&cluster) == available)
}

#[tokio::test]
async fn what_happened_while_the_store_was_away_is_recorded_when_it_is_back() -> Result<()> {
    let mut etcd = Etcd::start().await?;
    let hub = Hub::builder().args(["--store", "etcd", "--etcd-endpoint", &etcd.endpoint()]).start().await?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    wait_until(BOUND, "the registry to know of the agent", async || is_recorded(&hub, true).await).await?;
    for comes_back in [false, true] {
        etcd.kill().await?;
        let away = Instant::now();
        if comes_back {
            spoke.start_again().await?
        } else {
            spoke.stop().await?
        }
        let left = last_seen(&hub.cluster("c1").await?)?;
        let mut newest = left.clone();
        while away.elapsed() < AWAY {
            let seen = last_seen(&hub.cluster("c1").await?)?;
            ensure!(seen >= newest, "last seen went back from {newest} to {seen}");
            newest = seen;
            sleep(Duration::from_millis(100)).await;
        }
        etcd.start_again().await?;
        let back = Instant::now();
        wait_until(Duration::from_secs(15), "the registry to say what is true", async || {
            is_recorded(&hub, comes_back).await
        })
        .await?;
        eprintln!("true {:?} after the store was back", back.elapsed());
        let seen = last_seen(&hub.cluster("c1").await?)?;
        ensure!(seen >= left, "the agent was there at {left}, and is said to have been at {seen}");
    }
    Ok(())
}

#[tokio::test]
async fn last_seen_does_not_go_back_when_an_agent_leaves_or_the_hub_is_killed() -> Result<()> {
    let mut hub = Hub::start().await?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    sleep(Duration::from_secs(2)).await;
    let there = hub.cluster("c1").await?;
    assert_eq!(
        there["status"]["agents"][0]["lastSeen"], there["tunnel"]["lastSeen"],
        "a cluster is seen when its agent is"
    );
    let before = last_seen(&hub.cluster("c1").await?)?;
    // The hub knows to ten seconds when it was there last.
    sleep(Duration::from_secs(12)).await;
    hub.kill().await?;
    spoke.kill().await?;
    hub.start_again().await?;
    let after = last_seen(&hub.cluster("c1").await?)?;
    ensure!(after >= before, "last seen went back from {before} to {after}");
    wait_until(BOUND, "the registry to know that the agent is away", async || is_recorded(&hub, false).await).await?;
    let recorded = last_seen(&hub.cluster("c1").await?)?;
    ensure!(recorded >= after, "last seen went back from {after} to {recorded}");
    spoke.start_again().await?;
    wait_until(BOUND, "the agent to be back", async || hub.is_available("c1").await).await?;
    sleep(Duration::from_secs(2)).await;
    let mut newest = last_seen(&hub.cluster("c1").await?)?;
    spoke.stop().await?;
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        let seen = last_seen(&hub.cluster("c1").await?)?;
        ensure!(seen >= newest, "last seen went back from {newest} to {seen}");
        newest = seen;
    }
    Ok(())
}

#[tokio::test]
async fn an_agent_that_has_fallen_silent_was_seen_when_it_was_heard_of() -> Result<()> {
    let hub = Hub::start().await?;
    let spoke = Spoke::of(&hub, "c1").start().await?;
    spoke.process().signal(Signal::SIGSTOP)?;
    // A look may come a second after the word that it has seen.
    let latest = shown_time(SystemTime::now() + Duration::from_secs(2));
    wait_until(BOUND, "the hub to notice", async || !hub.is_available("c1").await).await?;
    let cluster = hub.cluster("c1").await?;
    for seen in [&cluster["tunnel"]["lastSeen"], &cluster["status"]["agents"][0]["lastSeen"]] {
        let seen = seen.as_str().context("never seen")?;
        ensure!(seen <= latest.as_str(), "it was frozen before {latest}, and is said to have been there at {seen}");
    }
    Ok(())
}
