//! Many execs at once through one gateway: no byte is lost, and somebody else is served meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use hyper::Method;
use tests::hub::ClusterAccess;
use tests::metrics::Metrics;
use tests::pattern::Pattern;
use tests::{Credentials, Fetch, HUB_NAME, wait_until};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::{BOUND, Site};

const EXECS: usize = 200;
/// Requests that are timed before them.
const QUIET: usize = 30;
/// Handshakes at a time.
const OPENING: usize = 16;
const SIZE: u64 = 5_000_000;
const POD: &str = "/clusters/one/api/v1/namespaces/default/pods/first";

#[tokio::test]
async fn two_hundred_execs_lose_no_byte() -> Result<()> {
    let site = Site::start().await?;
    let file = Pattern::new(7, SIZE).to_vec();
    std::fs::write(site.server.folder("first")?.join("file"), &file)?;
    let alice = site.hub.create_user("alice", &ClusterAccess::Named(vec!["one".to_owned()])).await?;
    let quiet = answers(&site, &alice, QUIET, std::future::pending()).await?;
    let start = Instant::now();
    let busy = answers(&site, &alice, usize::MAX, async {
        // The hub gives each of them ten seconds to shake hands, and this one thread has the work of all.
        let execs = stream::iter((0..EXECS).map(|_| open(&site))).buffered(OPENING).try_collect::<Vec<_>>().await?;
        try_join_all(execs.into_iter().map(|exec| reads(exec, &file))).await.map(drop)
    })
    .await?;
    // Each is told when its client has closed.
    let ended = async |result| {
        let metrics = Metrics::fetch(site.hub.addresses().metrics).await?;
        let labels = [("frontend", "gateway"), ("result", result)];
        anyhow::Ok(metrics.sum("proxy_server_connections_closed_total", &labels))
    };
    let complete = EXECS as f64;
    wait_until(BOUND, "all to end", async || ended("complete").await.is_ok_and(|count| count >= complete)).await?;
    // The other user's last request of each time may be cut off.
    let (target, client) = (ended("target_reset").await?, ended("client_reset").await?);
    ensure!(target + client <= 2.0, "{target} ended as reset by the target, {client} by the client");
    let rate = EXECS as f64 * SIZE as f64 / 1e6 / start.elapsed().as_secs_f64();
    eprintln!("{EXECS} execs at {rate:.0} MB/s; another user's request took {quiet:?} before, {busy:?} meanwhile");
    Ok(())
}

/// One exec of `cat file` by a WebSocket.
async fn open(site: &Site) -> Result<WebSocketStream<TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(site.hub.addresses().api).await?;
    let connector = TlsConnector::from(site.hub.credentials().mutual_tls()?);
    let tls = connector.connect(HUB_NAME.try_into()?, tcp).await?;
    let url = format!("ws://{HUB_NAME}{POD}/exec?command=cat&command=file&stdout=true&stderr=true&container=main");
    let mut request = url.into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", "v5.channel.k8s.io".parse()?);
    Ok(tokio_tungstenite::client_async(request, tls).await?.0)
}

/// The output must be the file.
async fn reads(mut socket: WebSocketStream<TlsStream<TcpStream>>, file: &[u8]) -> Result<()> {
    let mut at = 0;
    let reading = async {
        while let Some(message) = socket.next().await {
            let data = message?.into_data();
            // The first byte is the channel; 1 is standard output (KEP-4006).
            if let Some(output) = data.strip_prefix(&[1]) {
                ensure!(file.get(at..at + output.len()) == Some(output), "other bytes at {at}");
                at += output.len();
            }
        }
        Ok(())
    };
    timeout(BOUND, reading).await.context("an exec did not end")??;
    ensure!(at == file.len(), "{at} bytes came");
    Ok(())
}

/// The median time of a user's requests while `work` is under way, `most` at most.
async fn answers(
    site: &Site,
    user: &Credentials,
    most: usize,
    work: impl Future<Output = Result<()>>,
) -> Result<Duration> {
    let mut took = Vec::new();
    let asking = async {
        while took.len() < most {
            let start = Instant::now();
            let asked = Fetch::new(Method::GET, POD).tls(site.hub.addresses().api, HUB_NAME, user.mutual_tls()?);
            timeout(BOUND, asked).await.context("another user is not served")??.success()?;
            took.push(start.elapsed());
        }
        Ok(())
    };
    let worked: Result<()> = tokio::select! {
        worked = work => worked,
        failed = asking => failed,
    };
    worked?;
    took.sort();
    took.get(took.len() / 2).copied().context("no request was answered")
}
