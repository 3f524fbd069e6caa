//! The hub's CA is rotated: who is there follows over what is open, who was away at its next connection, and nothing is lost.

mod crash;
mod hubs;
mod leak;
mod rights;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::client::Connection;
use tests::hub::{ClusterAccess, JoinTerms};
use tests::service::echo;
use tests::{Credentials, Hub, Kubectl, Spoke, tool, wait_for, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);

/// A step of the rotation, by the operator's command.
async fn step(hub: &Hub, words: &str) -> Result<String> {
    hub.command(["ca", "rotate"].into_iter().chain(words.split(' '))).await?.success()
}

/// A step that is refused, and what is said.
async fn refused(hub: &Hub, words: &str) -> Result<String> {
    let finished = hub.command(["ca", "rotate"].into_iter().chain(words.split(' '))).await?;
    ensure!(!finished.status.success(), "'ca rotate {words}' was not refused: {finished:?}");
    Ok(finished.stderr)
}

async fn status(hub: &Hub) -> Result<Value> {
    Ok(serde_json::from_str(&hub.command(["ca", "status", "--json"]).await?.success()?)?)
}

/// How an agent stands: whether it trusts the new CA, and whether that has signed its certificate.
async fn standing(hub: &Hub, cluster: &str) -> Result<(Option<bool>, Option<bool>)> {
    let status = status(hub).await?;
    let agents = status["agents"].as_array().context("no agents")?;
    let agent = agents.iter().find(|agent| agent["cluster"] == cluster).with_context(|| format!("no {cluster}"))?;
    Ok((agent["trusts"].as_bool(), agent["certified"].as_bool()))
}

/// Waits until an agent has changed over.
async fn changed_over(hub: &Hub, cluster: &str) -> Result<()> {
    wait_for(BOUND, &format!("{cluster} to have changed over"), async || match standing(hub, cluster).await? {
        (Some(true), Some(true)) => Ok(()),
        other => bail!("{other:?}"),
    })
    .await
}

/// How many roots are in a file.
fn roots(path: &Path) -> Result<usize> {
    let found: Vec<_> = CertificateDer::pem_file_iter(path)?.collect::<Result<_, _>>()?;
    Ok(found.len())
}

/// A user with a folder, made by the operator's command, who may administer the hub.
async fn administrator(hub: &Hub, folder: &Path, name: &str) -> Result<Credentials> {
    let folder = folder.join(name);
    hub.command(["user", "create", name, "--admin", "--out", folder.to_str().context("a path")?]).await?.success()?;
    Ok(Credentials::at(folder))
}

/// Whether a forwarded port leads to the service.
async fn is_echoed(port: u16) -> Result<()> {
    let mut client = TcpStream::connect(("127.0.0.1", port)).await?;
    client.write_all(b"x").await?;
    let mut byte = [0];
    timeout(BOUND, client.read_exact(&mut byte)).await.context("nothing comes through the forwarded port")??;
    Ok(())
}

/// The folder as it is now, for a client that does not follow.
fn copied(of: &Credentials, to: &Path) -> Result<PathBuf> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(of.folder())? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(to.to_owned())
}

/// Bytes that go to and fro for as long as it runs.
struct Traffic {
    stop: CancellationToken,
    running: JoinHandle<Result<u64>>,
}

impl Traffic {
    fn over(mut connection: Connection) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let running = TaskTracker::new().spawn(async move {
            let (mut count, mut slowest) = (0_u64, Duration::ZERO);
            while !stopped.is_cancelled() {
                let sent: Vec<u8> = (0..16 * 1024_u64).map(|at| (at * 31 + count) as u8).collect();
                let mut came = vec![0; sent.len()];
                let begun = Instant::now();
                let exchange = async {
                    connection.write_all(&sent).await?;
                    connection.flush().await?;
                    connection.read_exact(&mut came).await
                };
                timeout(BOUND, exchange).await.context("the stream hangs")?.context("the stream broke")?;
                ensure!(came == sent, "wrong bytes");
                (count, slowest) = (count + 1, slowest.max(begun.elapsed()));
            }
            eprintln!("{count} exchanges of 16 KiB, the slowest in {slowest:?}");
            Ok(count)
        });
        Self { stop, running }
    }

    /// Demands that not one byte was lost.
    async fn end(self) -> Result<u64> {
        self.stop.cancel();
        timeout(BOUND, self.running).await??
    }
}

#[tokio::test]
async fn from_begin_to_finish_under_load_nothing_is_lost_and_everybody_follows() -> Result<()> {
    let mut hub = Hub::start().await?;
    let folder = TempDir::new()?;
    let near = Spoke::of(&hub, "near").start().await?;
    let mut away = Spoke::of(&hub, "away").start().await?;
    away.stop().await?;
    let alice = administrator(&hub, folder.path(), "alice").await?;
    let before = administrator(&hub, folder.path(), "before").await?;
    hub.operator(&before)?.arg("clusters").run(BOUND).await?.success()?;
    let old = copied(&alice, &folder.path().join("old"))?;
    let old_kubectl = Kubectl::with(tool::kubectl()?, &old.join("kubeconfig"))?;
    let old_token = hub.create_token(&JoinTerms::auto_accepted("late")).await?;
    let second_token = hub.create_token(&JoinTerms::auto_accepted("later")).await?;
    let old_pin = hub.addresses().pin.clone();
    let service = echo::start().await?;
    let traffic = Traffic::over(hub.client("near")?.dial(&service.address().to_string()).await?);
    let named = |spoke: &Spoke, name: &str| spoke.state().join(name);

    let words = ["port-forward", "-c", "near", "127.0.0.1", &format!(":{}", service.port())];
    let forward = hub.operator(&alice)?.args(words).spawn()?;
    let local = forward.stdout_line(BOUND, "the local port", |line| {
        line.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next()?.parse::<u16>().ok()
    });
    let local = local.await?;

    let begun = Instant::now();
    step(&hub, "begin").await?;
    wait_for(BOUND, "the agent to trust both", async || match roots(&named(&near, "ca.crt"))? {
        2 => Ok(()),
        count => bail!("{count} roots"),
    })
    .await?;
    eprintln!("the agent trusts both {:?} after 'begin' was typed", begun.elapsed());
    wait_for(BOUND, "the hub to know", async || match standing(&hub, "near").await? {
        (Some(true), Some(false)) => Ok(()),
        other => bail!("{other:?}"),
    })
    .await?;
    ensure!(standing(&hub, "away").await? == (None, None), "who was away is not known");
    ensure!(roots(&hub.credentials().authority_file())? == 2, "the hub's own administrator has both");
    old_kubectl.ok("get managedclusters -o name").await?;
    let told = refused(&hub, "finish").await?;
    ensure!(told.contains("ca rotate sign"), "{told}");

    step(&hub, "sign").await?;
    changed_over(&hub, "near").await?;
    old_kubectl.ok("get managedclusters -o name").await?;
    let told = refused(&hub, "finish").await?;
    ensure!(told.contains("away/") && told.contains("user alice") && !told.contains("near/"), "{told}");
    ensure!(told.contains("user before"), "who was here before the rotation alone: {told}");

    hub.operator(&before)?.arg("clusters").run(BOUND).await?.success()?;
    // A folder follows at its next command, and with the next connection of one that runs.
    is_echoed(local).await?;
    ensure!(roots(&alice.authority_file())? == 2, "alice's folder has not followed");
    let new_kubectl = Kubectl::with(tool::kubectl()?, &alice.folder().join("kubeconfig"))?;
    new_kubectl.ok("get managedclusters -o name").await?;
    // A line of before the rotation, and an agent that was away.
    let late = Spoke::of(&hub, "late").token(&old_token).start().await?;
    away.start_again().await?;
    for cluster in ["away", "late"] {
        changed_over(&hub, cluster).await?;
    }
    step(&hub, "finish").await?;
    for spoke in [&near, &away, &late] {
        let ca = named(spoke, "ca.crt");
        wait_until(BOUND, "the old CA to be gone", async || roots(&ca).is_ok_and(|count| count == 1)).await?;
    }
    let echoed = traffic.end().await?;
    ensure!(echoed > 10, "{echoed} exchanges");
    is_echoed(local).await?;
    drop(forward);

    new_kubectl.ok("get managedclusters -o name").await?;
    hub.operator(&alice)?.arg("clusters").run(BOUND).await?.success()?;
    ensure!(roots(&alice.authority_file())? == 1, "alice's folder has not followed");
    old_kubectl.fails("get managedclusters").await?;
    let told = hub.operator(&Credentials::at(&old))?.arg("clusters").run(BOUND).await?;
    ensure!(!told.status.success() && told.stderr.contains("CA was rotated"), "{told:?}");
    let joined = Spoke::of(&hub, "later").token(&second_token).join(&folder.path().join("later")).await?;
    let told = joined.run(BOUND).await?;
    ensure!(!told.status.success() && told.stderr.contains("its CA was rotated"), "{told:?}");
    let status = status(&hub).await?;
    ensure!(status["phase"] == "Settled" && status["retired"][0] == old_pin, "{status}");

    // Everybody comes back to a hub that has one CA only.
    hub.restart().await?;
    ensure!(hub.addresses().pin != old_pin, "the hub has its old pin");
    for cluster in ["near", "away", "late"] {
        wait_until(BOUND, "the agents to be back", async || hub.is_available(cluster).await).await?;
    }
    Spoke::of(&hub, "fresh").start().await?;
    Ok(())
}

/// A hub that has started anew knows nobody's certificate, and of one who uses tokens alone never will.
#[tokio::test]
async fn who_was_not_seen_is_named_before_the_old_ca_goes() -> Result<()> {
    let mut hub = Hub::start().await?;
    hub.create_user("robot", &ClusterAccess::All).await?;
    step(&hub, "begin").await?;
    hub.restart().await?;
    step(&hub, "sign").await?;
    let robot = json!({ "user": "robot" });
    ensure!(status(&hub).await?["users"].as_array().is_some_and(|users| users.contains(&robot)));
    let told = refused(&hub, "finish").await?;
    ensure!(told.contains("1 could not connect any more: user robot"), "{told}");
    let left = hub.command(["ca", "rotate", "finish", "--force"]).await?;
    ensure!(left.stderr.contains("left behind: user robot"), "{left:?}");
    left.success()?;
    Ok(())
}

#[tokio::test]
async fn an_agent_that_was_away_until_the_end_is_told_what_to_do() -> Result<()> {
    let hub = Hub::start().await?;
    let mut away = Spoke::of(&hub, "away").start().await?;
    away.kill().await?;
    step(&hub, "begin").await?;
    step(&hub, "sign").await?;
    ensure!(refused(&hub, "finish").await?.contains("away/"));
    let left = hub.command(["ca", "rotate", "finish", "--force"]).await?;
    ensure!(left.stderr.contains("left behind: away/"), "{left:?}");
    left.success()?;
    let agent = tests::Program::of_workspace("proxy-agent")?.arg("run").arg("--state").arg(away.state());
    let agent = agent.args(["--metrics-listen", "127.0.0.1:0"]).spawn()?;
    let told = agent.stderr_line(BOUND, "what to do", |line| line.contains("hub_not_trusted").then(|| line.to_owned()));
    let told = told.await?;
    ensure!(told.contains("CA was rotated") && told.contains("cluster-proxy join-command"), "{told}");
    Ok(())
}

#[tokio::test]
async fn abort_goes_back_and_nobody_notices() -> Result<()> {
    let hub = Hub::start().await?;
    let spoke = Spoke::of(&hub, "near").start().await?;
    let pin = hub.addresses().pin.clone();
    let service = echo::start().await?;
    let traffic = Traffic::over(hub.client("near")?.dial(&service.address().to_string()).await?);
    step(&hub, "begin").await?;
    step(&hub, "sign").await?;
    changed_over(&hub, "near").await?;
    step(&hub, "abort").await?;
    wait_for(BOUND, "the old CA's certificate to be back", async || match standing(&hub, "near").await? {
        (Some(true), Some(false)) => Ok(()),
        other => bail!("{other:?}"),
    })
    .await?;
    step(&hub, "abort").await?;
    let ca = spoke.state().join("ca.crt");
    wait_until(BOUND, "the new CA to be gone", async || roots(&ca).is_ok_and(|count| count == 1)).await?;
    let status = status(&hub).await?;
    ensure!(status["phase"] == "Settled" && status["roots"][0]["pin"] == pin, "{status}");
    traffic.end().await?;
    Ok(())
}

#[tokio::test]
async fn a_folder_that_knows_both_cas_follows_the_one_that_signs() -> Result<()> {
    let hub = Hub::start().await?;
    let folder = TempDir::new()?;
    step(&hub, "begin").await?;
    let bob = administrator(&hub, folder.path(), "bob").await?;
    ensure!(roots(&bob.authority_file())? == 2, "bob does not know both");
    let certificate = async || {
        hub.operator(&bob)?.arg("clusters").run(BOUND).await?.success()?;
        Ok::<_, anyhow::Error>(fs::read(bob.folder().join("tls.crt"))?)
    };
    let first = certificate().await?;
    step(&hub, "sign").await?;
    let second = certificate().await?;
    ensure!(second != first, "the folder keeps the certificate of the old CA");
    step(&hub, "abort").await?;
    ensure!(certificate().await? != second, "the folder keeps the certificate of the CA that signs no more");
    step(&hub, "sign").await?;
    certificate().await?;
    step(&hub, "finish").await?;
    certificate().await?;
    // The one that is there now has leaked: nobody follows that yet.
    let done = hub.command(["ca", "rotate", "revoke-now"]).await?;
    ensure!(done.stderr.contains("add --force"), "{done:?}");
    let before = hub.command(["ca", "status", "--json"]).await?.success()?;
    hub.command(["ca", "rotate", "revoke-now", "--force"]).await?.success()?;
    ensure!(
        hub.command(["ca", "status", "--json"]).await?.success()? != before,
        "the CA that has leaked is still there"
    );
    Ok(())
}

#[tokio::test]
async fn abort_names_who_was_certified_in_between_and_has_never_connected() -> Result<()> {
    let hub = Hub::start().await?;
    let folder = TempDir::new()?;
    step(&hub, "begin").await?;
    step(&hub, "sign").await?;
    let token = hub.create_token(&JoinTerms::auto_accepted("late")).await?;
    let joined = Spoke::of(&hub, "late").token(&token).join(&folder.path().join("late")).await?;
    joined.run(BOUND).await?.success()?;
    administrator(&hub, folder.path(), "bob").await?;
    administrator(&hub, folder.path(), "gone").await?;
    hub.command(["user", "delete", "gone"]).await?.success()?;
    // What it got says how it stands: 'finish' would lose neither.
    changed_over(&hub, "late").await?;
    step(&hub, "abort").await?;
    let told = refused(&hub, "abort").await?;
    ensure!(told.contains("late/") && told.contains("user bob") && !told.contains("gone"), "{told}");
    let left = hub.command(["ca", "rotate", "abort", "--force"]).await?;
    ensure!(left.stderr.contains("left behind: late/") && left.stderr.contains("left behind: user bob"), "{left:?}");
    left.success()?;
    Ok(())
}
