//! Backups, and what a hub says when a part of its state is lost or damaged: it leads to recovery, never to a hub that knows nobody.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::hub::{ClusterAccess, JoinTerms};
use tests::service::echo;
use tests::{Finished, Hub, Program, Spoke, wait_until};

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);

const STORE: &str = "registry.redb";

/// Bits that are flipped, one for each start.
const FLIPS: usize = 24;

/// How long a start may take that does not fail: the flipped bit was one that nobody reads.
const STARTED: Duration = Duration::from_secs(3);

/// A start of this hub that must fail.
async fn fails_to_start(hub: &Hub) -> Result<Finished> {
    let finished = hub.program()?.run(BOUND).await?;
    ensure!(finished.status.code() == Some(1), "{finished:?}");
    Ok(finished)
}

async fn restore(backup: &Path, state: &Path) -> Result<Finished> {
    Program::of_workspace("cluster-proxy")?.arg("restore").arg(backup).arg("--state").arg(state).run(BOUND).await
}

#[tokio::test]
async fn a_hub_that_lost_its_state_goes_on_with_its_backup() -> Result<()> {
    let mut hub = Hub::start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let alice = hub.create_user("alice", &ClusterAccess::All).await?;
    let service = echo::start().await?;
    let target = service.address().to_string();
    let folder = tempfile::tempdir()?;
    let backup = folder.path().join("hub.backup");
    let made = hub.command(["backup", backup.to_str().context("a path of the test")?]).await?.success()?;
    ensure!(made.contains("1 clusters and 2 users"), "{made}");
    ensure!(fs::metadata(&backup)?.permissions().mode() & 0o777 == 0o600);
    let again = hub.command(["backup", backup.to_str().context("a path of the test")?]).await?;
    ensure!(!again.status.success() && again.stderr.contains("is there already"), "{again:?}");
    let refused = hub.operator(&alice)?.arg("backup").arg(folder.path().join("alice")).run(BOUND).await?;
    ensure!(!refused.status.success() && !folder.path().join("alice").exists(), "{refused:?}");

    let in_use = restore(&backup, hub.state()).await?;
    ensure!(!in_use.status.success() && in_use.stderr.contains("in use"), "{in_use:?}");
    ensure!(hub.is_available("c1").await, "the hub was harmed");

    hub.kill().await?;
    for name in [STORE, "ca.crt", "ca.key", "reset.key"] {
        fs::remove_file(hub.state().join(name))?;
    }
    let damaged = folder.path().join("damaged");
    let mut text = fs::read(&backup)?;
    let middle = text.len() / 2;
    text[middle] ^= 1;
    fs::write(&damaged, text)?;
    let refused = restore(&damaged, hub.state()).await?;
    ensure!(!refused.status.success() && !hub.state().join(STORE).exists(), "{refused:?}");

    restore(&backup, hub.state()).await?.success()?;
    hub.start_again().await?;
    wait_until(BOUND, "the agent to be back", async || hub.is_available("c1").await).await?;
    hub.client("c1")?.dial(&target).await?;
    let entry = tests::client::Entry::Plain(hub.addresses().proxy);
    tests::Client::new(entry).cluster("c1", &alice.token()?).dial(&target).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_missing_is_told_with_the_way_to_recover() -> Result<()> {
    let mut hub = Hub::start().await?;
    hub.create_token(&JoinTerms::auto_accepted("c1")).await?;
    let pin = hub.addresses().pin.clone();
    hub.kill().await?;
    let advice = format!("cluster-proxy restore BACKUP --state {}", hub.state().display());
    for missing in [&[STORE][..], &["ca.key"], &["ca.crt"], &["ca.key", "ca.crt"]] {
        let away = tempfile::tempdir_in(hub.state())?;
        for name in missing {
            fs::rename(hub.state().join(name), away.path().join(name))?;
        }
        let told = fails_to_start(&hub).await?.stderr;
        ensure!(told.contains(&advice), "{told}");
        ensure!(!told.contains("start with a new CA") && !told.contains("to have a new one made"), "{told}");
        for name in missing {
            ensure!(missing.len() > 1 || told.contains(name), "{told}");
            ensure!(!hub.state().join(name).exists(), "a new {name} was made");
            fs::rename(away.path().join(name), hub.state().join(name))?;
        }
    }
    hub.start_again().await?;
    ensure!(hub.addresses().pin == pin);
    hub.kill().await?;
    // Who wants an empty registry says so, once.
    fs::remove_file(hub.state().join(STORE))?;
    fs::write(hub.state().join("begin-empty"), "")?;
    hub.start_again().await?;
    ensure!(hub.cluster_names().await?.is_empty());
    hub.kill().await?;
    fs::remove_file(hub.state().join(STORE))?;
    fails_to_start(&hub).await?;
    Ok(())
}

#[tokio::test]
async fn an_agent_without_its_key_is_told_how_it_comes_back() -> Result<()> {
    let hub = Hub::start().await?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    spoke.kill().await?;
    fs::remove_file(spoke.state().join("agent.key"))?;
    let agent = Program::of_workspace("proxy-agent")?.arg("run").arg("--state").arg(spoke.state()).run(BOUND).await?;
    ensure!(!agent.status.success(), "an agent without its key runs");
    let told = agent.stderr;
    ensure!(told.contains("agent.key is missing") && told.contains("join again under its name"), "{told}");
    Ok(())
}

#[tokio::test]
async fn a_flipped_bit_of_the_registry_is_one_sentence_and_no_backtrace() -> Result<()> {
    let mut hub = Hub::start().await?;
    hub.create_token(&JoinTerms::auto_accepted("c1")).await?;
    hub.stop().await?;
    let path = hub.state().join(STORE);
    let whole = fs::read(&path)?;
    let used: Vec<usize> = (0..whole.len()).filter(|&offset| whole[offset] != 0).collect();
    let mut noticed = 0;
    for n in 0..FLIPS {
        let offset = used[n * 7919 % used.len()];
        let mut damaged = whole.clone();
        damaged[offset] ^= 1 << (n % 8);
        fs::write(&path, &damaged)?;
        let mut process = hub.program()?.spawn()?;
        let ended = process.exit(STARTED).await;
        if let Ok(status) = &ended {
            ensure!(status.code() == Some(1), "byte {offset}: {status}");
            let reason = |line: &str| line.contains("cluster-proxy restore").then_some(());
            process.stderr_line(BOUND, "the way to recover", reason).await?;
        }
        let told = process.stderr().join("\n");
        ensure!(!told.contains("panicked") && !told.contains("backtrace"), "byte {offset}: {told}");
        match ended {
            Ok(_) => noticed += 1,
            Err(_) => process.kill().await?,
        }
    }
    ensure!(noticed > 0, "no damage was noticed");
    eprintln!("{noticed} of {FLIPS} were noticed");
    Ok(())
}
