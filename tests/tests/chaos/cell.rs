//! A cell of the matrix: a site of its own, one fault or two of which the second begins while the first acts, and its verdict.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::metrics::Metrics;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::fault::Fault;
use crate::log::{Log, RAW};
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
const HANG_TIMEOUT: Duration = Duration::from_secs(45);
/// A process that ended so shortly before the end of the faults is first to begin anew.
const RESTARTED: Duration = Duration::from_secs(6);

/// Which faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) first: Fault,
    pub(crate) second: Option<Fault>,
}

/// When the faults were over and what they had ended was there again, and what came back when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Marks {
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
            let after = self
                .first
                .lasts()
                .min(Duration::from_secs(15))
                .mul_f64(Dice::of(seed, &self.to_string()).share() * 0.8 + 0.1);
            acts.extend([(after, second, true), (after + second.lasts(), second, false)]);
        }
        acts.sort_by_key(|(at, ..)| *at);
        acts
    }

    /// Runs it on a site of its own.
    pub(crate) async fn run(&self, seed: u64) -> Result<Verdict> {
        let has = |what: fn(Fault) -> bool| what(self.first) || self.second.is_some_and(what);
        let needs = Needs { etcd: has(Fault::needs_etcd), clocks: has(Fault::needs_clock) };
        let mut site = Site::start(&["c1"], needs).await?;
        let traffic = [Traffic::start(&site, 0)?];
        calm(&mut site, &traffic).await.context("before any fault")?;
        self.act(&mut site, &traffic, [0, 0], seed).await?.pop().context("a site without a place")
    }

    /// Does it to a site where all is well, to these places; gives a verdict for each place of the site.
    pub(crate) async fn act(
        &self,
        site: &mut Site,
        traffic: &[Traffic],
        places: [usize; 2],
        seed: u64,
    ) -> Result<Vec<Verdict>> {
        let start = Instant::now();
        for (at, fault, begins) in self.schedule(seed) {
            let place = if fault == self.first { places[0] } else { places[1] };
            while start.elapsed() < at {
                site.supervise().await?;
                sleep(LOOK).await;
            }
            match begins {
                true => fault.begin(site, place).await.with_context(|| format!("at the beginning of: {fault}"))?,
                false => fault.end(site, place).await.with_context(|| format!("at the end of: {fault}"))?,
            }
        }
        let marks = recover(site, traffic).await?;
        let verdicts = marks.into_iter().zip(traffic).enumerate().map(|(place, (marks, traffic))| {
            Verdict::of(self.to_string(), start, marks, site.history(place), &traffic.log)
        });
        Ok(verdicts.collect())
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
pub(crate) async fn calm(site: &mut Site, traffic: &[Traffic]) -> Result<()> {
    let begun = Instant::now();
    let flows = |Traffic { log, .. }: &Traffic| {
        let said = log.lines().said.last().is_some_and(|said| said.available && said.condition);
        said && log.streams() >= STREAMS && log.stuck(begun).is_empty()
    };
    while !traffic.iter().all(flows) {
        site.supervise().await?;
        let last = || traffic.iter().map(|traffic| traffic.log.lines().dials.last().cloned()).collect::<Vec<_>>();
        ensure!(begun.elapsed() < BOUND, "traffic does not flow: {:?}", last());
        sleep(LOOK).await;
    }
    // Idle streams are to be idle for a while.
    traffic.iter().for_each(|traffic| traffic.probe(false));
    sleep(Duration::from_secs(1)).await;
    traffic.iter().for_each(|traffic| traffic.log.forget_before(Instant::now()));
    Ok(())
}

/// After the faults: waits until all is as it was, or patience ends.
async fn recover(site: &mut Site, traffic: &[Traffic]) -> Result<Vec<Marks>> {
    let over = Instant::now();
    let mut marks =
        vec![Marks { begun: over, success: None, every_way: false, true_again: None, moved: None }; traffic.len()];
    // An end that was asked for may be yet to come, and whoever has ended is first to begin anew.
    let mut settled = false;
    while over.elapsed() < HANG_TIMEOUT {
        site.supervise().await?;
        if !settled && site.is_settled() && site.has_begun().await {
            settled = true;
            // What another cluster was waited for is not its lateness.
            let ends = (0..traffic.len()).filter_map(|place| site.history(place).last_end());
            let ended = ends.max().is_some_and(|end| end + RESTARTED > over);
            for (marks, traffic) in marks.iter_mut().zip(traffic) {
                marks.begun = if ended { Instant::now() } else { over };
                traffic.probe(true);
                traffic.eager(true);
            }
        }
        if settled {
            for (place, (marks, traffic)) in marks.iter_mut().zip(traffic).enumerate() {
                marks.look(site, place, &traffic.log).await;
            }
            if marks.iter().all(Marks::is_whole) {
                break;
            }
        }
        sleep(LOOK).await;
    }
    traffic.iter().for_each(|traffic| traffic.eager(false));
    Ok(marks)
}

impl Marks {
    async fn look(&mut self, site: &Site, place: usize, log: &Log) {
        let now = Instant::now();
        self.success = self.success.or_else(|| log.success(self.begun, None));
        self.every_way = RAW.into_iter().all(|way| log.success(self.begun, Some(way)).is_some());
        if self.moved.is_none() && log.stuck(self.begun).is_empty() {
            self.moved = Some(now);
        }
        let says = log.lines().said.iter().any(|said| said.at > self.begun && said.available && said.condition);
        if self.true_again.is_none() && says && counts_one(site, place).await {
            self.true_again = Some(now);
        }
    }

    fn is_whole(&self) -> bool {
        self.success.is_some() && self.every_way && self.true_again.is_some() && self.moved.is_some()
    }
}

/// Whether the hub's metrics know of one tunnel.
async fn counts_one(site: &Site, place: usize) -> bool {
    let metrics = Metrics::fetch(site.hub.addresses().metrics).await;
    metrics.is_ok_and(|metrics| metrics.sum("proxy_server_tunnels", &[("cluster", site.cluster(place))]) == 1.0)
}
