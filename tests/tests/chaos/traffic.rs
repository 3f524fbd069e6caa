//! Constant traffic into one cluster by every way: long streams that are compared byte by byte, idle ones, and short dials.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tests::client::{Client, Connection, DialError, Entry as Entrance};
use tests::hub::CLUSTERS;
use tests::pattern::Pattern;
use tests::{Fetch, HUB_NAME};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use crate::log::{Ending, Entry, Log, Outcome, RAW, Said, Way};
use crate::site::Site;
use crate::trickle;

/// Between two pieces of a long stream, and between two short dials.
const CALM: Duration = Duration::from_millis(250);
/// The same for dials when the first success is waited for.
const EAGER: Duration = Duration::from_millis(50);
/// Until a dial that failed is tried again by who wants a long stream.
const AGAIN: Duration = Duration::from_millis(250);
/// A dial that hangs so long hangs for ever.
const HANGS: Duration = Duration::from_secs(90);
const PIECE: usize = 512;
const SHORT: usize = 256;
/// How often the hub is asked what is true.
const ASKED: Duration = Duration::from_millis(500);
/// Dials under way at a time, so that a fault does not make a crowd of them.
const CROWD: usize = 100;

/// The traffic. It ends when dropped.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) log: Log,
    eager: watch::Sender<bool>,
    probe: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

/// Where clients go, and as whom.
#[derive(Clone, Debug)]
struct Doors {
    plain: Client,
    tls: Client,
    target: String,
    forward: SocketAddr,
    api: SocketAddr,
    authority: Arc<ClientConfig>,
    token: String,
    url: String,
    cluster: String,
}

/// Two dozen streams by all ways; more would be no other.
const BUSY: [Way; 4] = RAW;
const IDLE: [Way; 2] = [Way::Connect, Way::Tls];

impl Traffic {
    /// Starts it into the cluster of `place`.
    pub(crate) fn start(site: &Site, place: usize) -> Result<Self> {
        let (log, mut tasks) = (Log::default(), JoinSet::new());
        let (eager, probe) = (watch::Sender::new(false), watch::Sender::new(false));
        let doors = Arc::new(Doors::of(site, place)?);
        for (seed, way) in (1..).zip(BUSY) {
            tasks.spawn(streams(doors.clone(), way, seed, log.clone(), watch::Sender::new(true).subscribe()));
        }
        for (seed, way) in (11..).zip(IDLE) {
            tasks.spawn(streams(doors.clone(), way, seed, log.clone(), probe.subscribe()));
        }
        tasks.spawn(downloads(doors.clone(), log.clone()));
        tasks.spawn(dials(doors.clone(), log.clone(), eager.subscribe()));
        tasks.spawn(ask(doors, log.clone()));
        Ok(Self { log, eager, probe, _tasks: tasks })
    }

    /// Whether short dials follow each other fast.
    pub(crate) fn eager(&self, eager: bool) {
        self.eager.send_replace(eager);
    }

    /// Whether idle streams are to move.
    pub(crate) fn probe(&self, probe: bool) {
        self.probe.send_replace(probe);
    }
}

impl Doors {
    fn of(site: &Site, place: usize) -> Result<Self> {
        let (hub, cluster) = (&site.hub, site.cluster(place));
        let user = hub.credentials();
        let plain = hub.client(cluster)?;
        let tls = Entrance::Tls(hub.addresses().proxy, user.mutual_tls()?);
        Ok(Self {
            tls: plain.clone().through(tls),
            plain,
            target: site.echo.address().to_string(),
            forward: site.forward(place),
            api: hub.addresses().api,
            authority: user.tls()?,
            token: user.token()?,
            url: format!("/clusters/{cluster}/services/mon/web:{}", site.web.port()),
            cluster: cluster.to_owned(),
        })
    }

    /// A connection to the echo, and whether anything but an error of the connection itself was told.
    async fn dial(&self, way: Way) -> Result<Connection, Outcome> {
        let client = match way {
            Way::Tls => self.tls.clone(),
            Way::Socks5 => self.plain.clone().socks5(),
            Way::Forward => return self.forwarded().await,
            Way::Connect | Way::Gateway => self.plain.clone(),
        };
        match timeout(HANGS, client.dial(&self.target)).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(DialError::Status { status, body, .. })) if !body.trim().is_empty() => {
                Err(Outcome::Told(format!("{status}: {}", body.trim())))
            }
            Ok(Err(DialError::Reply { reply })) => Err(Outcome::Told(format!("reply {reply}"))),
            Ok(Err(error)) => Err(Outcome::Mute(format!("{:#}", anyhow::Error::from(error)))),
            Err(_) => Err(Outcome::Mute(String::from("no answer"))),
        }
    }

    /// A local port says nothing of its dial but by an end; the command prints why. The first bytes show that it was served.
    async fn forwarded(&self) -> Result<Connection, Outcome> {
        let told = |error: std::io::Error| Outcome::Told(error.to_string());
        let mut stream = TcpStream::connect(self.forward).await.map_err(told)?;
        stream.write_all(b"hello").await.map_err(told)?;
        let mut hello = [0; 5];
        match timeout(HANGS, stream.read_exact(&mut hello)).await {
            Ok(read) => read.map_err(told)?,
            Err(_) => return Err(Outcome::Mute(String::from("no answer"))),
        };
        Ok(Either::Left(stream))
    }

    /// A connection and its entry, if the dial was served.
    async fn recorded(&self, way: Way, log: &Log) -> Option<(Connection, Entry)> {
        let begun = Instant::now();
        let dialled = self.dial(way).await;
        log.dialled(way, begun, dialled.as_ref().map_or_else(Clone::clone, |_| Outcome::Served));
        Some((dialled.ok()?, log.live(way, begun)))
    }
}

/// One long stream after the other. It moves while `moves` says so.
async fn streams(doors: Arc<Doors>, way: Way, seed: u64, log: Log, mut moves: watch::Receiver<bool>) {
    loop {
        let Some((mut connection, entry)) = doors.recorded(way, &log).await else {
            sleep(AGAIN).await;
            continue;
        };
        let pattern = Pattern::new(seed, u64::MAX);
        let ending = talk(&mut connection, pattern, &mut moves, &entry).await;
        entry.ended(ending);
    }
}

async fn talk(
    connection: &mut Connection,
    pattern: Pattern,
    moves: &mut watch::Receiver<bool>,
    entry: &Entry,
) -> Ending {
    let (mut offset, mut sent, mut echo) = (0, vec![0; PIECE], vec![0; PIECE]);
    loop {
        let moving = *moves.borrow_and_update();
        tokio::select! {
            read = connection.read_u8() => return match read {
                Ok(byte) => Ending::Wrong(format!("{byte:#x} came unasked after {offset} bytes")),
                Err(error) => ending(&error),
            },
            () = sleep(CALM), if moving => {}
            // One that never changes any more is one that moves.
            _ = moves.changed(), if !moving => continue,
        }
        pattern.fill(offset, &mut sent);
        let exchanged = async {
            connection.write_all(&sent).await?;
            connection.flush().await?;
            connection.read_exact(&mut echo).await
        };
        match exchanged.await {
            Err(error) => return ending(&error),
            Ok(_) if echo != sent => return Ending::Wrong(format!("within {PIECE} bytes from {offset}")),
            Ok(_) => entry.moved(),
        }
        offset += PIECE as u64;
    }
}

/// An end of file is what a whole transfer has, unless TLS says that it was cut.
fn ending(error: &std::io::Error) -> Ending {
    let text = error.to_string();
    if error.kind() == std::io::ErrorKind::UnexpectedEof && !text.contains("close_notify") {
        return Ending::Whole;
    }
    Ending::Broken(text)
}

/// One long download by URL after the other.
async fn downloads(doors: Arc<Doors>, log: Log) {
    loop {
        let begun = Instant::now();
        match timeout(HANGS, open_download(&doors)).await {
            Ok(Ok((mut body, _driver))) => {
                log.dialled(Way::Gateway, begun, Outcome::Served);
                let entry = log.live(Way::Gateway, begun);
                let ending = download(&mut body, &entry).await;
                entry.ended(ending);
            }
            Ok(Err(outcome)) => log.dialled(Way::Gateway, begun, outcome),
            Err(_) => log.dialled(Way::Gateway, begun, Outcome::Mute(String::from("no answer"))),
        }
        sleep(AGAIN).await;
    }
}

async fn open_download(doors: &Doors) -> Result<(hyper::body::Incoming, JoinSet<hyper::Result<()>>), Outcome> {
    let exchange = async {
        let stream = TcpStream::connect(doors.api).await?;
        let stream =
            TlsConnector::from(doors.authority.clone()).connect(ServerName::try_from(HUB_NAME)?, stream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::get(format!("{}/long", doors.url)).header(header::HOST, HUB_NAME);
        let request = request.header(header::AUTHORIZATION, format!("Bearer {}", doors.token));
        anyhow::Ok((sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?, driver))
    };
    let (response, driver) = exchange.await.map_err(|error| Outcome::Mute(format!("{error:#}")))?;
    let (status, body) = (response.status(), response.into_body());
    if status == StatusCode::OK {
        return Ok((body, driver));
    }
    let text = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    Err(told(status, &String::from_utf8_lossy(&text)))
}

fn told(status: StatusCode, text: &str) -> Outcome {
    if text.trim().is_empty() {
        return Outcome::Mute(format!("{status} without a word"));
    }
    Outcome::Told(format!("{}: {}", status.as_u16(), text.trim()))
}

async fn download(body: &mut hyper::body::Incoming, entry: &Entry) -> Ending {
    let (mut offset, mut left) = (0, Vec::new());
    loop {
        match body.frame().await {
            None => return Ending::Whole,
            Some(Err(error)) => return Ending::Broken(format!("{:#}", anyhow::Error::from(error))),
            Some(Ok(frame)) => left.extend(frame.into_data().unwrap_or_default()),
        }
        let whole = left.len() / trickle::PIECE * trickle::PIECE;
        let mut expected = vec![0; whole];
        trickle::LONG.fill(offset, &mut expected);
        if left[..whole] != expected {
            return Ending::Wrong(format!("within {whole} bytes from {offset}"));
        }
        left.drain(..whole);
        offset += whole as u64;
        entry.moved();
    }
}

/// Short dials by all ways in turns, each in a task of its own: one that waits holds up no other.
async fn dials(doors: Arc<Doors>, log: Log, mut eager: watch::Receiver<bool>) {
    let mut under_way = JoinSet::new();
    let mut ways = RAW.into_iter().chain([Way::Gateway]).cycle();
    loop {
        let pace = if *eager.borrow_and_update() { EAGER } else { CALM };
        tokio::select! {
            () = sleep(pace) => {}
            _ = eager.changed() => {}
        }
        while under_way.try_join_next().is_some() {}
        if under_way.len() < CROWD {
            let way = ways.next().unwrap_or(Way::Connect);
            let (doors, log) = (doors.clone(), log.clone());
            under_way.spawn(async move {
                match way {
                    Way::Gateway => request(&doors, &log).await,
                    _ => short(&doors, way, &log).await,
                }
            });
        }
    }
}

async fn short(doors: &Doors, way: Way, log: &Log) {
    let Some((mut connection, entry)) = doors.recorded(way, log).await else { return };
    let (pattern, mut back) = (Pattern::new(3, SHORT as u64).to_vec(), Vec::new());
    let exchange = async {
        connection.write_all(&pattern).await?;
        connection.shutdown().await?;
        connection.read_to_end(&mut back).await
    };
    let exchanged = exchange.await;
    match exchanged {
        Ok(_) if back == pattern => {}
        Ok(_) if pattern.starts_with(&back) => entry.ended(Ending::Whole),
        Ok(_) => entry.ended(Ending::Wrong(String::from("in a short exchange"))),
        Err(error) => entry.ended(match ending(&error) {
            // In TLS an end without close_notify.
            Ending::Whole => Ending::Broken(error.to_string()),
            ending => ending,
        }),
    }
}

async fn request(doors: &Doors, log: &Log) {
    let begun = Instant::now();
    let fetch = Fetch::get(format!("{}/short", doors.url)).bearer(&doors.token).within(HANGS);
    match fetch.tls(doors.api, HUB_NAME, doors.authority.clone()).await {
        Ok(answer) if answer.status == StatusCode::OK => {
            log.dialled(Way::Gateway, begun, Outcome::Served);
            if *answer.body != *trickle::SHORT.to_vec() {
                log.ended(Way::Gateway, [begun; 2], Ending::Wrong(String::from("in an answer")));
            }
        }
        Ok(answer) => log.dialled(Way::Gateway, begun, told(answer.status, &answer.text())),
        Err(error) => log.dialled(Way::Gateway, begun, Outcome::Mute(format!("{error:#}"))),
    }
}

/// Asks the hub again and again what it knows of the cluster.
async fn ask(doors: Arc<Doors>, log: Log) {
    loop {
        let at = Instant::now();
        let ask = async |path: String| {
            let answer = Fetch::get(path).bearer(&doors.token).tls(doors.api, HUB_NAME, doors.authority.clone()).await;
            answer.and_then(|answer| answer.success()?.json())
        };
        let cluster = ask(format!("{CLUSTERS}/{}", doors.cluster)).await;
        if let (Ok(cluster), Ok(tunnel)) = (cluster, ask(format!("/v1/tunnels/{}", doors.cluster)).await) {
            let conditions = cluster["status"]["conditions"].as_array().into_iter().flatten();
            let mut conditions = conditions.filter(|said| said["type"] == "ManagedClusterConditionAvailable");
            let condition = conditions.any(|said| said["status"] == "True");
            let available = tunnel["available"] == true;
            log.lines().said.push(Said { at, answered: Instant::now(), available, condition });
        }
        sleep(ASKED).await;
    }
}

/// The local ports that `cluster-proxy port-forward` has printed.
pub(crate) async fn forwarded(process: &tests::Process, bound: Duration) -> Result<SocketAddr> {
    let port = |line: &str| line.strip_prefix("Forwarding from ")?.split(' ').next()?.parse().ok();
    process.stdout_line(bound, "a local port", port).await.context("port-forward does not begin")
}
