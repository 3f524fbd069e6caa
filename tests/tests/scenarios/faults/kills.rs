//! What is killed in mid-transfer breaks the connection: nobody takes a part for the whole.

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::pki_types::ServerName;
use tests::client::{Connection, Entry};
use tests::metrics::Metrics;
use tests::pattern::Pattern;
use tests::service::authority::TargetAuthority;
use tests::service::stalled;
use tests::{Client, Hub, Service, Spoke, wait_until};
use tokio::io::{AsyncRead, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::either::Either;

use super::BOUND;

const ENDLESS: Pattern = Pattern { seed: 1, length: u64::MAX };
/// How much of a transfer has happened when something is killed.
const BEGUN: u64 = 4 << 20;

/// The ways in: over TCP, TLS and Unix.
fn clients(hub: &Hub) -> Result<[(&'static str, Client); 3]> {
    let tls = Entry::Tls(hub.addresses().proxy, hub.credentials().tls()?);
    let client = hub.client("c1")?;
    let unix = client.clone().through(Entry::Unix(hub.socket()));
    Ok([("TCP", client.clone()), ("TLS", client.through(tls)), ("Unix", unix)])
}

/// A target that sends without end.
async fn source() -> io::Result<Service> {
    Service::start(|mut stream| async move { ENDLESS.write_bytes(&mut stream).await.map(drop) }).await
}

/// A target that reads to the end, and reports each end it sees.
async fn sink() -> io::Result<(Service, mpsc::Receiver<Result<u64, ErrorKind>>)> {
    let (ends, ended) = mpsc::channel(16);
    let service = Service::start(move |mut stream| {
        let ends = ends.clone();
        async move {
            let end = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            ends.send(end.map_err(|error| error.kind())).await.map_err(io::Error::other)
        }
    })
    .await?;
    Ok((service, ended))
}

/// One download under way for each way in.
async fn downloads(hub: &Hub, source: &Service) -> Result<Vec<(&'static str, Connection)>> {
    let mut begun = Vec::new();
    for (name, client) in clients(hub)? {
        let mut connection = client.dial(&source.address().to_string()).await.context(name)?;
        Pattern { length: BEGUN, ..ENDLESS }.read_bytes(&mut connection).await?;
        begun.push((name, connection));
    }
    Ok(begun)
}

/// Demands that every download breaks off; says how long that took.
async fn assert_broken(downloads: Vec<(&'static str, Connection)>) -> Result<Duration> {
    let start = Instant::now();
    for (name, mut connection) in downloads {
        let is_unix = matches!(connection, Either::Right(Either::Right(_)));
        match timeout(BOUND, end_of(&mut connection)).await.with_context(|| format!("{name}: no end"))? {
            Err(error) => eprintln!("{name}: {error}"),
            // A Unix socket's peer that goes is an end like any other (unix(7)); but it takes no more either.
            Ok(()) if is_unix => {
                let error = connection.write_all(b"more").await.err().map(|error| error.kind());
                ensure!(error == Some(ErrorKind::BrokenPipe), "{name}: {error:?} after the end");
            }
            // For TLS: with a close_notify.
            Ok(()) => bail!("{name}: a clean end"),
        }
    }
    Ok(start.elapsed())
}

/// Reads on to the end, clean or not.
async fn end_of(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    tokio::io::copy(stream, &mut tokio::io::sink()).await.map(drop)
}

#[tokio::test]
async fn a_killed_hub_breaks_downloads_off() -> Result<()> {
    let mut hub = Hub::start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let source = source().await?;
    let downloads = downloads(&hub, &source).await?;
    hub.kill().await?;
    assert_broken(downloads).await?;
    // And the target's connections do not stay for ever.
    wait_until(BOUND, "the target to be left", async || source.open() == 0).await
}

#[tokio::test]
async fn a_killed_agent_breaks_downloads_off() -> Result<()> {
    let hub = Hub::start().await?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    let source = source().await?;
    let downloads = downloads(&hub, &source).await?;
    spoke.kill().await?;
    let took = assert_broken(downloads).await?;
    eprintln!("a killed agent was noticed after {took:?}");
    Ok(())
}

#[tokio::test]
async fn a_killed_target_breaks_off_what_it_had_not_read() -> Result<()> {
    const UNREAD: u64 = 64 << 10;
    let hub = Hub::start().await?;
    let spoke = Spoke::of(&hub, "c1").start().await?;
    let mut sent = 0;
    for (name, client) in clients(&hub)? {
        let target = stalled::start().await?;
        let mut connection = client.dial(&target.service().address().to_string()).await.context(name)?;
        connection.write_all(&Pattern::new(1, UNREAD).to_vec()).await?;
        connection.flush().await?;
        sent += UNREAD;
        wait_relayed(&spoke, sent).await?;
        drop(target);
        assert_broken(vec![(name, connection)]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_tls_target_is_no_end_of_its_session() -> Result<()> {
    let hub = Hub::start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let authority = TargetAuthority::new()?;
    let acceptor = TlsAcceptor::from(authority.server_config(&["web.example"])?);
    for (name, client) in clients(&hub)? {
        let acceptor = acceptor.clone();
        let source = Service::start(move |stream| {
            let acceptor = acceptor.clone();
            async move { ENDLESS.write_bytes(&mut acceptor.accept(stream).await?).await.map(drop) }
        })
        .await?;
        let connection = client.dial(&source.address().to_string()).await.context(name)?;
        let connector = TlsConnector::from(Arc::clone(&authority.client_config()?));
        let mut session = connector.connect(ServerName::try_from("web.example")?, connection).await?;
        Pattern { length: BEGUN, ..ENDLESS }.read_bytes(&mut session).await?;
        drop(source);
        let end = timeout(BOUND, end_of(&mut session)).await.context("no end")?;
        ensure!(end.is_err(), "{name}: a close_notify came from a target that was killed");
    }
    Ok(())
}

#[tokio::test]
async fn a_killed_hub_or_agent_is_no_end_of_an_upload() -> Result<()> {
    let mut hub = Hub::start().await?;
    let mut spoke = Spoke::of(&hub, "c1").start().await?;
    let (sink, mut ended) = sink().await?;
    for hub_dies in [false, true] {
        let mut connection = hub.client("c1")?.dial(&sink.address().to_string()).await?;
        connection.write_all(&Pattern::new(1, BEGUN).to_vec()).await?;
        // All of it is there: nothing unread is left anywhere that would make the kernel reset the connection by itself.
        wait_relayed(&spoke, BEGUN).await?;
        if hub_dies {
            hub.kill().await?
        } else {
            spoke.kill().await?
        }
        let end = timeout(BOUND, ended.recv()).await.context("the target's connection stays")?;
        let who = if hub_dies { "hub" } else { "agent" };
        ensure!(end == Some(Err(ErrorKind::ConnectionReset)), "after the {who}'s death the target saw {end:?}");
        ensure!(timeout(BOUND, end_of(&mut connection)).await?.is_err(), "the client saw a clean end");
        if !hub_dies {
            spoke.start_again().await?;
            wait_until(BOUND, "the agent", async || hub.is_available("c1").await).await?;
        }
    }
    Ok(())
}

/// Waits until the agent has written that many bytes to targets since its start.
async fn wait_relayed(spoke: &Spoke, bytes: u64) -> Result<()> {
    wait_until(BOUND, "the agent to have relayed all", async || {
        let metrics = Metrics::fetch(spoke.metrics()).await;
        metrics
            .is_ok_and(|metrics| metrics.sum("proxy_agent_bytes_total", &[("direction", "to_target")]) >= bytes as f64)
    })
    .await
}
