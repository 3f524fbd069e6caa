//! A soak: faults drawn from a seed, one after the other or two at a time, on one running site under constant traffic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::metrics::Metrics;
use tests::wait_until;

use crate::cell::{Cell, calm};
use crate::config;
use crate::dice::Dice;
use crate::fault::ALL;
use crate::site::{Needs, Site};
use crate::traffic::Traffic;

const CLUSTERS: [&str; 3] = ["c1", "c2", "c3"];
/// A process that is younger has not warmed up.
const WARM: Duration = Duration::from_secs(60);
/// What a process may have more of than when it was warm.
const MORE_BYTES: u64 = 48 << 20;
const MORE_FILES: usize = 64;
const MORE_THREADS: usize = 8;
/// How long what is over may be counted.
const BOUND: Duration = Duration::from_secs(30);

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    since: Instant,
    bytes: u64,
    files: usize,
    threads: usize,
}

/// What the processes held when they were warm, and now.
#[derive(Debug, Default)]
struct Growth(BTreeMap<i32, (&'static str, Held, Option<Held>, Held)>);

/// What to do next, and where.
fn draw(dice: &mut Dice) -> (Cell, [usize; 2]) {
    let places = [dice.below(CLUSTERS.len()), dice.below(CLUSTERS.len())];
    let mut fault = || ALL[dice.below(ALL.len())];
    let (first, second) = (fault(), fault());
    let alone = first.is_like(second) || dice.below(3) == 0;
    (if alone { Cell::alone(first) } else { Cell { first, second: Some(second) } }, places)
}

impl Growth {
    fn note(&mut self, site: &Site) -> Result<()> {
        for (name, process) in site.processes() {
            let pid = process.pid().as_raw();
            let threads = std::fs::read_dir(format!("/proc/{pid}/task"))?.count();
            let (bytes, files) = (process.resident_bytes()?, process.open_files()?);
            let now = Held { since: Instant::now(), bytes, files, threads };
            let (_, first, warm, last) = self.0.entry(pid).or_insert((name, now, None, now));
            if warm.is_none() && first.since.elapsed() > WARM {
                *warm = Some(now);
            }
            *last = now;
        }
        Ok(())
    }

    /// What has grown more than it may.
    fn told(&self) -> Vec<String> {
        let mut told = Vec::new();
        for (pid, (name, _, warm, last)) in &self.0 {
            let Some(warm) = warm else { continue };
            eprintln!(
                "{name} {pid}, {:.0?} after it was warm: {} -> {} KiB, {} -> {} files, {} -> {} threads",
                last.since - warm.since,
                warm.bytes >> 10,
                last.bytes >> 10,
                warm.files,
                last.files,
                warm.threads,
                last.threads
            );
            let grown = last.bytes > warm.bytes + MORE_BYTES
                || last.files > warm.files + MORE_FILES
                || last.threads > warm.threads + MORE_THREADS;
            if grown {
                told.push(format!("{name} {pid} has grown from {warm:?} to {last:?}"));
            }
        }
        told
    }
}

/// Waits until neither hub nor agents count a stream any more.
async fn rest(site: &Site) -> Result<()> {
    wait_until(BOUND, "no stream to be counted", async || {
        let mut open = count(site.hub.addresses().metrics, "proxy_server_streams").await;
        for spoke in site.spokes() {
            open += count(spoke.metrics(), "proxy_agent_streams").await;
        }
        open == 0.0
    })
    .await
}

async fn count(from: std::net::SocketAddr, name: &str) -> f64 {
    Metrics::fetch(from).await.map_or(f64::MAX, |metrics| metrics.sum(name, &[]))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make soak: an hour"]
async fn a_long_run_of_random_faults_loses_nothing_and_grows_nowhere() -> Result<()> {
    let (seed, length, begun) = (config::soak_seed(), config::soak_length(), Instant::now());
    eprintln!("seed {seed}, {length:?}");
    let mut dice = Dice::new(seed);
    let mut site = Site::start(&CLUSTERS, Needs { etcd: true, clocks: true }).await?;
    let traffic: Vec<_> = (0..CLUSTERS.len()).map(|place| Traffic::start(&site, place)).collect::<Result<_>>()?;
    let (mut growth, mut lost, mut late, mut round) = (Growth::default(), Vec::new(), 0, 0_u64);
    while begun.elapsed() < length {
        calm(&mut site, &traffic).await.with_context(|| format!("before round {round}"))?;
        growth.note(&site)?;
        let (cell, places) = draw(&mut dice);
        let at = places.map(|place| CLUSTERS[place]);
        let second = if cell.second.is_some() { format!(" and {}", at[1]) } else { String::new() };
        eprintln!("{:.0?} round {round} at {}{second}: {cell}", begun.elapsed(), at[0]);
        let verdicts = cell.act(&mut site, &traffic, places, seed.wrapping_add(round)).await?;
        for (verdict, cluster) in verdicts.iter().zip(CLUSTERS) {
            verdict.broken.iter().for_each(|what| eprintln!("    {cluster}: {what}"));
            late += usize::from(verdict.is_only_late());
            if verdict.is_lost() {
                lost.push(format!("round {round}, {cell}, {cluster}: {}", verdict.broken.join("; ")));
            }
        }
        round += 1;
    }
    calm(&mut site, &traffic).await.context("after all rounds")?;
    growth.note(&site)?;
    drop(traffic);
    rest(&site).await?;
    growth.note(&site)?;
    let grown = growth.told();
    // Times are the matrix's to judge: this goes on for long enough for anything to disturb it.
    eprintln!("{round} rounds in {:.0?}, seed {seed}: {} lost, {late} late", begun.elapsed(), lost.len());
    ensure!(lost.is_empty() && grown.is_empty(), "{}", [lost, grown].concat().join("\n"));
    Ok(())
}
