//! Fidelity: through the tunnel a connection begins, flows and ends as it would without one.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use socket2::SockRef;
use tests::client::{Connection, Entry};
use tests::metrics::Metrics;
use tests::pattern::Pattern;
use tests::service::half_close::{self, Receipt};
use tests::service::{banner, reset, transfer};
use tests::{Client, Hub, Service, Spoke, allow_open_files, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::sync::{Barrier, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::either::Either;

const BOUND: Duration = Duration::from_secs(30);
/// More than all buffers on the way together, so that what is said last is said long after the first byte has arrived.
const MUCH: u64 = 8 << 20;

/// Every way into the hub that makes a connection, with its name: CONNECT and SOCKS5, over TCP, TLS, mutual TLS and Unix.
fn ways_in(hub: &Hub) -> Result<Vec<(String, Client)>> {
    let credentials = hub.credentials();
    let proxy = hub.addresses().proxy;
    let login = hub.client("c1")?;
    // With a certificate or at the Unix socket the target's name says the cluster.
    let entries = [
        ("TCP", login.clone()),
        ("TLS", login.clone().through(Entry::Tls(proxy, credentials.tls()?))),
        ("mutual TLS", login.clone().through(Entry::Tls(proxy, credentials.mutual_tls()?)).without_login()),
        ("Unix", login.through(Entry::Unix(hub.socket())).without_login()),
    ];
    let both = |(name, client): (&str, Client)| {
        [(format!("CONNECT over {name}"), client.clone()), (format!("SOCKS5 over {name}"), client.socks5())]
    };
    Ok(entries.into_iter().flat_map(both).collect())
}

/// A hub with one spoke, `c1`.
async fn hub_and_spoke() -> Result<(Spoke, Hub)> {
    let hub = Hub::start().await?;
    let spoke = Spoke::of(&hub, "c1").start().await?;
    Ok((spoke, hub))
}

/// The target's name for any client, also one without a login.
fn target(service: &Service) -> String {
    format!("127.0.0.1.c1.clusters.internal:{}", service.port())
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    timeout(BOUND, future).await.with_context(|| format!("{what}: not within {BOUND:?}"))
}

#[tokio::test]
async fn a_client_that_ends_first_still_gets_the_whole_answer() -> Result<()> {
    let (_spoke, hub) = hub_and_spoke().await?;
    let service = half_close::client_first().await?;
    let words = Pattern::new(1, MUCH).to_vec();
    for (name, client) in ways_in(&hub)? {
        let mut connection = client.dial(&target(&service)).await.context(name.clone())?;
        connection.write_all(&words).await?;
        connection.shutdown().await?;
        let mut answer = String::new();
        within(&name, connection.read_to_string(&mut answer)).await?.context(name.clone())?;
        assert_eq!(answer, Receipt::of(&words).to_string(), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_target_that_ends_first_still_gets_all_that_the_client_says() -> Result<()> {
    let (_spoke, hub) = hub_and_spoke().await?;
    let (farewell, words) = (Pattern::new(1, MUCH).to_vec(), Pattern::new(2, MUCH).to_vec());
    let target_first = half_close::target_first(farewell.clone()).await?;
    for (count, (name, client)) in ways_in(&hub)?.into_iter().enumerate() {
        let mut connection = client.dial(&target(target_first.service())).await.context(name.clone())?;
        let mut heard = Vec::new();
        within(&name, connection.read_to_end(&mut heard)).await?.context(name.clone())?;
        assert!(heard == farewell, "{name}: {} bytes came, not the {MUCH} sent", heard.len());
        connection.write_all(&words).await.context(name.clone())?;
        connection.shutdown().await.context(name.clone())?;
        wait_until(BOUND, &format!("the target's receipt, {name}"), async || target_first.receipts().len() > count)
            .await?;
        assert_eq!(target_first.receipts().last(), Some(&Receipt::of(&words)), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reset_by_the_target_is_a_reset_to_the_client() -> Result<()> {
    let (_spoke, hub) = hub_and_spoke().await?;
    let service = reset::after_sending(MUCH).await?;
    for (name, client) in ways_in(&hub)? {
        let mut connection = client.dial(&target(&service)).await.context(name.clone())?;
        let is_unix = matches!(connection, Either::Right(Either::Right(_)));
        within(&name, Pattern::new(reset::SEED, MUCH).read_bytes(&mut connection)).await??;
        connection.write_all(b"!").await?;
        // TLS may keep what is written when the task's budget of reads and writes is used up, and reading does not send it.
        connection.flush().await?;
        let end = within(&format!("{name}, the reset"), connection.read(&mut [0])).await?.map_err(|error| error.kind());
        match end {
            // A Unix socket knows no reset. Its writer does know: after a mere half-close it could go on.
            Ok(0) if is_unix => {
                let error = connection.write_all(b"more").await.err().map(|error| error.kind());
                assert_eq!(error, Some(ErrorKind::BrokenPipe), "{name}");
            }
            end => assert_eq!(end, Err(ErrorKind::ConnectionReset), "{name}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_reset_by_the_client_is_a_reset_to_the_target() -> Result<()> {
    let (_spoke, hub) = hub_and_spoke().await?;
    let (ends, mut ended) = mpsc::channel(1);
    // Only at a Unix socket does the target speak: elsewhere nothing but the reset itself tells of it.
    let (silent, speaking) = (listener(b"", ends.clone()).await?, listener(b"banner", ends).await?);
    for (name, client) in ways_in(&hub)? {
        let service = if name.ends_with("Unix") { &speaking } else { &silent };
        for moment in ["at once", "after some words"] {
            let mut connection = client.dial(&target(service)).await.context(name.clone())?;
            if moment == "after some words" {
                connection.write_all(b"some words").await?;
                connection.flush().await?;
            }
            abort(connection).await?;
            let end = within(&name, ended.recv()).await?;
            assert_eq!(end, Some(Err(ErrorKind::ConnectionReset)), "{name}, {moment}");
        }
    }
    Ok(())
}

/// A target that says `banner`, reads to the end, and reports that.
async fn listener(banner: &'static [u8], ends: mpsc::Sender<Result<u64, ErrorKind>>) -> io::Result<Service> {
    Service::start(move |mut stream| {
        let ends = ends.clone();
        async move {
            stream.write_all(banner).await?;
            let end = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            ends.send(end.map_err(|error| error.kind())).await.map_err(io::Error::other)
        }
    })
    .await
}

/// Closes with a reset. At a Unix socket that is a close with unread bytes (unix(7)), so this waits until there are some.
async fn abort(connection: Connection) -> io::Result<()> {
    match connection {
        Either::Left(tcp) => reset::reset(tcp),
        Either::Right(Either::Left(tls)) => reset::reset(tls.into_inner().0),
        Either::Right(Either::Right(unix)) => loop {
            // Readable may still be said of what was read before.
            unix.readable().await?;
            let peek = || SockRef::from(&unix).peek(&mut [MaybeUninit::uninit()]);
            match unix.try_io(Interest::READABLE, peek) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                peeked => return peeked.map(drop),
            }
        },
    }
}

#[tokio::test]
async fn a_target_that_speaks_first_is_heard_at_every_frontend() -> Result<()> {
    const BANNER: &[u8] = b"220 mail.example ESMTP\r\n";
    let (_spoke, hub) = hub_and_spoke().await?;
    let service = banner::start(BANNER).await?;
    for (name, client) in ways_in(&hub)? {
        let mut connection = client.dial(&target(&service)).await.context(name.clone())?;
        let mut heard = [0; BANNER.len()];
        within(&name, connection.read_exact(&mut heard)).await??;
        assert_eq!(heard, BANNER, "{name}");
        // The connection goes on as usual, and ends when the client ends it.
        connection.write_all(b"EHLO client\r\n").await?;
        connection.shutdown().await?;
        let mut echo = String::new();
        within(&name, connection.read_to_string(&mut echo)).await?.context(name.clone())?;
        assert_eq!(echo, "EHLO client\r\n", "{name}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_each_way_arrives_byte_by_byte() -> Result<()> {
    const BOUND: Duration = Duration::from_secs(600);
    let (_spoke, hub) = hub_and_spoke().await?;
    let service = transfer::start().await?;
    let start = Instant::now();
    let mut connection = hub.client("c1")?.dial(&target(&service)).await?;
    timeout(BOUND, transfer::exchange(&mut connection, Pattern::new(1, 1 << 30))).await??;
    eprintln!("1 GiB each way took {:?}", start.elapsed());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_connections_at_once_are_never_mixed_up() -> Result<()> {
    const COUNT: usize = 1_000;
    const LENGTH: u64 = 50_000;
    // Both ends of each: the client's and the target's.
    allow_open_files(4_096)?;
    // All are one user's.
    let hub = Hub::builder().args(["--max-pending-per-user-per-cluster", "1000"]).start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = transfer::start().await?;
    let (ways_in, target) = (ways_in(&hub)?, target(&service));
    let all_open = Arc::new(Barrier::new(COUNT + 1));
    let mut clients = JoinSet::new();
    for (seed, (_, client)) in (1..=COUNT as u64).zip(ways_in.into_iter().cycle()) {
        let (target, all_open) = (target.clone(), Arc::clone(&all_open));
        clients.spawn(async move {
            let dialled = client.dial(&target).await;
            all_open.wait().await;
            // Until the hub's count is read.
            all_open.wait().await;
            transfer::exchange(&mut dialled?, Pattern::new(seed, LENGTH)).await
        });
    }
    within("a thousand dials", all_open.wait()).await?;
    let streams = streams(&hub).await?;
    all_open.wait().await;
    while let Some(exchanged) = within("the exchanges", clients.join_next()).await? {
        exchanged??;
    }
    ensure!(streams == COUNT as f64, "{streams} streams were open at once, not {COUNT}");
    wait_until(BOUND, "no stream left", async || self::streams(&hub).await.is_ok_and(|streams| streams == 0.0)).await
}

async fn streams(hub: &Hub) -> Result<f64> {
    Ok(Metrics::fetch(hub.addresses().metrics).await?.sum("proxy_server_streams", &[("cluster", "c1")]))
}
