//! `kubectl port-forward`, whatever lies between it and the API server.

use anyhow::{Context as _, Result, ensure};
use tests::pattern::Pattern;
use tests::service::apiserver::ApiServer;
use tests::service::half_close::{self, Receipt};
use tests::service::transfer;
use tests::{Kubectl, Process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::BOUND;

/// Connections at once.
const CONNECTIONS: u64 = 8;

/// Where kubectl listens for that port of the pod.
async fn listening(forward: &Process, port: u16) -> Result<String> {
    let end = format!(" -> {port}");
    let address = |line: &str| Some(line.strip_prefix("Forwarding from 127.0.0.1")?.strip_suffix(&end)?.to_owned());
    Ok(format!("127.0.0.1{}", forward.stdout_line(BOUND, "where it listens", address).await?))
}

/// Many connections at once, each with bytes of its own; ends of one direction leave the other open.
pub(crate) async fn port_forward_carries_connections(kubectl: &Kubectl, server: &ApiServer, pod: &str) -> Result<()> {
    let receipts = half_close::client_first().await?;
    let transfers = transfer::start().await?;
    server.forward(pod, 80, receipts.address());
    server.forward(pod, 81, transfers.address());
    let forward = kubectl.spawn(&format!("port-forward {pod} :80 :81"))?;
    let (half_closed, both_ways) = (listening(&forward, 80).await?, listening(&forward, 81).await?);
    let connections = (0..CONNECTIONS).map(async |seed| -> Result<()> {
        let mut stream = TcpStream::connect(&half_closed).await?;
        let bytes = Pattern::new(seed, 300_000 + seed).to_vec();
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        ensure!(answer == Receipt::of(&bytes).to_string(), "{answer}");
        let mut stream = TcpStream::connect(&both_ways).await?;
        transfer::exchange(&mut stream, Pattern::new(seed, 300_000 + seed)).await
    });
    timeout(BOUND, futures_util::future::try_join_all(connections)).await.context("the connections do not end")??;
    Ok(())
}

/// A port where nothing listens is told by kubectl, whose client is cut off.
pub(crate) async fn port_forward_tells_a_dead_port(kubectl: &Kubectl, pod: &str) -> Result<()> {
    let forward = kubectl.spawn(&format!("port-forward {pod} :7"))?;
    let address = listening(&forward, 7).await?;
    let mut stream = TcpStream::connect(&address).await?;
    let mut nothing = Vec::new();
    // An end or a reset: nothing comes.
    let _ended = timeout(BOUND, stream.read_to_end(&mut nothing)).await.context("the connection stays open")?;
    ensure!(nothing.is_empty());
    forward.stderr_line(BOUND, "the reason", |line| line.contains("nothing listens there").then_some(())).await
}
