//! A cell of the matrix: a site of its own, one fault or two of which the second begins while the first acts, and its verdict.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tests::metrics::Metrics;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::fault::Fault;
use crate::site::{Needs, Site};
use crate::traffic::Traffic;
use crate::verdict::Verdict;

/// How long anything may take that is no fault's matter.
const BOUND: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// Streams of every cell: four that move, two that do not, and a download.
const STREAMS: usize = 7;
/// How long a hang is watched, so that the table can say how long it was.
const PATIENCE: Duration = Duration::from_secs(45);

/// Which faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) first: Fault,
    pub(crate) second: Option<Fault>,
}

/// When the faults were over, and when what they had ended was there again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
    pub(crate) over: Instant,
    pub(crate) begun: Instant,
    pub(crate) success: Option<Instant>,
    pub(crate) every_way: bool,
    /// When the hub said what was true.
    pub(crate) true_again: Option<Instant>,
    pub(crate) moved: Option<Instant>,
}

impl Cell {
    pub(crate) fn alone(fault: Fault) -> Self {
        Self { first: fault, second: None }
    }

    /// Every pair that is one, in an order drawn from the seed.
    pub(crate) fn pair(one: Fault, other: Fault, seed: u64) -> Option<Self> {
        let swapped = Dice::of(seed, &format!("{one} {other}")).below(2) == 1;
        let (first, second) = if swapped { (other, one) } else { (one, other) };
        (!one.is_like(other)).then_some(Self { first, second: Some(second) })
    }

    /// What is done when: half way through the first, or a little later, the second begins.
    fn schedule(&self, seed: u64) -> Vec<(Duration, Fault, bool)> {
        let mut acts = vec![(Duration::ZERO, self.first, true), (self.first.lasts(), self.first, false)];
        if let Some(second) = self.second {
            let after = self.first.lasts().min(Duration::from_secs(15)).mul_f64(Dice::of(seed, &self.to_string()).share() * 0.8 + 0.1);
            acts.extend([(after, second, true), (after + second.lasts(), second, false)]);
        }
        acts.sort_by_key(|(at, ..)| *at);
        acts
    }

    /// Runs it.
    pub(crate) async fn run(&self, seed: u64) -> Result<Verdict> {
        let has = |what: fn(Fault) -> bool| what(self.first) || self.second.is_some_and(what);
        let needs = Needs { etcd: has(Fault::needs_etcd), clocks: has(Fault::needs_clock) };
        let mut site = Site::start(&["c1"], needs).await?;
        let traffic = Traffic::start(&site, 0)?;
        calm(&mut site, &traffic).await.context("before any fault")?;
        let start = Instant::now();
        for (at, fault, begins) in self.schedule(seed) {
            while start.elapsed() < at {
                site.supervise().await?;
                sleep(LOOK).await;
            }
            match begins {
                true => fault.begin(&mut site, 0).await.with_context(|| format!("at the beginning of: {fault}"))?,
                false => fault.end(&mut site, 0).await.with_context(|| format!("at the end of: {fault}"))?,
            }
        }
        let marks = recover(&mut site, &traffic).await?;
        Ok(Verdict::of(self.to_string(), start, marks, site.history(0), &traffic.log))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.second {
            None => write!(f, "{}", self.first),
            Some(second) => write!(f, "{}; {second}", self.first),
        }
    }
}

/// Waits until all traffic flows.
async fn calm(site: &mut Site, traffic: &Traffic) -> Result<()> {
    let begun = Instant::now();
    loop {
        site.supervise().await?;
        let said = traffic.log.lines().said.last().is_some_and(|said| said.available && said.condition);
        if traffic.log.streams() >= STREAMS && traffic.log.stuck(begun).is_empty() && said {
            break;
        }
        anyhow::ensure!(begun.elapsed() < BOUND, "traffic does not flow: {:?}", traffic.log.lines().dials.last());
        sleep(LOOK).await;
    }
    // What came before is not of interest, but that idle streams are idle is.
    sleep(Duration::from_secs(1)).await;
    traffic.log.forget_before(Instant::now());
    Ok(())
}

/// After the faults: waits until all is as it was, or patience ends.
async fn recover(site: &mut Site, traffic: &Traffic) -> Result<Marks> {
    let over = Instant::now();
    traffic.eager(true);
    let mut marks = Marks { over, begun: over, success: None, every_way: false, true_again: None, moved: None };
    // An end that is asked for may be yet to come, and whoever was ended is first to begin anew.
    let mut has_begun = false;
    while over.elapsed() < PATIENCE {
        site.supervise().await?;
        if !has_begun && site.is_settled() && site.has_begun().await {
            has_begun = true;
            let restarted = site.history(0).last_end().is_some_and(|end| end + Duration::from_secs(6) > over);
            marks.begun = if restarted { Instant::now() } else { over };
            traffic.probe(true);
        }
        if has_begun {
            let log = &traffic.log;
            marks.success = log.success(marks.begun, None);
            marks.every_way = crate::log::RAW.into_iter().all(|way| log.success(marks.begun, Some(way)).is_some());
            if marks.moved.is_none() && log.stuck(marks.begun).is_empty() {
                marks.moved = Some(Instant::now());
            }
            let says = log.lines().said.iter().find(|said| said.at > marks.begun && said.available && said.condition).copied();
            if marks.true_again.is_none() && says.is_some() && counts_one(site).await {
                marks.true_again = Some(Instant::now());
            }
            if marks.success.is_some() && marks.every_way && marks.true_again.is_some() && marks.moved.is_some() {
                break;
            }
        }
        sleep(LOOK).await;
    }
    traffic.eager(false);
    Ok(marks)
}

/// Whether the hub's metrics know of one tunnel.
async fn counts_one(site: &Site) -> bool {
    let metrics = Metrics::fetch(site.hub.addresses().metrics).await;
    metrics.is_ok_and(|metrics| metrics.sum("proxy_server_tunnels", &[]) == 1.0)
}
