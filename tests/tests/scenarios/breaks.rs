//! Breaks: a target that resets its connection right behind its last byte. What it sent arrives, and then an error, at every
//! frontend, also where the reader is slow and the processors are busy.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use serde_json::Value;
use tempfile::TempDir;
use tests::client::{Connection, Entry};
use tests::pattern::Pattern;
use tests::service::reset;
use tests::{Client, HUB_NAME, Hub, Service, Spoke, tool, wait_until};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

const BOUND: Duration = Duration::from_secs(60);
/// More than a window and a socket's buffer hold, so that some of it is in each of them when the target resets.
const SIZE: u64 = 3 << 20;
/// Connections at a time.
const CONNECTIONS: usize = 8;

/// How a client reads.
#[derive(Clone, Copy, Debug)]
enum Pace {
    Fast,
    /// A moment's rest after each piece.
    Slow,
}

impl Pace {
    async fn rest(self) {
        if matches!(self, Self::Slow) {
            sleep(Duration::from_millis(10)).await;
        }
    }
}

const PACES: [Pace; 2] = [Pace::Fast, Pace::Slow];

async fn hub_and_spoke() -> Result<(Spoke, Hub)> {
    let hub = Hub::start().await?;
    let spoke = Spoke::of(&hub, "c1").start().await?;
    Ok((spoke, hub))
}

/// A hub, and a spoke in which `web.mon.svc` is this machine; the folder is to be kept as long.
async fn hub_and_web_spoke() -> Result<(Hub, (Spoke, TempDir))> {
    let (hub, folder) = (Hub::start().await?, TempDir::new()?);
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost web.mon.svc\n")?;
    let spoke = Spoke::of(&hub, "one").hosts(&hosts).start().await?;
    Ok((hub, (spoke, folder)))
}

fn target(service: &Service) -> String {
    format!("127.0.0.1.c1.clusters.internal:{}", service.port())
}

/// Reads to the end, which must be an error behind all bytes; says which.
async fn read_to_break(mut stream: impl AsyncRead + Unpin, pace: Pace) -> Result<io::ErrorKind> {
    let expected = Pattern::new(reset::SEED, SIZE).to_vec();
    let (mut got, mut piece) = (0, vec![0; 64 * 1024]);
    let reading = async {
        loop {
            match stream.read(&mut piece).await {
                Ok(0) => bail!("a clean end behind {got} bytes"),
                Ok(count) => {
                    ensure!(expected.get(got..got + count) == Some(&piece[..count]), "other bytes at {got}");
                    got += count;
                    pace.rest().await;
                }
                Err(error) => return Ok(error.kind()),
            }
        }
    };
    let kind = timeout(BOUND, reading).await.context("no end")??;
    ensure!(got as u64 == SIZE, "{kind} behind {got} bytes of {SIZE}");
    Ok(kind)
}

/// Keeps the processors busy until it is dropped.
struct Busy {
    _loops: Vec<tests::Process>,
}

impl Busy {
    fn start() -> Result<Self> {
        let spin = || tests::Program::at("/bin/sh").args(["-c", "while :; do :; done"]).spawn();
        Ok(Self { _loops: (0..3).map(|_| spin()).collect::<Result<_>>()? })
    }
}

async fn at_the_proxy(hub: &Hub) -> Result<()> {
    let service = reset::behind_the_last_byte(SIZE, b"").await?;
    let (proxy, login, credentials) = (hub.addresses().proxy, hub.client("c1")?, hub.credentials());
    let entries = [
        ("TCP", login.clone()),
        ("TLS", login.clone().through(Entry::Tls(proxy, credentials.tls()?))),
        ("Unix", login.through(Entry::Unix(hub.socket())).without_login()),
    ];
    for (entry, client) in entries {
        for (protocol, client) in [("CONNECT", client.clone()), ("SOCKS5", client.socks5())] {
            for pace in PACES {
                let name = format!("{protocol} over {entry}, {pace:?}");
                let clients = (0..CONNECTIONS).map(|_| client_of_the_proxy(&client, &service, pace));
                try_join_all(clients).await.context(name)?;
            }
        }
    }
    Ok(())
}

async fn client_of_the_proxy(client: &Client, service: &Service, pace: Pace) -> Result<()> {
    let mut connection: Connection = client.dial(&target(service)).await?;
    if matches!(connection, Either::Right(Either::Right(_))) {
        // A Unix socket knows no reset.
        let mut got = Vec::new();
        timeout(BOUND, connection.read_to_end(&mut got)).await??;
        ensure!(got == Pattern::new(reset::SEED, SIZE).to_vec(), "{} bytes came", got.len());
        return Ok(());
    }
    let kind = read_to_break(connection, pace).await?;
    ensure!(matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof), "{kind}");
    Ok(())
}

#[tokio::test]
async fn every_byte_before_a_targets_reset_arrives_at_every_frontend_of_the_proxy() -> Result<()> {
    let (_spoke, hub) = hub_and_spoke().await?;
    at_the_proxy(&hub).await
}

#[tokio::test]
async fn every_byte_before_a_targets_reset_arrives_from_busy_processors() -> Result<()> {
    let (_spoke, hub) = hub_and_spoke().await?;
    let _busy = Busy::start()?;
    at_the_proxy(&hub).await
}

#[tokio::test]
async fn every_byte_before_a_clients_reset_arrives_at_the_target() -> Result<()> {
    let (_spoke, hub) = hub_and_spoke().await?;
    let (ends, mut ended) = tokio::sync::mpsc::channel(CONNECTIONS);
    let service = Service::start(move |stream| {
        let ends = ends.clone();
        async move {
            let end = read_to_break(stream, Pace::Slow).await;
            ends.send(end).await.map_err(io::Error::other)
        }
    })
    .await?;
    let client = hub.client("c1")?;
    for _ in 0..CONNECTIONS {
        let Either::Left(mut tcp) = client.dial(&target(&service)).await? else { bail!("not TCP") };
        Pattern::new(reset::SEED, SIZE).write_bytes(&mut tcp).await?;
        reset::when_delivered(tcp).await?;
    }
    for _ in 0..CONNECTIONS {
        let kind = timeout(BOUND, ended.recv()).await?.context("the target is gone")??;
        ensure!(kind == io::ErrorKind::ConnectionReset, "{kind}");
    }
    Ok(())
}

#[tokio::test]
async fn every_byte_before_a_targets_reset_arrives_through_a_forwarded_port() -> Result<()> {
    let (_spoke, hub) = hub_and_spoke().await?;
    let service = reset::behind_the_last_byte(SIZE, b"").await?;
    let ports = format!("port-forward -c c1 127.0.0.1 :{}", service.port());
    let forward = hub.operator(&hub.credentials())?.args(ports.split(' ')).spawn()?;
    let port = || {
        let lines = forward.stdout();
        let line = lines.iter().find_map(|line| line.strip_prefix("Forwarding from 127.0.0.1:"))?;
        line.split(' ').next()?.parse::<u16>().ok()
    };
    wait_until(BOUND, "the local port", async || port().is_some()).await?;
    let port = port().context("no port")?;
    for pace in PACES {
        let clients = (0..CONNECTIONS).map(|_| async move {
            let kind = read_to_break(TcpStream::connect(("127.0.0.1", port)).await?, pace).await?;
            ensure!(kind == io::ErrorKind::ConnectionReset, "{kind}");
            Ok(())
        });
        try_join_all(clients).await.with_context(|| format!("{pace:?}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn every_byte_before_a_targets_reset_arrives_at_konnectivitys_clients() -> Result<()> {
    let (_spoke, hub) = hub_and_spoke().await?;
    let service = reset::behind_the_last_byte(SIZE, b"").await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/konnectivity/breaks.py");
    let (proxy, target) = (hub.addresses().proxy.to_string(), service.address().to_string());
    for rest in ["0", "0.01"] {
        let python = tool::grpc_python()?.arg(&script).env("TOKEN", hub.credentials().token()?);
        let said = python.args([&proxy, &target, &CONNECTIONS.to_string(), rest]).run(BOUND).await?.success()?;
        let ends: Vec<(u64, Option<Value>)> = serde_json::from_str(&said)?;
        ensure!(ends.len() == CONNECTIONS, "{said}");
        for (count, end) in ends {
            let error = end.as_ref().and_then(|end| end["error"].as_str()).unwrap_or_default();
            ensure!(count == SIZE && error.contains("connection reset"), "{count} bytes of {SIZE}, then {end:?}");
        }
    }
    Ok(())
}

/// An answer that promises more than comes, and an upgrade behind which nothing but bytes follows.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n";
const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";

/// Asks for `uri`, reads the answer's head, and the rest to the break.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, uri: &str, fields: &str, pace: Pace) -> Result<()> {
    stream.write_all(format!("GET {uri} HTTP/1.1\r\nhost: {HUB_NAME}\r\n{fields}\r\n").as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(BOUND, stream.read_u8()).await??);
    }
    ensure!(head.starts_with(b"HTTP/1.1 101") || head.starts_with(b"HTTP/1.1 200"), "{}", head.escape_ascii());
    read_to_break(stream, pace).await.map(drop)
}

#[tokio::test]
async fn every_byte_before_a_targets_reset_arrives_in_answers_and_on_upgraded_connections() -> Result<()> {
    let (hub, _kept) = hub_and_web_spoke().await?;
    let by_url = async |service: &Service, fields: &str, pace| {
        let tcp = TcpStream::connect(hub.addresses().api).await?;
        let tls = TlsConnector::from(hub.credentials().mutual_tls()?).connect(HUB_NAME.try_into()?, tcp).await?;
        ask(tls, &format!("/clusters/one/services/mon/web:{}/", service.port()), fields, pace).await
    };
    let by_proxy = async |service: &Service, fields: &str, pace| {
        let uri = format!("http://127.0.0.1.one.clusters.internal:{}/", service.port());
        let client = Client::new(Entry::Tls(hub.addresses().proxy, hub.credentials().mutual_tls()?));
        ask(client.enter().await?, &uri, fields, pace).await
    };
    for (head, fields) in [(ANSWER, ""), (SWITCHED, "connection: upgrade\r\nupgrade: websocket\r\n")] {
        let service = reset::behind_the_last_byte(SIZE, head).await?;
        for pace in PACES {
            let context = || format!("{}, {pace:?}", head.escape_ascii());
            let clients = (0..CONNECTIONS).map(|_| by_url(&service, fields, pace));
            try_join_all(clients).await.with_context(|| format!("by URL, {}", context()))?;
            let clients = (0..CONNECTIONS).map(|_| by_proxy(&service, fields, pace));
            try_join_all(clients).await.with_context(|| format!("by proxy, {}", context()))?;
        }
    }
    Ok(())
}

/// Answers with a piece, and resets a while after that.
async fn breaks_off(mut stream: TcpStream) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\npiece\r\n").await?;
    sleep(Duration::from_millis(500)).await;
    reset::reset(stream)
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_told_at_once_over_http_2() -> Result<()> {
    let (hub, _kept) = hub_and_web_spoke().await?;
    let service = Service::start(breaks_off).await?;
    let mut config = ClientConfig::clone(&*hub.credentials().mutual_tls()?);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(hub.addresses().api).await?;
    let tls = TlsConnector::from(Arc::new(config)).connect(HUB_NAME.try_into()?, tcp).await?;
    let (mut requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let uri = format!("https://{HUB_NAME}/clusters/one/services/mon/web:{}/", service.port());
    let mut answer = requests.send_request(Request::get(uri).body(Empty::<Bytes>::new())?).await?.into_body();
    let piece = answer.frame().await.context("no piece")??.into_data().ok().context("no data")?;
    ensure!(piece == "piece", "{piece:?}");
    let came = Instant::now();
    let end = timeout(BOUND, answer.frame()).await?.context("a clean end")?;
    eprintln!("the break was told {:?} after the piece: {end:?}", came.elapsed());
    // It takes 5 s where nothing is written any more that a flush could show.
    ensure!(end.is_err() && came.elapsed() < Duration::from_secs(4), "{end:?} after {:?}", came.elapsed());
    Ok(())
}
