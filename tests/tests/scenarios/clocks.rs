//! A hub whose clock is wrong: what it has made and what others have made for it stays good, or the clock is what is told.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use tests::service::echo;
use tests::{Credentials, Hub, Spoke, clock, wait_for, wait_until};

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);

async fn user(hub: &Hub, folder: &Path) -> Result<Credentials> {
    let out = folder.join("alice");
    let words = ["user", "create", "alice", "--all-clusters", "--validity", "30d", "--out"];
    hub.command(words.into_iter().chain([out.to_str().context("a path")?])).await?.success()?;
    Ok(Credentials::at(out))
}

#[tokio::test]
async fn a_hub_whose_clock_is_hours_wrong_keeps_nobody_out() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("clock");
    let mut hub = Hub::builder().after_shell(&clock::read_from(&file)?).start().await?;
    clock::set(&file, "+6h")?;
    hub.restart().await?;
    // Made by a clock that is fast, and shown to one that is right, and to one that is slow.
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    let alice = user(&hub, folder.path()).await?;
    let service = echo::start().await?;
    for offset in ["+0", "-6h"] {
        clock::set(&file, offset)?;
        hub.restart().await?;
        spoke.kill().await?;
        spoke.start_again().await?;
        wait_until(BOUND, "the agent to be back", async || hub.is_available("c1").await).await?;
        hub.client("c1")?.dial(&service.address().to_string()).await?;
        hub.operator(&alice)?.arg("clusters").run(BOUND).await?.success()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_clock_that_is_months_fast_is_told_as_that() -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("clock");
    let hub = Hub::builder().after_shell(&clock::read_from(&file)?).start().await?;
    let alice = user(&hub, folder.path()).await?;
    hub.operator(&alice)?.arg("clusters").run(BOUND).await?.success()?;
    clock::set(&file, "+40d")?;
    wait_for(BOUND, "the hub to refuse what has ended by its clock", async || {
        let told = hub.operator(&alice)?.arg("clusters").run(BOUND).await?;
        ensure!(!told.status.success() && told.stderr.contains("one of the two clocks is wrong"), "{told:?}");
        Ok(())
    })
    .await
}
