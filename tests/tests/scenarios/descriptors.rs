//! A hub that has no file descriptor left tells everybody so at once, and serves again when there is one.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use hyper::StatusCode;
use tests::client::{DialError, Entry};
use tests::hub::ClusterAccess;
use tests::service::echo;
use tests::{Client, Fetch, Hub, Program, Spoke, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);

/// Within this everybody has an answer, one after the other where there are many.
const SOON: Duration = Duration::from_secs(10);

/// How many descriptors the hub may have, or as many as ever.
async fn limit(hub: &Hub, files: Option<usize>) -> Result<()> {
    let soft = files.map_or_else(|| String::from("4096"), |files| files.to_string());
    let prlimit = Program::at("/usr/bin/prlimit").arg(format!("--pid={}", hub.process().pid()));
    prlimit.arg(format!("--nofile={soft}:")).run(BOUND).await?.success()?;
    Ok(())
}

/// The highest descriptor that the hub has.
fn highest(hub: &Hub) -> Result<usize> {
    let open = std::fs::read_dir(format!("/proc/{}/fd", hub.process().pid()))?;
    let numbers = open.map(|entry| Ok(entry?.file_name().to_string_lossy().parse()?));
    Ok(numbers.collect::<Result<Vec<usize>>>()?.into_iter().max().unwrap_or_default())
}

#[tokio::test]
async fn without_descriptors_everybody_is_told_at_once_and_the_log_says_it_once() -> Result<()> {
    let hub = Hub::builder().after_shell("ulimit -n 4096").start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    let target = service.address().to_string();
    let admin = hub.credentials();
    let plain = hub.client("c1")?;
    let tls = Client::new(Entry::Tls(hub.addresses().proxy, admin.mutual_tls()?)).cluster("c1", &admin.token()?);
    plain.dial(&target).await?;
    limit(&hub, Some(highest(&hub)? + 1)).await?;
    // Until none is left: there may be free ones between.
    let mut held = Vec::new();
    while let Ok(connection) = plain.dial(&target).await {
        ensure!(held.len() < 1_000, "the limit holds for nobody");
        held.push(connection);
    }
    // Who was told that the connection stands has one, also with the last descriptor.
    for connection in &mut held {
        let mut echo = [0; 5];
        connection.write_all(b"hello").await?;
        timeout(BOUND, connection.read_exact(&mut echo)).await?.context("a connection broke that had been granted")?;
    }
    let begun = Instant::now();
    let mut told = 0;
    for client in [&plain, &tls] {
        for outcome in join_all((0..20).map(|_| timeout(SOON, client.dial(&target)))).await {
            match outcome? {
                Err(DialError::Status { status: 503, body, .. }) if body.contains("descriptor") => told += 1,
                // The hub has closed something in between.
                Ok(_) => {}
                Err(error) => anyhow::bail!("a client was told {error}"),
            }
        }
    }
    eprintln!("{told} of 40 clients were told within {:?}", begun.elapsed());
    ensure!(told > 30, "{told} of 40 clients were told");
    let socks5 = plain.clone().socks5();
    loop {
        match timeout(SOON, socks5.dial(&target)).await? {
            Err(DialError::Reply { .. }) => break,
            // It has taken a descriptor that was free.
            Ok(connection) if held.len() < 1_000 => held.push(connection),
            other => anyhow::bail!("{:?}", other.map(drop)),
        }
    }
    let mut told = 0;
    for answer in join_all((0..10).map(|_| timeout(SOON, hub.ask(Fetch::get("/v1/status"))))).await {
        let answer = answer??;
        told += u32::from(answer.status == StatusCode::SERVICE_UNAVAILABLE && answer.text().contains("descriptor"));
    }
    ensure!(told > 5, "{told} of 10 clients of the API were told");
    timeout(SOON, Fetch::get("/healthz").plain(hub.addresses().metrics)).await??.success()?;
    let lines = hub.process().stderr().iter().filter(|line| line.contains("cannot accept connections")).count();
    ensure!(lines == 1, "the log has {lines} lines about it");

    limit(&hub, None).await?;
    drop(held);
    wait_for(BOUND, "the hub to serve again", async || plain.dial(&target).await).await?;
    // Each port has a reserve of its own, and fills it when it is asked.
    let serves = async || hub.ask(Fetch::get("/v1/status")).await?.success();
    wait_for(BOUND, "the API to serve again", serves).await?;
    Ok(())
}

#[tokio::test]
async fn who_is_one_too_many_for_a_port_is_told_so_and_who_comes_later_is_served() -> Result<()> {
    let hub = Hub::builder().after_shell("ulimit -n 200").start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    let target = service.address().to_string();
    let mut clients = vec![hub.client("c1")?];
    for user in ["u1", "u2", "u3", "u4", "u5"] {
        let token = hub.create_user(user, &ClusterAccess::All).await?.token()?;
        clients.push(Client::new(Entry::Plain(hub.addresses().proxy)).cluster("c1", &token));
    }
    let (mut held, mut told) = (Vec::new(), None);
    for client in &clients {
        let before = held.len();
        told = loop {
            match timeout(SOON, client.dial(&target)).await.context("a client hangs")? {
                Ok(connection) => held.push(connection),
                Err(DialError::Status { status: 503, body, .. }) => break Some(body),
                // Of a port as small a user's share is 17.
                Err(DialError::Status { status: 429, .. }) => break None,
                Err(error) => anyhow::bail!("a client was told {error}"),
            }
        };
        ensure!(held.len() - before <= 17, "one user has {} connections", held.len() - before);
        if told.is_some() {
            break;
        }
    }
    let told = told.context("the port is never full")?;
    eprintln!("{} connections, then: {told}", held.len());
    ensure!(held.len() > 32 && told.contains("as many connections"), "{} and {told}", held.len());
    let client = clients.last().context("there is a client")?;
    // Those that wait a moment for who leaves are served: a few, as a user has but a share of a port that was full.
    let crowd = join_all((0..5).map(|_| timeout(SOON, client.dial(&target))));
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        held.truncate(10);
    };
    let (crowd, ()) = tokio::join!(crowd, leaving);
    for outcome in crowd {
        outcome.context("a client of the crowd hangs")?.context("who waited for room was not served")?;
    }
    Ok(())
}
