//! Question 9: how long does a hub of ten thousand clusters take to start, to list them, and to tell a hundred watchers?

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bench::api_client::ApiClient;
use bench::arguments::Arguments;
use bench::cpu;
use bench::program;
use bench::report::{self, Figure, Report, Target};
use bench::seeded_registry::SeededRegistry;
use bench::watchers::{CLUSTERS, Latencies, Watchers};
use serde_json::{Value, json};
use tests::Hub;

/// What the issue asks for.
const ROSTER: SeededRegistry = SeededRegistry { clusters: 10_000, sets: 98, users: 100 };
/// What a hub is filled with whose memory is subtracted.
const EMPTY: SeededRegistry = SeededRegistry { clusters: 0, ..ROSTER };
/// Of one page, as kubectl asks.
const PAGE: usize = 500;
/// How long memory takes to settle.
const SETTLE: Duration = Duration::from_secs(3);

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title = "how long does a hub of 10000 clusters take to start, to list them, and to tell 100 watchers?";
    let mut report = Report::new("many_clusters", 9, title, arguments.short)?;
    report.notes.push(
        "bounds, without a baseline: what etcd and kube-apiserver would need beside them is not measured".to_owned(),
    );
    let (empty, _) = filled(EMPTY).await?;
    tokio::time::sleep(SETTLE).await;
    let without = memory(&empty)?;
    drop(empty);
    let (mut hub, tokens) = filled(ROSTER).await?;
    report.figures.push(starts(&mut hub, arguments.rounds(3, 10)).await?);
    tokio::time::sleep(SETTLE).await;
    let each = (memory(&hub)? - without) / ROSTER.clusters as f64;
    report.figures.push(Figure::new("memory of a cluster", "ours", each, "KiB each"));
    report.figures.extend(lists(&hub, arguments.rounds(5, 20)).await?);
    let changes = if arguments.short { 50 } else { 300 };
    let admin = hub.credentials().token()?;
    let all = vec![admin; tokens.len()];
    let label = |index: usize| (format!("c{index:05}"), json!({"metadata": {"labels": {"seen": index.to_string()}}}));
    report.figures.extend(told(&hub, "100 watchers of everything, a label", &all, changes, label).await?);
    let to_and_fro = |index: usize| {
        // The first cluster begins in the half 0.
        ("c00000".to_owned(), json!({"metadata": {"labels": {"half": ((index + 1) % 2).to_string()}}}))
    };
    report.figures.extend(told(&hub, "100 users of a set each, a cluster moves", &tokens, changes, to_and_fro).await?);
    Ok(report)
}

/// A running hub with a seeded registry, and the tokens of its users.
async fn filled(seeded: SeededRegistry) -> Result<(Hub, Vec<String>)> {
    let hub = Hub::builder().after_shell(&report::log_to("hub")?).quiet();
    let mut hub = hub.start().await?;
    hub.stop().await?;
    let tokens = seeded.write(hub.state()).await?;
    hub.start_again().await?;
    Ok((hub, tokens))
}

/// From the start of the process until it is ready.
async fn starts(hub: &mut Hub, times: usize) -> Result<Figure> {
    let mut took = Vec::new();
    for _ in 0..times {
        hub.stop().await?;
        let start = Instant::now();
        hub.start_again().await?;
        took.push(start.elapsed().as_secs_f64());
    }
    took.sort_by(f64::total_cmp);
    let longest = took.last().copied().context("it was started at least once")?;
    Ok(Figure::new("start until ready, longest", "ours", longest, "s").target(Target::AtMost(5.0)))
}

/// All clusters in pages, by one client.
async fn lists(hub: &Hub, times: usize) -> Result<[Figure; 2]> {
    let mut client = ApiClient::connect(hub, &hub.credentials().token()?).await?;
    let (mut took, mut bytes) = (Vec::new(), 0);
    let before = cpu(hub)?;
    for _ in 0..times {
        let start = Instant::now();
        (bytes, _) = list(&mut client).await?;
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let each = (cpu(hub)? - before) * 1e3 / times as f64;
    took.sort_by(f64::total_cmp);
    let name = format!("list of {} clusters in pages of {PAGE}", ROSTER.clusters);
    Ok([
        Figure::new(format!("{name}, median"), "ours", took[took.len() / 2], "ms").cpu(each, "ms"),
        Figure::new(format!("{name}: size"), "ours", bytes as f64 / f64::from(1 << 20), "MiB"),
    ])
}

/// Bytes and objects of all pages.
async fn list(client: &mut ApiClient) -> Result<(usize, usize)> {
    let (mut bytes, mut count, mut next) = (0, 0, String::new());
    loop {
        let page = client.get(&format!("{CLUSTERS}?limit={PAGE}{next}")).await?;
        bytes += page.len();
        let page: Value = serde_json::from_slice(&page)?;
        count += page["items"].as_array().map_or(0, Vec::len);
        match page["metadata"]["continue"].as_str() {
            Some(token) => next = format!("&continue={token}"),
            None => return Ok((bytes, count)),
        }
    }
}

/// How long changes take to reach the watchers with these tokens, and what the watchers cost.
async fn told(
    hub: &Hub,
    name: &str,
    tokens: &[String],
    changes: usize,
    change: impl Fn(usize) -> (String, Value),
) -> Result<Vec<Figure>> {
    let mut admin = ApiClient::connect(hub, &hub.credentials().token()?).await?;
    let before = memory(hub)?;
    let mut watchers = Watchers::start(hub, tokens).await?;
    tokio::time::sleep(SETTLE).await;
    let each = (memory(hub)? - before) / tokens.len() as f64;
    let used = cpu(hub)?;
    let Latencies { all, each: single } = watchers
        .time(changes, async |index| {
            let (cluster, patch) = change(index);
            admin.patch(&format!("{CLUSTERS}/{cluster}"), &patch).await.map(drop)
        })
        .await?;
    let used = (cpu(hub)? - used) * 1e3 / changes as f64;
    let of = |latencies: &[Duration], part: f64| {
        let index = ((latencies.len() as f64 * part) as usize).min(latencies.len() - 1);
        latencies[index].as_secs_f64() * 1e3
    };
    let figure = |what: &str, value| Figure::new(format!("{name}: {what}"), "ours", value, "ms");
    Ok(vec![
        figure("all have it, median", of(&all, 0.5)).cpu(used, "ms").target(Target::AtMost(100.0)),
        figure("all have it, p99", of(&all, 0.99)),
        figure("one has it, median", of(&single, 0.5)),
        Figure::new(format!("{name}: memory of a watcher"), "ours", each, "KiB each"),
    ])
}

/// Resident memory of the hub in KiB.
fn memory(hub: &Hub) -> Result<f64> {
    Ok(hub.process().resident_bytes()? as f64 / 1024.0)
}

/// CPU seconds that the hub has used.
fn cpu(hub: &Hub) -> Result<f64> {
    cpu::seconds(&[hub.process().pid().as_raw()])
}
