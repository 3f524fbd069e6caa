//! Question 8: how long after a hub or an agent was killed or stopped is the first request served, and all agents back?

use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::arguments::Arguments;
use bench::path::{Ours, Path};
use bench::program::{self, Paths};
use bench::report::{Figure, Report, Target};
use bench::route::{Dialer, Route};
use bench::storm::{Fault, Storm, served};

/// How long a hub is away whose agents have all noticed, and try to connect when it comes back: beyond the time for which it may
/// be silent, and so long that they do so seldom.
const AWAY: Duration = Duration::from_secs(20);
const LONG_AWAY: Duration = Duration::from_secs(600);

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title =
        "how long after a hub or an agent was killed or stopped is a request served, and when are all agents back?";
    let mut report = Report::new("recovery", 8, title, arguments.short)?;
    if arguments.only.is_none() {
        report.figures.extend(pairs(arguments).await?);
    }
    let fleets = if arguments.short { vec![2_000] } else { vec![5_000, 10_000] };
    let fleets = arguments.only.map_or(fleets, |only| vec![only]);
    for &agents in &fleets {
        let (mut storm, figures) = Storm::gather(agents).await?;
        report.figures.extend(figures);
        for fault in [Fault::Killed(Duration::ZERO), Fault::Stopped, Fault::Killed(AWAY)] {
            report.figures.extend(storm.suffer(fault).await?);
        }
        if !arguments.short && agents == fleets[0] {
            report.figures.extend(storm.suffer(Fault::Killed(LONG_AWAY)).await?);
        }
    }
    Ok(report)
}

/// One agent and its hub.
async fn pairs(arguments: &Arguments) -> Result<Vec<Figure>> {
    let mut paths = Paths::start(&[Path::Ours { mtu: None }], arguments).await?;
    let route = paths.running[0].route.clone();
    let ours = paths.running[0].ours.as_mut().context("ours has no hub")?;
    let mut figures = Vec::new();
    for ending in [Ending::HubKilled, Ending::HubStopped, Ending::AgentKilled] {
        figures.extend(ending.repeat(ours, &route, arguments.rounds(3, 10)).await?);
    }
    Ok(figures)
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
