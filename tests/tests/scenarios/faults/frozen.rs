//! An agent that is frozen (SIGSTOP): its dials end at their deadline, others take over, and thawed it serves again.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tests::client::DialError;
use tests::service::echo;
use tests::{Hub, Spoke, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{BOUND, agents, dials_well};

#[tokio::test]
async fn another_agent_takes_over_and_a_thawed_one_serves_again() -> Result<()> {
    let hub = Hub::builder().args(["--dial-timeout", "2s"]).start().await?;
    let frozen = Spoke::of(&hub, "c1").agent("first").start().await?;
    let mut other = Spoke::of(&hub, "c1").agent("second").start().await?;
    agents(&hub, 2).await?;
    let service = echo::start().await?;
    let (client, target) = (hub.client("c1")?, service.address().to_string());
    // One connection through each: the second dial takes the agent with fewer streams.
    let mut before = [client.dial(&target).await?, client.dial(&target).await?];

    frozen.process().signal(Signal::SIGSTOP)?;
    let (mut late, mut served) = (0, 0);
    while served < 10 {
        let start = Instant::now();
        match client.dial(&target).await {
            Ok(_) => served += 1,
            Err(DialError::Status { status: 504, .. }) => late += 1,
            Err(error) => return Err(error).context("a dial during the freeze"),
        }
        ensure!(start.elapsed() < BOUND, "a dial has not ended at its deadline");
        ensure!(late <= 1, "{late} dials ran into the frozen agent, and each could have been the last that did");
    }
    eprintln!("{late} dial(s) ran into the frozen agent, then {served} were served by the other");

    frozen.process().signal(Signal::SIGCONT)?;
    for connection in &mut before {
        connection.write_all(b"still here").await?;
        let mut echo = [0; 10];
        timeout(BOUND, connection.read_exact(&mut echo)).await.context("an old connection is stuck")??;
        ensure!(&echo == b"still here");
    }
    drop(before);
    other.stop().await?;
    dials_well(&client, &target).await
}

#[tokio::test]
async fn an_agent_frozen_for_long_is_away_until_it_thaws() -> Result<()> {
    let hub = Hub::builder().args(["--dial-timeout", "2s"]).start().await?;
    let spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    let (client, target) = (hub.client("c1")?, service.address().to_string());
    dials_well(&client, &target).await?;
    spoke.process().signal(Signal::SIGSTOP)?;
    let late = client.dial(&target).await.err();
    ensure!(matches!(late, Some(DialError::Status { status: 504, .. })), "{late:?}");
    let start = Instant::now();
    wait_until(BOUND, "the frozen agent to be away", async || !hub.is_available("c1").await).await?;
    eprintln!("a frozen agent was away after {:?}", start.elapsed());
    let away = client.dial(&target).await.err();
    ensure!(
        matches!(&away, Some(DialError::Status { status: 503, body, .. }) if body.contains("last seen")),
        "{away:?}"
    );
    spoke.process().signal(Signal::SIGCONT)?;
    let start = Instant::now();
    dials_well(&client, &target).await?;
    eprintln!("a thawed agent served after {:?}", start.elapsed());
    Ok(())
}
