//! Storms: a hub with a large fleet is gone for a while, and all agents want to come back at once.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tests::Process;
use tokio::time::{sleep, timeout};

use crate::cpu;
use crate::fleet_hub::FleetHub;
use crate::handshakes::{BareServer, Handshakes, With};
use crate::place::Place;
use crate::report::{Figure, Target};
use crate::route::Dialer;
use crate::service::Service;

/// How long a fleet may take to come back.
const BOUND: Duration = Duration::from_secs(120);
/// Between two tries of a request, and between two looks at the number of tunnels.
const TRY: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(100);
/// Clusters whose requests are tried. Their agents are a process of their own: the thread of all the others is busy shaking hands.
const TRIED: usize = 16;
/// Bare handshakes that are counted.
const BARE: usize = 1_000;
/// Until a fleet that is connected has settled.
const SETTLE: Duration = Duration::from_secs(3);
/// The hub's counter of handshakes that came to nothing.
const FAILED: &str = "proxy_server_handshakes_failed_total";
/// KiB.
const MIB: f64 = 1024.0;
/// Agents for whom there is a time, too.
const JUDGED: usize = 5_000;

/// What happens to the hub.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It is killed, and started again after a while.
    Killed(Duration),
    /// It is asked to end, and started again.
    Stopped,
}

/// A hub with its whole fleet connected, and what the machine can do.
#[derive(Debug)]
pub struct Storm {
    fleet_hub: FleetHub,
    agent_processes: [Process; 2],
    agents: usize,
    /// Agents that connect in a second when they do so in turns.
    rate: f64,
    /// CPU that a bare handshake costs its server, in seconds.
    bare: f64,
}

/// A look at a fleet that comes back.
#[derive(Debug, Clone, Copy)]
struct Look {
    at: Duration,
    back: usize,
    /// CPU that the hub has used until then, in seconds.
    cpu: f64,
}

impl Storm {
    /// Connects a fleet of `agents`.
    pub async fn gather(agents: usize) -> Result<(Self, Vec<Figure>)> {
        let fleet_hub = FleetHub::start(agents, 0).await?;
        let (bare_server, address) = BareServer::start(fleet_hub.hub.state()).await?;
        let handshakes =
            Handshakes { with: With::Bare(address), fleet: fleet_hub.fleet(), clusters: TRIED, count: BARE };
        let bare_rate = handshakes.measure().await?.rate;
        let bare = cpu::seconds(&[bare_server.pid().as_raw()])? / BARE as f64;
        drop(bare_server);
        let first = fleet_hub.connect(0, TRIED).await?;
        let before = fleet_hub.cpu()?;
        let (others, connected) = fleet_hub.connect_timed(TRIED, agents - TRIED).await?;
        let own = (fleet_hub.cpu()? - before) / connected.agents as f64;
        let theirs = cpu::seconds(&[others.pid().as_raw()])? / connected.agents as f64;
        let rate = connected.agents as f64 / connected.seconds;
        let what = format!("{agents} agents, in turns");
        let figure = |name: &str, value, unit| Figure::new(format!("{what}: {name}"), "ours", value, unit);
        let figures = vec![
            Figure::new("handshakes", "TLS over TCP", bare_rate, "/s"),
            Figure::new("handshake: server CPU", "TLS over TCP", bare * 1e6, "us"),
            figure("tunnels", rate, "/s"),
            figure("CPU of the hub for each", own * 1e6, "us").of("TLS over TCP", own / bare),
            figure("CPU of the agent, its start included", theirs * 1e6, "us"),
        ];
        Ok((Self { fleet_hub, agent_processes: [first, others], agents, rate, bare }, figures))
    }

    /// Has the hub suffer `fault`, and watches all agents come back.
    pub async fn suffer(&mut self, fault: Fault) -> Result<Vec<Figure>> {
        let service = Service::start(Place::loopback().any_port(), &Place::loopback()).await?;
        sleep(SETTLE).await;
        let steady = self.fleet_hub.memory()?;
        match fault {
            Fault::Killed(away) => {
                self.fleet_hub.hub.kill().await?;
                sleep(away).await;
            }
            Fault::Stopped => self.fleet_hub.hub.stop().await?,
        }
        let theirs = self.agents_cpu()?;
        self.fleet_hub.hub.start_again().await?;
        let start = Instant::now();
        let tried = (0..TRIED).map(|index| self.fleet_hub.route(index, service.address));
        let dialers = tried.map(|route| Ok(Dialer::new(&route?))).collect::<Result<Vec<_>>>()?;
        let (first, looks) = tokio::try_join!(first_served(&dialers), self.all_back(start))?;
        let theirs = (self.agents_cpu()? - theirs) / self.agents as f64;
        let peak = self.fleet_hub.hub.process().peak_resident_bytes()? as f64 / 1024.0;
        let metrics = self.fleet_hub.metrics().await?;
        let failed = metrics
            .of_family(FAILED)
            .filter(|sample| sample.labels.get("listener").is_some_and(|listener| listener == "tunnel"));
        let failed = failed.map(|sample| (sample.labels.get("reason").map_or("", String::as_str), sample.value));
        let (put_off, failed): (Vec<_>, Vec<_>) = failed.partition(|(reason, _)| *reason == "put_off");
        let count = |some: &[(&str, f64)]| some.iter().map(|(_, count)| count).sum::<f64>();
        let last = *looks.last().context("nobody has looked")?;
        let own = last.cpu / self.agents as f64;
        let soonest = self.agents as f64 / self.rate;
        let what = format!("{} agents, {}", self.agents, fault.name());
        let figure = |name: &str, value, unit| Figure::new(format!("{what}: {name}"), "ours", value, unit);
        let at = |share: f64| {
            let many = (share * self.agents as f64) as usize;
            looks.iter().find(|look| look.back >= many).map_or(f64::NAN, |look| look.at.as_secs_f64())
        };
        let mut figures = vec![
            figure("first request", first.as_secs_f64(), "s").target(Target::AtMost(1.0)),
            figure("half of them back", at(0.5), "s"),
            figure("nine of ten back", at(0.9), "s"),
            figure("all back", at(1.0), "s").of("in turns", at(1.0) / soonest).target(Target::AtMost(1.5)),
            figure("handshakes that failed", count(&failed), ""),
            figure("handshakes put off", count(&put_off), ""),
            figure("most tunnels a second", busiest(&looks, |look| look.back as f64), "/s"),
            figure("CPU of the hub for each", own * 1e6, "us")
                .of("TLS over TCP", own / self.bare)
                .target(Target::AtMost(3.0)),
            figure("CPU of the agent for each", theirs * 1e6, "us"),
            figure("peak CPU of the hub", busiest(&looks, |look| look.cpu), "cores"),
            figure("memory of the hub before", steady / MIB, "MiB"),
            figure("peak memory of the hub by that before", peak / steady, "").target(Target::AtMost(1.3)),
        ];
        figures.extend(failed.iter().map(|(reason, count)| figure(&format!("failed: {reason}"), *count, "")));
        if self.agents == JUDGED {
            figures.push(figure("all back, in all", at(1.0), "s").target(Target::AtMost(20.0)));
        }
        Ok(figures)
    }

    /// Looks on until the hub has a tunnel of every agent.
    async fn all_back(&self, start: Instant) -> Result<Vec<Look>> {
        let before = self.fleet_hub.cpu()?;
        let mut looks = Vec::new();
        loop {
            let cpu = self.fleet_hub.cpu()? - before;
            let look = Look { at: start.elapsed(), back: self.fleet_hub.opened()?, cpu };
            looks.push(look);
            if look.back >= self.agents {
                return Ok(looks);
            }
            ensure!(look.at < BOUND, "{} of {} agents are back", look.back, self.agents);
            sleep(LOOK).await;
        }
    }

    fn agents_cpu(&self) -> Result<f64> {
        cpu::seconds(&self.agent_processes.each_ref().map(|agents| agents.pid().as_raw()))
    }
}

impl Fault {
    fn name(self) -> String {
        match self {
            Self::Killed(away) => format!("hub killed and away for {} s", away.as_secs()),
            Self::Stopped => "hub stopped".to_owned(),
        }
    }
}

/// The steepest rise over a second.
fn busiest(looks: &[Look], value: impl Fn(&Look) -> f64) -> f64 {
    let windows = looks.iter().enumerate().filter_map(|(index, first)| {
        let last = looks[index..].iter().find(|look| look.at - first.at >= Duration::from_secs(1))?;
        Some((value(last) - value(first)) / (last.at - first.at).as_secs_f64())
    });
    windows.fold(0.0, f64::max)
}

/// Waits until a request is served over one of the ways; says how long that took.
async fn first_served(ways: &[Dialer]) -> Result<Duration> {
    let mut served: futures_util::stream::FuturesUnordered<_> = ways.iter().map(served).collect();
    futures_util::StreamExt::next(&mut served).await.context("there is no way to try")?
}

/// Waits until a request is served; says how long that took.
pub async fn served(way: &Dialer) -> Result<Duration> {
    let start = Instant::now();
    while !matches!(timeout(BOUND, way.dial()).await, Ok(Ok(_))) {
        ensure!(start.elapsed() < BOUND, "no request is served");
        sleep(TRY).await;
    }
    Ok(start.elapsed())
}
