//! Crowds: whoever takes all that it can get, beside somebody who does a day's work, is never refused and hardly waits.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use certs::PrivateKey;
use futures_util::future::join_all;
use hyper::Method;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use tests::client::Entry;
use tests::hub::ClusterAccess;
use tests::latency::{Latency, compare};
use tests::raw_agent::{AgentCredentials, RawAgent};
use tests::service::echo;
use tests::{Client, Fetch, HUB_NAME, HalfOpen, Hub, Service, Spoke, allow_open_files};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tunnel::{AgentMessage, Export, Exports, Renew};

use crate::ALONE;

/// Rounds, and what is done in each: enough for a slowest hundredth.
const ROUNDS: usize = 3;
const TIMES: usize = 50;
/// How long the attack goes on before it is measured.
const HEAD_START: Duration = Duration::from_secs(2);
/// What the attacker's own work costs here, where it has the same processors as the hub and the one who is measured.
const OWN_WORK: Duration = Duration::from_millis(100);

/// A hub, a spoke and a target in it.
struct Day {
    hub: Hub,
    _spoke: Spoke,
    target: Service,
}

impl Day {
    async fn start() -> Result<Self> {
        allow_open_files(20_000)?;
        let hub = Hub::start().await?;
        let spoke = Spoke::of(&hub, "c1").start().await?;
        Ok(Self { hub, _spoke: spoke, target: echo::start().await? })
    }

    /// A question to the API and a connection to the target, each on a connection of its own; and the hub's health.
    async fn work(&self) -> Result<()> {
        self.hub.ask(Fetch::get("/v1/tunnels/c1")).await?.success()?;
        self.dial(&self.hub.client("c1")?).await?;
        Fetch::get("/readyz").plain(self.hub.addresses().metrics).await?.success()?;
        Ok(())
    }

    async fn dial(&self, client: &Client) -> Result<()> {
        let mut connection = client.dial(&self.target.address().to_string()).await?;
        connection.write_all(b"hello").await?;
        let mut answer = [0; 5];
        connection.read_exact(&mut answer).await?;
        ensure!(&answer == b"hello");
        Ok(())
    }
}

fn assert_hardly_waits(latency: Latency) {
    let Latency { alone, beside } = latency;
    eprintln!("the slowest hundredth: {alone:?} alone, {beside:?} beside");
    assert!(beside <= 2 * alone + OWN_WORK, "{beside:?} beside the crowd, {alone:?} alone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_silent_strangers() -> Result<()> {
    let _alone = ALONE.lock().await;
    let day = Day::start().await?;
    let tls = TlsConnector::from(http2(&day.hub)?);
    let addresses = [day.hub.addresses().api, day.hub.addresses().proxy, day.hub.addresses().metrics];
    let attack = async || {
        let mut held = Vec::new();
        let mut turns = tokio::time::interval(Duration::from_millis(10));
        loop {
            turns.tick().await;
            for address in addresses {
                held.push(TcpStream::connect(address).await?);
            }
            // Some shake hands.
            if held.len() % 5 == 0 {
                let tcp = held.pop().context("one was just opened")?;
                drop(tls.connect(ServerName::try_from(HUB_NAME)?, tcp).await);
            }
        }
    };
    assert_hardly_waits(compare(ROUNDS, TIMES, HEAD_START, async || day.work().await, attack).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_unfinished_bodies_of_strangers() -> Result<()> {
    let _alone = ALONE.lock().await;
    let day = Day::start().await?;
    let head = "POST /version HTTP/1.1\r\nHost: hub\r\nContent-Length: 3000000\r\n\r\n";
    let begun = [head.as_bytes(), &[b' '; 16 << 10]].concat();
    let entry = Entry::Tls(day.hub.addresses().api, day.hub.credentials().tls()?);
    let attack = async || {
        let mut held = Vec::new();
        let mut turns = tokio::time::interval(Duration::from_millis(40));
        loop {
            turns.tick().await;
            let mut connection = Client::new(entry.clone()).enter().await?;
            // It may be over before all is said.
            let _ = connection.write_all(&begun).await;
            held.push(connection);
        }
    };
    assert_hardly_waits(compare(ROUNDS, TIMES, HEAD_START, async || day.work().await, attack).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agents_that_connect_beside_handshakes_that_go_silent() -> Result<()> {
    let _alone = ALONE.lock().await;
    let day = Day::start().await?;
    // Each comes as often as an agent may.
    let mut agents = Vec::new();
    for name in ["c2", "c3", "c4", "c5"] {
        agents.push(AgentCredentials::joined(&day.hub, name, "agent").await?);
    }
    let mut turns = agents.iter().cycle();
    let silent = HalfOpen::prepare(&day.hub, 900, 8).await?;
    let work = async || {
        RawAgent::open(&day.hub, turns.next().context("a circle has no end")?).await?.close().await;
        Ok(())
    };
    // Longer than it takes to fill the room of earlier hubs: 192 handshakes of 10 s.
    let latency = compare(1, 40, Duration::from_secs(3), work, async || silent.send(150).await).await?;
    assert_hardly_waits(latency);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_user_who_takes_a_cluster() -> Result<()> {
    let _alone = ALONE.lock().await;
    let day = Day::start().await?;
    let greedy = day.hub.create_user("greedy", &ClusterAccess::All).await?.token()?;
    let client = Client::new(Entry::Plain(day.hub.addresses().proxy)).cluster("c1", &greedy);
    let target = day.target.address().to_string();
    let attack = async || {
        let mut held = Vec::new();
        while held.len() < 4_200 {
            let dialled = join_all((0..100).map(|_| client.dial(&target))).await;
            let before = held.len();
            held.extend(dialled.into_iter().flatten());
            if held.len() == before {
                eprintln!("the greedy one has {before} connections, and gets no more");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        }
        pending().await
    };
    assert_hardly_waits(compare(ROUNDS, TIMES, 5 * HEAD_START, async || day.work().await, attack).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_an_agent_that_asks_on_and_on() -> Result<()> {
    let _alone = ALONE.lock().await;
    let day = Day::start().await?;
    let credentials = AgentCredentials::joined(&day.hub, "c2", "agent").await?;
    let csr = PrivateKey::from_pem(&credentials.key.to_pem())?.csr_der()?;
    let export = Export { name: "bad name!".into(), host: "web".into(), port: 80, ..Export::default() };
    let attack = async || {
        loop {
            // A tunnel that is refused is one that is tried again.
            let Ok(agent) = RawAgent::open(&day.hub, &credentials).await else {
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            };
            for _ in 0..200 {
                let items = vec![export.clone(); 100];
                let said = agent.say(AgentMessage::Renew(Renew { csr: csr.clone() })).is_ok()
                    && agent.say(AgentMessage::Exports(Exports { items })).is_ok();
                if !said {
                    break;
                }
            }
        }
    };
    assert_hardly_waits(compare(ROUNDS, TIMES, HEAD_START, async || day.work().await, attack).await?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_beside_as_many_watches_as_one_user_gets() -> Result<()> {
    const WATCHES: usize = 2_000;
    const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
    let _alone = ALONE.lock().await;
    let day = Day::start().await?;
    let token = day.hub.credentials().token()?;
    let rules: Vec<_> =
        (0..20).map(|at| json!({"apiGroups": [""], "resources": [format!("r{at}")], "verbs": ["get"]})).collect();
    let role = json!({"kind": "ClusterRole", "metadata": {"name": "measured"}, "rules": rules});
    day.hub.ask(Fetch::new(Method::POST, ROLES).json(&role)).await?.success()?;
    let mut count = 0;
    let work = async || {
        count += 1;
        let patch = json!({"metadata": {"annotations": {"count": count.to_string()}}}).to_string();
        let request = Fetch::new(Method::PATCH, format!("{ROLES}/measured"));
        let request = request.header("content-type", "application/merge-patch+json").body(patch);
        day.hub.ask(request).await?.success().map(drop)
    };
    let request = format!(
        "GET {ROLES}?watch=true&fieldSelector=metadata.name%3Dother HTTP/1.1\r\nHost: hub\r\nAuthorization: Bearer {token}\r\n\r\n"
    );
    let entry = Entry::Tls(day.hub.addresses().api, day.hub.credentials().tls()?);
    let attack = async || {
        let mut watches = Vec::new();
        while watches.len() < WATCHES {
            let mut watch = Client::new(entry.clone()).enter().await?;
            watch.write_all(request.as_bytes()).await?;
            watches.push(watch);
        }
        eprintln!("{WATCHES} watches were asked for");
        pending().await
    };
    assert_hardly_waits(compare(ROUNDS, TIMES, 5 * HEAD_START, work, attack).await?);
    Ok(())
}

fn http2(hub: &Hub) -> Result<Arc<ClientConfig>> {
    let mut config = ClientConfig::clone(&*hub.credentials().tls()?);
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}
