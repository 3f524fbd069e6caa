//! Strangers: who shows no credentials can have the hub hold nothing, stays for seconds, and takes nobody's place.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{StreamExt as _, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tests::client::{DialError, Entry};
use tests::raw_agent::{AgentCredentials, RawAgent};
use tests::{Client, Fetch, HUB_NAME, HalfOpen, Hub, Spoke, allow_open_files, wait_for};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);
/// After how long a stranger is gone, at the latest: the hub gives it 10 s on the API's port and 18 s on the clients'.
const STAY: Duration = Duration::from_secs(40);
/// What the hub may grow by beside what is held on purpose: buffers of TLS and HTTP/2, and a heap that is never quite full.
const SLACK: u64 = 96 << 20;

type Body = UnsyncBoxBody<Bytes, std::convert::Infallible>;

/// An HTTP/2 connection to the API.
struct Http2 {
    requests: http2::SendRequest<Body>,
    /// Ends with the connection.
    driver: JoinSet<hyper::Result<()>>,
}

impl Http2 {
    async fn open(hub: &Hub) -> Result<Self> {
        let mut config = ClientConfig::clone(&*hub.credentials().tls()?);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(hub.addresses().api).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HUB_NAME)?, tcp).await?;
        let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Ok(Self { requests, driver })
    }

    async fn ask(&mut self, path: &str, token: Option<&str>, body: Body) -> Result<StatusCode> {
        let uri = format!("https://{HUB_NAME}{path}");
        let mut request = Request::post(uri).header(header::CONTENT_TYPE, "application/json").body(body)?;
        if body_is_empty(&request) {
            *request.method_mut() = hyper::Method::GET;
        }
        if let Some(token) = token {
            request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse()?);
        }
        self.requests.ready().await?;
        Ok(self.requests.send_request(request).await?.status())
    }

    async fn watch(&mut self, path: &str, token: &str) -> Result<Response<hyper::body::Incoming>> {
        let request = Request::get(format!("https://{HUB_NAME}{path}"));
        let request = request.header(header::AUTHORIZATION, format!("Bearer {token}")).body(empty())?;
        self.requests.ready().await?;
        Ok(self.requests.send_request(request).await?)
    }

    /// Waits for the connection's end.
    async fn ended(mut self) -> Result<()> {
        timeout(STAY, self.driver.join_next()).await.context("the connection is still there").map(drop)
    }
}

fn body_is_empty(request: &Request<Body>) -> bool {
    hyper::body::Body::is_end_stream(request.body())
}

fn empty() -> Body {
    Empty::new().boxed_unsync()
}

/// 3 MB that no end follows.
fn unfinished() -> Body {
    let piece = Bytes::from(vec![b' '; 64 << 10]);
    let pieces = stream::iter(0..46).map(move |_| Ok(Frame::data(piece.clone())));
    StreamBody::new(pieces.chain(stream::pending())).boxed_unsync()
}

/// Begins 400 requests with unfinished bodies on one connection, for each of `paths` in turn, and gives the most that the hub
/// grows by in some seconds.
async fn growth(hub: &Hub, paths: &[&str], token: Option<&str>) -> Result<u64> {
    let before = hub.process().resident_bytes()?;
    let connection = Http2::open(hub).await?;
    let mut asking = JoinSet::new();
    for number in 0..400 {
        let mut connection = Http2 { requests: connection.requests.clone(), driver: JoinSet::new() };
        let (path, token) = (paths[number % paths.len()].to_owned(), token.map(str::to_owned));
        // Most have no answer: they end with the test.
        asking.spawn(async move { connection.ask(&path, token.as_deref(), unfinished()).await });
    }
    let (begun, mut most) = (Instant::now(), before);
    while begun.elapsed() < Duration::from_secs(8) {
        most = most.max(hub.process().resident_bytes()?);
        // The hub still serves.
        hub.ask(Fetch::get("/v1/status")).await?.success()?;
        sleep(Duration::from_millis(50)).await;
    }
    let growth = most.saturating_sub(before);
    eprintln!("{} KiB before, at most {} KiB beside 400 unfinished bodies", before >> 10, most >> 10);
    Ok(growth)
}

#[tokio::test]
async fn unfinished_bodies_of_nobody_are_not_held() -> Result<()> {
    let hub = Hub::start().await?;
    hub.ask(Fetch::get("/v1/status")).await?.success()?;
    let paths =
        ["/version", "/healthz", "/v1/users", "/apis/cluster.open-cluster-management.io/v1/managedclusters", "/"];
    let growth = growth(&hub, &paths, None).await?;
    ensure!(growth < SLACK, "the hub grew by {} MiB", growth >> 20);
    Ok(())
}

#[tokio::test]
async fn unfinished_bodies_of_one_user_have_a_bound_and_hold_up_nobody_else() -> Result<()> {
    let hub = Hub::start().await?;
    let alice = hub.create_user("alice", &tests::hub::ClusterAccess::All).await?;
    // What every user may send.
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let growth = growth(&hub, &[path], Some(&alice.token()?)).await?;
    ensure!(growth < SLACK, "the hub grew by {} MiB", growth >> 20);
    Ok(())
}

#[tokio::test]
async fn a_connection_without_credentials_ends_within_seconds_however_busy_it_is() -> Result<()> {
    let hub = Hub::start().await?;
    let token = hub.credentials().token()?;
    let (mut known, mut busy, silent) = (Http2::open(&hub).await?, Http2::open(&hub).await?, Http2::open(&hub).await?);
    ensure!(known.ask("/v1/status", Some(&token), empty()).await? == 200);
    let (requests, begun) = (busy.requests.clone(), Instant::now());
    let asking = async {
        let mut asked = Http2 { requests, driver: JoinSet::new() };
        while asked.ask("/version", None, empty()).await.is_ok() {
            ensure!(begun.elapsed() < STAY, "who asks for the version stays for ever");
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    };
    let entries = [Entry::Tls(hub.addresses().api, hub.credentials().tls()?), Entry::Plain(hub.addresses().proxy)];
    let idle = entries.map(async |entry| {
        let mut connection = Client::new(entry).enter().await?;
        let ended = timeout(STAY, connection.read_to_end(&mut Vec::new())).await;
        ended.context("a silent connection is still there").map(drop)
    });
    let idle = async { try_join_all(idle).await.map(drop) };
    tokio::try_join!(asking, silent.ended(), idle)?;
    ensure!(busy.driver.join_next().await.is_some());
    ensure!(known.ask("/v1/status", Some(&token), empty()).await? == 200, "who has shown a token may stay");
    let metrics = tests::metrics::Metrics::fetch(hub.addresses().metrics).await?;
    let left = |listener: &str| {
        let mut samples = metrics.of_family("proxy_server_guests_left_total");
        samples.any(|sample| sample.labels["listener"] == listener && sample.labels["reason"] == "late")
    };
    ensure!(left("api"), "{:?}", metrics.samples());
    Ok(())
}

#[tokio::test]
async fn strangers_take_neither_the_descriptors_nor_the_place_of_anybody() -> Result<()> {
    allow_open_files(8_000)?;
    // So few that either port's connections alone would take all of them.
    let hub = Hub::builder().after_shell("ulimit -n 700").start().await?;
    let credentials = AgentCredentials::joined(&hub, "a", "agent").await?;
    let mut strangers = Vec::new();
    for _ in 0..1_000 {
        for address in [hub.addresses().api, hub.addresses().proxy, hub.addresses().metrics] {
            strangers.push(timeout(BOUND, TcpStream::connect(address)).await??);
        }
    }
    let open = hub.process().open_files()?;
    ensure!(open < 600, "{open} of 700 descriptors are taken");
    let agent = RawAgent::open(&hub, &credentials).await?;
    hub.ask(Fetch::get("/v1/status")).await?.success()?;
    agent.connect(&hub.client("a")?, "target:80").await?;
    Fetch::get("/readyz").plain(hub.addresses().metrics).await?.success()?;
    drop(strangers);
    wait_for(BOUND, "the hub to let go", async || {
        let open = hub.process().open_files()?;
        ensure!(open < 100, "{open} files are open");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn handshakes_that_go_silent_keep_no_agent_out() -> Result<()> {
    let hub = Hub::start().await?;
    let credentials = AgentCredentials::joined(&hub, "a", "agent").await?;
    let silent = HalfOpen::prepare(&hub, 900, 8).await?;
    // After five seconds of a hundred a second, earlier hubs had no room for five more.
    let opening = async {
        sleep(Duration::from_secs(4)).await;
        let mut waits = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            RawAgent::open(&hub, &credentials).await?.close().await;
            waits.push(begun.elapsed());
        }
        Ok(waits)
    };
    let waits: Result<Vec<Duration>> = tokio::select! {
        waits = opening => waits,
        sent = silent.send(150) => sent.map(|()| Vec::new()),
    };
    let waits = waits?;
    eprintln!("an agent connects within {waits:?}");
    let longest = waits.iter().max().context("nobody connected")?;
    ensure!(*longest < Duration::from_secs(3), "an agent waited {longest:?}");
    Ok(())
}

#[tokio::test]
async fn wrong_tokens_are_throttled_and_right_ones_of_the_same_address_are_not() -> Result<()> {
    let hub = Hub::start().await?;
    let mut connection = Http2::open(&hub).await?;
    let mut answers = Vec::new();
    for number in 0..200 {
        let token = format!("cpu-0123456789.{number}");
        answers.push(connection.ask("/v1/status", Some(&token), empty()).await?.as_u16());
        if number % 20 == 0 {
            hub.ask(Fetch::get("/v1/status")).await?.success()?;
        }
    }
    let counted = |status: u16| answers.iter().filter(|answer| **answer == status).count();
    eprintln!("{} were told that the token is wrong, {} to wait", counted(401), counted(429));
    ensure!(counted(401) >= 50 && counted(429) >= 50 && counted(401) + counted(429) == 200, "{answers:?}");
    Ok(())
}

#[tokio::test]
async fn wrong_tokens_are_throttled_on_the_proxy_port_too() -> Result<()> {
    let hub = Hub::start().await?;
    let mut answers = Vec::new();
    for number in 0..200 {
        let wrong = hub.client("a")?.cluster("a", &format!("cpu-0123456789.{number}"));
        match wrong.dial("target:80").await {
            Err(DialError::Status { status, .. }) => answers.push(status),
            other => anyhow::bail!("{other:?}"),
        }
        if number % 20 == 0 {
            let right = hub.client("a")?.dial("target:80").await;
            ensure!(matches!(right, Err(DialError::Status { status: 404, .. })), "who has the right token: {right:?}");
        }
    }
    let counted = |status: u16| answers.iter().filter(|answer| **answer == status).count();
    ensure!(counted(407) >= 50 && counted(429) >= 50 && counted(407) + counted(429) == 200, "{answers:?}");
    Ok(())
}

#[tokio::test]
async fn who_is_one_too_many_for_the_api_is_told_so() -> Result<()> {
    let hub = Hub::builder().after_shell("ulimit -n 200").start().await?;
    let path = "/apis/cluster.open-cluster-management.io/v1/managedclusters";
    let mut tokens = vec![hub.credentials().token()?];
    // One user has but a share of the port.
    for user in ["u1", "u2", "u3", "u4", "u5", "u6"] {
        tokens.push(hub.create_user(user, &tests::hub::ClusterAccess::All).await?.token()?);
    }
    let (mut held, mut told) = (Vec::new(), None);
    for token in &tokens {
        loop {
            let mut connection = Http2::open(&hub).await.with_context(|| format!("no word after {}", held.len()))?;
            let answer = timeout(BOUND, connection.watch(path, token)).await.context("a client hangs")??;
            match answer.status() {
                StatusCode::OK => held.push(connection),
                StatusCode::TOO_MANY_REQUESTS => break,
                StatusCode::SERVICE_UNAVAILABLE => {
                    told = Some(answer);
                    break;
                }
                other => anyhow::bail!("{other}"),
            }
        }
    }
    let told = told.with_context(|| format!("{} have room", held.len()))?;
    ensure!(told.headers().contains_key("retry-after"), "{told:?}");
    drop(held);
    wait_for(BOUND, "room at the port", async || {
        let status = Http2::open(&hub).await?.watch(path, &tokens[0]).await?.status();
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn one_user_has_so_many_watches_and_no_more() -> Result<()> {
    allow_open_files(4_000)?;
    let hub = Hub::start().await?;
    let (alice, token) = (hub.create_user("alice", &tests::hub::ClusterAccess::All).await?, hub.credentials().token()?);
    let path = "/apis/cluster.open-cluster-management.io/v1/managedclusters?watch=true";
    let connection = Http2::open(&hub).await?;
    let mut asking = JoinSet::new();
    for _ in 0..600 {
        let mut connection = Http2 { requests: connection.requests.clone(), driver: JoinSet::new() };
        let (token, path) = (token.clone(), path.to_owned());
        asking.spawn(async move { connection.watch(&path, &token).await });
    }
    let (mut open, mut refused) = (Vec::new(), 0);
    while let Some(answer) = timeout(BOUND, asking.join_next()).await? {
        let answer = answer??;
        match answer.status() {
            StatusCode::OK => open.push(answer),
            StatusCode::TOO_MANY_REQUESTS => refused += 1,
            other => anyhow::bail!("{other}"),
        }
    }
    ensure!((open.len(), refused) == (512, 88), "{} are open, {refused} were refused", open.len());
    let mut other = Http2::open(&hub).await?;
    ensure!(other.watch(path, &alice.token()?).await?.status() == 200, "another user has none to spare");
    drop(open);
    wait_for(BOUND, "room for a watch", async || {
        let mut connection = Http2 { requests: connection.requests.clone(), driver: JoinSet::new() };
        let status = connection.watch(path, &token).await?.status();
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_watch_of_a_deleted_user_tells_nothing_of_what_their_namesake_may_see() -> Result<()> {
    let hub = Hub::start().await?;
    let named = |cluster: &str| tests::hub::ClusterAccess::Named(vec![cluster.to_owned()]);
    for cluster in ["theirs", "others"] {
        Spoke::of(&hub, cluster).start().await?;
    }
    let alice = hub.create_user("alice", &named("theirs")).await?;
    let path = "/apis/cluster.open-cluster-management.io/v1/managedclusters?watch=true";
    let mut watching = Http2::open(&hub).await?.watch(path, &alice.token()?).await?;
    let mut told = Vec::new();
    while !String::from_utf8_lossy(&told).contains("theirs") {
        let frame = timeout(BOUND, watching.body_mut().frame()).await?.context("the watch ended")??;
        told.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    hub.ask(Fetch::new(hyper::Method::DELETE, "/v1/users/alice")).await?.success()?;
    hub.create_user("alice", &named("others")).await?;
    hub.deny("others").await?;
    // To the end that the hub puts to it.
    while let Some(frame) = timeout(STAY, watching.body_mut().frame()).await? {
        told.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    let told = String::from_utf8_lossy(&told);
    ensure!(!told.contains("others"), "{told}");
    Ok(())
}
