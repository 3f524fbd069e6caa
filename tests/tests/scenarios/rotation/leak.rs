//! The CA's key has leaked: what the old CA has signed opens nothing any more, at once; who follows already goes on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use certs::{Authority, PrivateKey};
use hyper::Method;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::client::{Client, Entry};
use tests::raw_agent::{AgentCredentials, RawAgent};
use tests::service::echo;
use tests::{Fetch, HUB_NAME, Hub, Spoke, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Instant, timeout};
use tunnel::ConnectionLost;

use super::{BOUND, Traffic, administrator, changed_over, refused, step};

/// How soon what was opened with a revoked certificate is cut.
const CUT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn after_a_leak_the_old_ca_counts_for_nothing_and_who_follows_goes_on() -> Result<()> {
    let hub = Hub::start().await?;
    let folder = TempDir::new()?;
    let near = Spoke::of(&hub, "near").start().await?;
    let mut away = Spoke::of(&hub, "away").start().await?;
    away.kill().await?;
    let alice = administrator(&hub, folder.path(), "alice").await?;
    let stubborn = AgentCredentials::joined(&hub, "stubborn", "agent").await?;
    let _open = RawAgent::open(&hub, &stubborn).await?;
    // What the thief has.
    let stolen = TempDir::new()?;
    for name in ["ca.crt", "ca.key"] {
        std::fs::copy(hub.state().join(name), stolen.path().join(name))?;
    }
    let thief = Authority::load_or_create(stolen.path())?;
    let service = echo::start().await?;
    let target = service.address().to_string();
    let traffic = Traffic::over(hub.client("near")?.dial(&target).await?);
    let by_certificate = Client::new(Entry::Tls(hub.addresses().proxy, alice.mutual_tls()?));
    let mut of_alice = by_certificate.cluster("near", "").dial(&target).await?;

    ensure!(refused(&hub, "revoke-now").await?.contains("ca rotate begin"));
    step(&hub, "begin").await?;
    step(&hub, "sign").await?;
    changed_over(&hub, "near").await?;
    let refused = refused(&hub, "revoke-now").await?;
    ensure!(refused.contains("away/") && refused.contains("user alice") && !refused.contains("near/"), "{refused}");
    let begun = Instant::now();
    let done = hub.command(["ca", "rotate", "revoke-now", "--force"]).await?;
    eprintln!("revoked {:?} after it was typed", begun.elapsed());
    for lost in ["left behind: away/", "left behind: stubborn/agent", "left behind: user alice"] {
        ensure!(done.stderr.contains(lost), "{lost}: {done:?}");
    }
    ensure!(!done.stderr.contains("near/") && !done.stderr.contains("user admin"), "{done:?}");
    done.success()?;

    // What the old CA's certificates had opened is cut, and what they open is nothing.
    let mut byte = [0];
    let cut = timeout(CUT, of_alice.read(&mut byte)).await.context("alice's connection lives on")?;
    ensure!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
    wait_for(BOUND, "the stubborn agent to be away", async || {
        if hub.is_available("stubborn").await { Err("there") } else { Ok(()) }
    })
    .await?;
    let loss = RawAgent::refused(&hub, Some(&stubborn)).await?;
    ensure!(matches!(loss, ConnectionLost::CertificateRefused(_)), "{loss}");
    let key = PrivateKey::generate();
    let forged = thief.issue_user(&key.csr_der()?, &"admin".parse()?, None, Duration::from_secs(3600))?;
    let forged = AgentCredentials::new(&forged.chain_pem, key)?.tls(&hub, &[b"http/1.1"])?;
    for port in [hub.addresses().api, hub.addresses().proxy] {
        let answer = Fetch::new(Method::GET, "/v1/status").tls(port, HUB_NAME, forged.clone()).await;
        ensure!(answer.is_err(), "the thief's certificate was taken: {answer:?}");
    }

    // Who has changed over has noticed nothing, and comes back.
    traffic.end().await?;
    let mut dialled = hub.client("near")?.dial(&target).await?;
    dialled.write_all(b"x").await?;
    timeout(BOUND, dialled.read_exact(&mut byte)).await??;
    wait_for(BOUND, "one root at the agent", async || {
        let roots = std::fs::read_to_string(near.state().join("ca.crt"))?.matches("BEGIN").count();
        ensure!(roots == 1, "{roots} roots");
        Ok(())
    })
    .await?;
    let again = hub.command(["ca", "rotate", "revoke-now"]).await?;
    ensure!(!again.status.success() && again.stderr.contains("add --force"), "{again:?}");
    Ok(())
}

#[tokio::test]
async fn what_drains_at_the_hub_before_is_cut_by_a_revocation_too() -> Result<()> {
    let mut hub = Hub::start().await?;
    let folder = TempDir::new()?;
    let _near = Spoke::of(&hub, "near").start().await?;
    let alice = administrator(&hub, folder.path(), "alice").await?;
    let service = echo::start().await?;
    let by_certificate = Client::new(Entry::Tls(hub.addresses().proxy, alice.mutual_tls()?)).cluster("near", "");
    let mut of_alice = by_certificate.dial(&service.address().to_string()).await?;
    hub.process().signal(Signal::SIGTERM)?;
    let mut before = hub.succeed().await?;
    of_alice.write_all(b"x").await?;
    let mut byte = [0];
    timeout(BOUND, of_alice.read_exact(&mut byte)).await.context("the old hub has let go of it")??;
    wait_for(BOUND, "the agent to be at the next hub", async || {
        if hub.is_available("near").await { Ok(()) } else { Err("away") }
    })
    .await?;
    step(&hub, "begin").await?;
    step(&hub, "sign").await?;
    changed_over(&hub, "near").await?;
    step(&hub, "revoke-now").await?;
    let cut = timeout(CUT, of_alice.read(&mut byte)).await.context("alice's connection lives on at the old hub")?;
    ensure!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
    before.exits_with(0, BOUND).await
}
