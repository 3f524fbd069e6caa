//! Question 8: how long after a hub or an agent was killed or stopped is the first request served, and all agents back?

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench::arguments::Arguments;
use bench::crowd::Crowd;
use bench::path::{Ours, Path};
use bench::place::Place;
use bench::program::{self, Paths};
use bench::report::{Figure, Report, Target};
use bench::route::{Dialer, Route};
use bench::service::Service;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::{sleep, timeout};

/// How long anything may take to come back.
const BOUND: Duration = Duration::from_secs(60);
/// Between two tries of a request, and between two looks at the number of tunnels.
const TRY: Duration = Duration::from_millis(5);
const LOOK: Duration = Duration::from_millis(200);
/// How long a hub is away whose agents have all noticed, and try to connect when it comes back: beyond the idle time-out.
const LONG_AWAY: Duration = Duration::from_secs(20);
/// Clusters whose requests are tried when many agents come back. Their agents are a process of their own: the thread of all the
/// others is busy shaking hands.
const TRIED: usize = 16;

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title =
        "how long after a hub or an agent was killed or stopped is a request served, and when are all agents back?";
    let mut report = Report::new("recovery", 8, title, arguments.short)?;
    let mut paths = Paths::start(&[Path::Ours { mtu: None }], arguments).await?;
    let route = paths.running[0].route.clone();
    let ours = paths.running[0].ours.as_mut().context("ours has no hub")?;
    for ending in [Ending::HubKilled, Ending::HubStopped, Ending::AgentKilled] {
        report.figures.extend(ending.repeat(ours, &route, arguments.rounds(3, 10)).await?);
    }
    drop(paths);
    let agents = if arguments.short { 1_000 } else { 5_000 };
    let crowd = storm(Crowd::start(agents, 0).await?, agents, Duration::ZERO, &mut report).await?;
    if !arguments.short {
        drop(crowd);
        storm(Crowd::start(agents, 0).await?, agents, LONG_AWAY, &mut report).await?;
    }
    Ok(report)
}

/// What happens to a pair of hub and agent.
#[derive(Debug, Clone, Copy)]
enum Ending {
    HubKilled,
    HubStopped,
    AgentKilled,
}

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::HubKilled => "hub killed",
            Self::HubStopped => "hub stopped",
            Self::AgentKilled => "agent killed",
        }
    }

    /// The times from readiness to the first request that is served.
    async fn repeat(self, ours: &mut Ours, route: &Route, times: usize) -> Result<[Figure; 2]> {
        let dialer = Dialer::new(route);
        let mut took = Vec::new();
        for _ in 0..times {
            served(&dialer).await?;
            match self {
                Self::HubKilled => {
                    ours.hub.kill().await?;
                    ours.hub.start_again().await?;
                }
                Self::HubStopped => ours.hub.restart().await?,
                Self::AgentKilled => {
                    ours.spoke.kill().await?;
                    ours.spoke.start_again().await?;
                }
            }
            took.push(served(&dialer).await?.as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        let name = format!("{}: first request after it is ready", self.name());
        let median = Figure::new(format!("{name}, median"), "ours", took[took.len() / 2], "ms");
        let longest = Figure::new(format!("{name}, longest"), "ours", took[took.len() - 1], "ms");
        Ok([median, longest.target(Target::AtMost(1_000.0))])
    }
}

/// Kills a hub with many agents, starts it again after `away`, and watches all of them come back.
async fn storm(mut crowd: Crowd, agents: usize, away: Duration, report: &mut Report) -> Result<Crowd> {
    let service = Service::start(Place::loopback().any_port(), &Place::loopback()).await?;
    let swarms = [crowd.connect(0, TRIED).await?, crowd.connect(TRIED, agents - TRIED).await?];
    sleep(Duration::from_secs(3)).await;
    let steady = crowd.memory()?;
    crowd.hub.kill().await?;
    sleep(away).await;
    crowd.hub.start_again().await?;
    let start = Instant::now();
    let tried = (0..TRIED).map(|index| crowd.route(index, service.address));
    let dialers = tried.map(|route| Ok(Dialer::new(&route?))).collect::<Result<Vec<_>>>()?;
    let (first, (all, busiest)) = tokio::try_join!(first_served(&dialers), all_back(&crowd, agents))?;
    let peak = crowd.hub.process().peak_resident_bytes()? as f64 / 1024.0;
    let what = format!("{agents} agents, hub killed and away for {} s", away.as_secs());
    let figure = |name: &str, value, unit| Figure::new(format!("{what}: {name}"), "ours", value, unit);
    report.figures.extend([
        figure("first request", first.as_secs_f64(), "s").target(Target::AtMost(1.0)),
        figure("all back", (all - start).as_secs_f64(), "s").target(Target::AtMost(20.0)),
        figure("peak CPU of the hub", busiest, "cores"),
        figure("peak memory of the hub by steady", peak / steady, "").target(Target::AtMost(1.3)),
    ]);
    drop(swarms);
    Ok(crowd)
}

/// Waits until a request is served over one of the ways; says how long that took.
async fn first_served(ways: &[Dialer]) -> Result<Duration> {
    let mut served: FuturesUnordered<_> = ways.iter().map(served).collect();
    served.next().await.context("there is no way to try")?
}

/// Waits until a request is served; says how long that took.
async fn served(way: &Dialer) -> Result<Duration> {
    let start = Instant::now();
    while !matches!(timeout(BOUND, way.dial()).await, Ok(Ok(_))) {
        ensure!(start.elapsed() < BOUND, "no request is served");
        sleep(TRY).await;
    }
    Ok(start.elapsed())
}

/// Waits until the hub has a tunnel of every agent; says when that was, and the hub's highest CPU until then, in cores.
async fn all_back(crowd: &Crowd, agents: usize) -> Result<(Instant, f64)> {
    let start = Instant::now();
    let (mut looked, mut used, mut busiest) = (start, crowd.cpu()?, 0.0_f64);
    loop {
        sleep(LOOK).await;
        let back = crowd.tunnels().await?;
        let (now, cpu) = (Instant::now(), crowd.cpu()?);
        busiest = busiest.max((cpu - used) / (now - looked).as_secs_f64());
        (looked, used) = (now, cpu);
        if back >= agents {
            return Ok((now, busiest));
        }
        ensure!(start.elapsed() < BOUND, "{back} of {agents} agents are back");
    }
}
