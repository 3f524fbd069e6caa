//! A hub whose registry is in etcd.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::hub::JoinTerms;
use tests::service::echo;
use tests::{Etcd, Hub, Spoke, wait_until};
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);

async fn hub_on(etcd: &Etcd) -> Result<Hub> {
    Hub::builder().args(["--store", "etcd", "--etcd-endpoint", &etcd.endpoint()]).start().await
}

#[tokio::test]
async fn a_cluster_that_joined_is_still_there_after_hub_and_etcd_were_killed() -> Result<()> {
    let mut etcd = Etcd::start().await?;
    let mut hub = hub_on(&etcd).await?;
    let terms = JoinTerms { auto_accept: false, ..JoinTerms::auto_accepted("c1") };
    let token = hub.create_token(&terms).await?;
    let accepted = async {
        wait_until(BOUND, "the cluster to ask", async || hub.cluster("c1").await.is_ok()).await?;
        hub.accept("c1").await
    };
    let (_spoke, ()) = tokio::try_join!(Spoke::of(&hub, "c1").token(&token).start(), accepted)?;
    let service = echo::start().await?;
    for kill_etcd in [false, true] {
        hub.kill().await?;
        if kill_etcd {
            etcd.kill().await?;
            etcd.start_again().await?;
        }
        hub.start_again().await?;
        wait_until(BOUND, "the agent to be back", async || hub.is_available("c1").await).await?;
        hub.client("c1")?.dial(&service.address().to_string()).await?;
    }
    ensure!(!hub.state().join("registry.redb").exists(), "the registry is in a file as well");
    Ok(())
}

#[tokio::test]
async fn while_etcd_is_away_clients_reach_their_clusters() -> Result<()> {
    let mut etcd = Etcd::start().await?;
    let hub = hub_on(&etcd).await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    etcd.kill().await?;
    hub.client("c1")?.dial(&service.address().to_string()).await?;
    let refused = hub.command(["deny", "c1"]).await?;
    ensure!(!refused.status.success(), "the change was acknowledged: {refused:?}");
    etcd.start_again().await?;
    hub.command(["deny", "c1"]).await?.success()?;
    Ok(())
}

#[tokio::test]
async fn while_etcd_hangs_a_new_tunnel_carries_bulk() -> Result<()> {
    const BYTES: usize = 64 << 20;
    let etcd = Etcd::start().await?;
    let hub = hub_on(&etcd).await?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    let target = service.address().to_string();
    etcd.process().signal(Signal::SIGSTOP)?;
    spoke.kill().await?;
    spoke.start_again().await?;
    wait_until(BOUND, "the agent's new tunnel", async || dials(&hub, &target).await).await?;
    let connection = hub.client("c1")?.dial(&target).await?;
    let (mut from, mut to) = tokio::io::split(connection);
    let sending = async {
        let piece = vec![7; 64 << 10];
        for _ in 0..BYTES / piece.len() {
            to.write_all(&piece).await?;
        }
        anyhow::Ok(to.shutdown().await?)
    };
    let receiving = async { anyhow::Ok(tokio::io::copy(&mut from, &mut tokio::io::sink()).await?) };
    let carried = timeout(BOUND, async { tokio::try_join!(sending, receiving) }).await.context("the transfer hangs");
    etcd.process().signal(Signal::SIGCONT)?;
    let ((), received) = carried??;
    ensure!(received == BYTES as u64, "{received} bytes of {BYTES} came back");
    wait_until(BOUND, "the registry to know of the agent", async || hub.is_available("c1").await).await
}

async fn dials(hub: &Hub, target: &str) -> bool {
    match hub.client("c1") {
        Ok(client) => client.dial(target).await.is_ok(),
        Err(_) => false,
    }
}
