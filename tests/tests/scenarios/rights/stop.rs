//! The hub's stop: not ready, the live ones may finish, new ones are served meanwhile, the rest is cut.

use std::io;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tests::client::Connection;
use tests::{Fetch, Hub, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tunnel::{CloseReason, ConnectionLost};

use super::{BOUND, agent_of, carries};

#[tokio::test]
async fn a_live_connection_may_finish_while_new_ones_are_served() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "1h"]).start().await?;
    let agent = agent_of(&hub, "a").await?;
    let client = hub.client("a")?;
    let (mut connection, mut target) = agent.connect(&client, "target:80").await?;
    // Whoever has not asked for anything yet does not hold the stop up.
    let _idle = client.enter().await?;
    let mut half = client.enter().await?;
    half.write_all(&[5]).await?;

    hub.process().signal(Signal::SIGTERM)?;
    is_draining(&hub).await?;
    let (mut late, mut late_target) = agent.connect(&client, "late:80").await?;
    carries(&mut late, &mut late_target).await?;
    drop((late, late_target));
    ensure!(Fetch::get("/healthz").plain(hub.addresses().metrics).await?.status == 200, "not healthy");
    carries(&mut connection, &mut target).await?;

    connection.shutdown().await?;
    assert_eq!(timeout(BOUND, target.read(&mut [0])).await??, 0);
    target.write_all(b"last words").await?;
    target.shutdown().await?;
    let mut last = String::new();
    timeout(BOUND, connection.read_to_string(&mut last)).await??;
    assert_eq!(last, "last words");
    drop(connection);
    let loss = agent.lost().await?;
    assert!(matches!(loss, ConnectionLost::Closed { reason: CloseReason::HubStopping, .. }), "{loss:?}");
    hub.stopped().await
}

#[tokio::test]
async fn what_has_not_finished_at_the_deadline_is_cut() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "1s"]).start().await?;
    let agent = agent_of(&hub, "a").await?;
    let (mut connection, _target) = agent.connect(&hub.client("a")?, "target:80").await?;
    hub.process().signal(Signal::SIGTERM)?;
    is_cut(&mut connection).await?;
    hub.stopped().await
}

#[tokio::test]
async fn a_second_signal_cuts_at_once() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "1h"]).start().await?;
    let agent = agent_of(&hub, "a").await?;
    let (mut connection, mut target) = agent.connect(&hub.client("a")?, "target:80").await?;
    hub.process().signal(Signal::SIGINT)?;
    is_draining(&hub).await?;
    carries(&mut connection, &mut target).await?;
    hub.process().signal(Signal::SIGTERM)?;
    is_cut(&mut connection).await?;
    hub.stopped().await
}

#[tokio::test]
async fn a_right_that_is_withdrawn_during_the_drain_cuts_as_ever() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "1h"]).start().await?;
    let agent = agent_of(&hub, "a").await?;
    let (mut connection, _target) = agent.connect(&hub.client("a")?, "target:80").await?;
    hub.process().signal(Signal::SIGTERM)?;
    is_draining(&hub).await?;
    hub.deny("a").await?;
    is_cut(&mut connection).await?;
    hub.stopped().await
}

#[tokio::test]
async fn a_dial_that_was_under_way_is_answered() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "1h", "--dial-timeout", "60s"]).start().await?;
    let agent = agent_of(&hub, "a").await?;
    let client = hub.client("a")?;
    let (connection, target) = tokio::join!(client.dial("target:80"), async {
        let dial = agent.dial().await?;
        hub.process().signal(Signal::SIGTERM)?;
        is_draining(&hub).await?;
        Ok::<_, anyhow::Error>(dial.accept("192.0.2.1:80").await?)
    });
    let (mut connection, mut target) = (connection?, target?);
    carries(&mut connection, &mut target).await?;
    drop((connection, target));
    hub.stopped().await
}

async fn is_draining(hub: &Hub) -> Result<()> {
    wait_for(BOUND, "the hub not to be ready", async || {
        let answer = Fetch::get("/readyz").plain(hub.addresses().metrics).await?;
        ensure!(answer.status == 503, "{}", answer.status);
        Ok(())
    })
    .await
}

/// Demands that a connection breaks, and does not end as if all was said.
async fn is_cut(connection: &mut Connection) -> Result<()> {
    match timeout(BOUND, connection.read(&mut [0])).await.context("the connection is not cut")? {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        other => bail!("{other:?}"),
    }
}
