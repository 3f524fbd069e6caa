//! konnectivity's gRPC frontend, as an independent client (grpcio) drives it. The scripts print what they were told as JSON.

mod entries;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tests::service::black_hole::BlackHole;
use tests::service::{banner, black_hole, echo, half_close, reset, silent, stalled};
use tests::{Hub, Process, Program, Service, Spoke, tool, wait_until};
use tokio::io::AsyncWriteExt as _;

const BOUND: Duration = Duration::from_secs(90);
/// What the hub may hold in all while 256 MiB wait for a target that takes nothing.
const MOST_HELD: u64 = 128 << 20;

/// A script of `tests/clients/konnectivity`, with the administrator's token.
fn script(hub: &Hub, name: &str) -> Result<Program> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/konnectivity").join(name);
    Ok(tool::grpc_python()?.arg(file).env("TOKEN", hub.credentials().token()?))
}

fn json_of(said: &str) -> Result<Value> {
    serde_json::from_str(said.trim()).with_context(|| format!("not JSON: {said}"))
}

/// A target that sends for as long as it is taken.
async fn sends_on() -> Result<Service> {
    let serve = |mut stream: tokio::net::TcpStream| async move {
        loop {
            stream.write_all(&[7; 64 * 1024]).await?;
        }
    };
    Ok(Service::start_narrow(serve).await?)
}

/// A target that ends neither when its client does, nor by itself.
async fn stays() -> Result<Service> {
    let serve = |stream: tokio::net::TcpStream| async move {
        let _open = stream;
        std::future::pending().await
    };
    Ok(Service::start(serve).await?)
}

/// What the hub said in that row: its packets' kinds and errors, and the call's status.
fn told<'a>(answers: &'a Value, row: &str) -> (Vec<(&'a str, &'a str)>, i64) {
    let said = answers[row]["said"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |packet: &'a Value, field| packet[field].as_str().unwrap_or("?");
    let packets = said.iter().map(|packet| (text(packet, "kind"), text(packet, "error"))).collect();
    (packets, answers[row]["status"].as_i64().unwrap_or(-1))
}

#[tokio::test]
async fn every_row_of_the_state_machine_is_answered_as_gos_client_expects() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let (echo, hole, stays, sends_on) =
        (echo::start().await?, black_hole::start().await?, stays().await?, sends_on().await?);
    let ends = Service::start(|mut stream| async move { stream.shutdown().await }).await?;
    let (resets, to_the_end) = (reset::after_reading(5).await?, half_close::client_first().await?);
    let targets = json!({
        "echo": echo.address(), "hole": hole.address()?, "stays": stays.address(), "sends on": sends_on.address(),
        "ends": ends.address(), "resets": resets.address(), "reads to the end": to_the_end.address(),
        "unknown cluster": "web.ghost.clusters.internal:80", "two clusters": "web.two.clusters.internal:80",
        "refused": "127.0.0.1:1", "no name": "no-such-name.invalid:80", "no port": "web",
    });
    let address = hub.addresses().proxy.to_string();
    let said = script(&hub, "rows.py")?.args([&address, &targets.to_string()]).run(BOUND).await?.success()?;
    let answers = json_of(&said)?;

    let rows: [(&str, &[(&str, &str)], i64); 27] = [
        ("data first", &[("CLOSE_RSP", "backend not initialized")], 3),
        ("close first", &[("CLOSE_RSP", "backend not initialized")], 3),
        ("two dials", &[("CLOSE_RSP", "a stream carries one dial")], 3),
        ("two dials at once", &[("DIAL_RSP", "a stream carries one dial")], 3),
        ("unknown cluster", &[("DIAL_RSP", "no cluster named ghost")], 0),
        ("two clusters", &[("DIAL_RSP", "two different clusters are named")], 0),
        ("refused", &[("DIAL_RSP", "check the port")], 0),
        ("no name", &[("DIAL_RSP", "check the name")], 0),
        ("no port", &[("DIAL_RSP", "port 0 cannot be dialled")], 0),
        ("udp", &[("DIAL_RSP", "only protocol tcp")], 0),
        ("foreign data", &[("CLOSE_RSP", "mismatched connection IDs"), ("CLOSE_RSP", "mismatched connection IDs")], 3),
        ("foreign close", &[("CLOSE_RSP", "mismatched connection IDs"), ("CLOSE_RSP", "mismatched connection IDs")], 3),
        ("data without an ID", &[("CLOSE_RSP", "")], 0),
        ("close", &[("CLOSE_RSP", "")], 0),
        ("close of one that stays", &[("CLOSE_RSP", "did not end in time")], 0),
        ("close of one that sends on", &[("CLOSE_RSP", "did not end in time")], 0),
        ("target ends", &[("CLOSE_RSP", "")], 0),
        ("target resets", &[("CLOSE_RSP", "connection reset")], 0),
        ("dial called off", &[], 0),
        ("dial closed", &[("CLOSE_RSP", "")], 0),
        ("client ends", &[("DATA", ""), ("CLOSE_RSP", "")], 0),
        ("unknown", &[("CLOSE_RSP", "")], 0),
        ("malformed", &[], 3),
        ("malformed later", &[("CLOSE_RSP", "the message is no Packet")], 3),
        ("compressed", &[], 12),
        ("too long", &[("CLOSE_RSP", "longer than 8 MiB")], 8),
        ("unknown method", &[], 12),
    ];
    for (row, packets, status) in rows {
        let (said, ended) = told(&answers, row);
        let fits = |said: &(&str, &str), wanted: &(&str, &str)| {
            said.0 == wanted.0 && said.1.contains(wanted.1) && said.1.is_empty() == wanted.1.is_empty()
        };
        let all = said.len() == packets.len() && said.iter().zip(packets).all(|(said, wanted)| fits(said, wanted));
        assert!(all && ended == status, "{row}: {said:?} and status {ended}");
    }
    assert_eq!(answers["agents' method"]["status"], 12);
    assert_eq!(answers["close"]["bytes"], 100_000, "CLOSE_RSP comes after all data");
    // What was under way when it closed, and a few packets more; the target would send gigabytes.
    let bytes = answers["close of one that sends on"]["bytes"].as_u64().context("no bytes")?;
    assert!(bytes < 64 << 20, "{bytes} bytes to a client that has closed");
    assert_eq!(answers["client ends"]["said"][0]["data"], half_close::Receipt::of(b"abc").to_string());
    wait_until(BOUND, "the targets' connections to end", async || {
        [&echo, &sends_on].iter().all(|service| service.open() == 0)
    })
    .await
}

#[tokio::test]
async fn bytes_arrive_whole_and_a_stalled_stream_holds_up_no_other() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let (echo, banner, stalled) =
        (echo::start().await?, banner::start("220 ready\r\n").await?, stalled::start().await?);
    let sends_on = sends_on().await?;
    let targets = json!({
        "echo": echo.address(), "banner": banner.address(), "stalled": stalled.service().address(),
        "sends on": sends_on.address(),
    });
    let address = hub.addresses().proxy.to_string();
    let mut script = script(&hub, "bytes.py")?.args([&address, &targets.to_string()]).with_stdin().spawn()?;
    let answers = script.stdout_line(BOUND, "the answers", |line| serde_json::from_str::<Value>(line).ok()).await?;
    assert_eq!(answers["banners"], json!(["220 ready\r\n"]));
    assert_eq!(answers["echoed"], true);
    assert_eq!(answers["after an empty DATA"], "after nothing");
    let ended = json!([[{ "kind": "CLOSE_RSP", "error": "" }], 0]);
    assert_eq!(answers["echo ended"], ended);
    assert_eq!(answers["beside stalled ones"], ended);
    assert_eq!(stalled.received(), 0);
    let held = hub.process().peak_resident_bytes()?;
    assert!(held < MOST_HELD, "the hub held {held} bytes");
    script.write(b"\n", BOUND).await?;
    script.exits_with(0, BOUND).await
}

#[tokio::test]
async fn ten_thousand_dials_and_bursts_of_cancelled_ones_share_a_connection() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let (echo, hole) = (echo::start().await?, black_hole::start().await?);
    let addresses = [hub.addresses().proxy.to_string(), echo.address().to_string(), hole.address()?.to_string()];
    let said = script(&hub, "many.py")?.args(addresses).run(BOUND).await?.success()?;
    assert_eq!(json_of(&said)?, json!({ "right": 10_000, "cancelled": 1500 }));
    wait_until(BOUND, "no connection at the target", async || echo.open() == 0).await?;
    assert_eq!(echo.accepted(), 10_000);
    let audit = hub.process().stderr();
    let dials = audit.iter().filter(|line| line.contains(r#"frontend="konnectivity""#));
    let clients: BTreeSet<_> = dials.filter_map(|line| line.split_once("peer=\"")?.1.split('"').next()).collect();
    assert_eq!(clients.len(), 1, "one connection for all dials: {clients:?}");
    Ok(())
}

/// A connection and a dial under way, and what their client is told of their end.
struct Doomed {
    script: Process,
    _targets: (Service, BlackHole),
}

impl Doomed {
    async fn start(hub: &Hub) -> Result<Self> {
        let targets = (silent::start().await?, black_hole::start().await?);
        let addresses = [hub.addresses().proxy, targets.0.address(), targets.1.address()?];
        let script = script(hub, "lost.py")?.args(addresses.map(|address| address.to_string())).spawn()?;
        script.stdout_line(BOUND, "ready", |line| (line == "ready").then_some(())).await?;
        Ok(Self { script, _targets: targets })
    }

    /// Both have ended with an error in konnectivity's own words, and nothing else was said.
    async fn ended_with_errors(self) -> Result<()> {
        let answers = |line: &str| serde_json::from_str::<Value>(line).ok();
        let answers = self.script.stdout_line(BOUND, "the answers", answers).await?;
        for (of, kind) in [(0, "CLOSE_RSP"), (1, "DIAL_RSP")] {
            let said = &answers[of][0];
            assert_eq!((said[0]["kind"].as_str(), said.as_array().map(Vec::len)), (Some(kind), Some(1)), "{answers}");
            assert!(said[0]["error"].as_str().is_some_and(|error| !error.is_empty()), "{answers}");
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_agent_that_is_lost_ends_connections_and_dials_with_an_error() -> Result<()> {
    let hub = Hub::start().await?;
    let mut agent = Spoke::of(&hub, "one").args(["--drain-timeout", "0s"]).start().await?;
    let doomed = Doomed::start(&hub).await?;
    agent.stop().await?;
    doomed.ended_with_errors().await
}

#[tokio::test]
async fn a_right_that_is_withdrawn_ends_connections_and_dials_with_an_error() -> Result<()> {
    let hub = Hub::start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let doomed = Doomed::start(&hub).await?;
    hub.deny("one").await?;
    doomed.ended_with_errors().await
}

#[tokio::test]
async fn a_hub_that_stops_ends_connections_and_dials_with_an_error() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "1s"]).start().await?;
    let _agent = Spoke::of(&hub, "one").start().await?;
    let doomed = Doomed::start(&hub).await?;
    hub.stop().await?;
    doomed.ended_with_errors().await
}
