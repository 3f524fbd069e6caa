//! Question 10: how much does a download carry over links as users have them, by plain TCP with BBR?

use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::arguments::Arguments;
use bench::link::Link;
use bench::load::{Direction, Span, Transfer};
use bench::path::{Path, Running};
use bench::program::{self, Paths, position};
use bench::report::{Figure, Report, Target};
use bench::rounds::Rounds;
use bench::trace;
use links::{Named, Profile, catalogue};

/// What is asked in the short form: one of each kind.
const SHORT: [&str; 7] =
    ["loss 3 %", "loss 10 %", "jitter 5 ms", "jitter 20 ms", "reordered 5 ms", "10 % late", "batches of 10 ms"];
/// The link over which both directions are asked at the same time.
const BOTH_WAYS: &str = "loss 10 %";
const BOTH_WAYS_TARGET: Target = Target::AtLeast(0.7);
/// The baseline's congestion control.
const BASELINE: &str = "bbr";
/// Chooses what happens to which packet.
const SEED: u64 = 10;

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title = "how much does a download carry over links as users have them?";
    let mut report = Report::new("rough_links", 10, title, arguments.short)?;
    let mut links = catalogue();
    links.retain(|link| !arguments.short || SHORT.contains(&link.name.as_str()));
    let first = links.first().context("there are no links")?.down;
    let Some(link) = program::link(&mut report, arguments, first, SEED)? else { return Ok(report) };
    for end in [link.near(), link.far()] {
        if let Err(error) = end.set_tcp_congestion(BASELINE) {
            report.notes.push(format!("direct TCP has the machine's congestion control: {error:#}"));
        }
    }
    let mut paths = Paths::across(&link, &[Path::Direct, ours()]).await?;
    links.push(satellite());
    for named in &links {
        link.set_profiles([named.up, named.down])?;
        paths.renew_tunnels().await?;
        let paths: Vec<&Running> = paths.running.iter().collect();
        download(&mut report, &link, named, &paths, arguments).await?;
        if named.name == BOTH_WAYS {
            both_ways(&mut report, named, &paths, arguments).await?;
        }
    }
    program::end(&mut report, link)?;
    Ok(report)
}

/// One download. Where it is less than it should be, a drawing shows why.
async fn download(
    report: &mut Report,
    link: &Link,
    named: &Named,
    paths: &[&Running],
    arguments: &Arguments,
) -> Result<()> {
    // In round trips, to find the rate of a link.
    let warm_up = Duration::from_secs(2).max(named.down.round_trip() * 17);
    let span = Span { warm_up, ..arguments.span(3.0, 8.0) };
    let mut last = None;
    let rounds = Rounds::run(paths, arguments.rounds(1, 3), async |path: &&Running| {
        let (carried, trace) = trace::recorded(link, path, path.bulk(1, Direction::Download, span)).await?;
        last = trace.or_else(|| last.take());
        Ok(carried)
    });
    let rounds = rounds.await?;
    tell(report, &named.name, paths, &rounds, target(named), Transfer::gbit_per_second)?;
    trace::explain(report, [last])
}

/// A download and an upload at the same time.
async fn both_ways(report: &mut Report, named: &Named, paths: &[&Running], arguments: &Arguments) -> Result<()> {
    let span = arguments.wide_area_span(3.0, 8.0);
    let both = async |path: &&Running| {
        let [down, up] = [Direction::Download, Direction::Upload].map(|direction| path.bulk(1, direction, span));
        let (down, up) = tokio::try_join!(down, up)?;
        anyhow::Ok([down.gbit_per_second(), up.gbit_per_second()])
    };
    let rounds = Rounds::run(paths, arguments.rounds(1, 3), both).await?;
    for (at, way) in ["download beside an upload", "upload beside a download"].into_iter().enumerate() {
        let name = format!("{}: {way}", named.name);
        tell(report, &name, paths, &rounds, BOTH_WAYS_TARGET, |rates| rates[at])?;
    }
    Ok(())
}

/// The rate of each path, in Gbit/s by `rate`, and by plain TCP's.
fn tell<T>(
    report: &mut Report,
    name: &str,
    paths: &[&Running],
    rounds: &Rounds<T>,
    target: Target,
    rate: impl Fn(&T) -> f64,
) -> Result<()> {
    let (direct, ours) = (position(paths, &Path::Direct)?, position(paths, &ours())?);
    for (index, path) in paths.iter().enumerate() {
        let ratio = rounds.ratio(index, direct, &rate);
        let figure = Figure::new(name, &path.name, rounds.median(index, &rate) * 1e3, "Mbit/s");
        report.figures.push(figure.of(&paths[direct].name, ratio).target((index == ours).then_some(target)));
    }
    Ok(())
}

fn target(named: &Named) -> Target {
    let Profile { loss, batch, policer, .. } = named.down;
    let far = named.down.round_trip() > Duration::from_millis(500);
    let bursts = loss.share > 0.0 && loss.run > 1.0;
    Target::AtLeast(if loss.share >= 0.1 {
        0.8
    } else if bursts || far || policer.is_some() || !batch.is_zero() || named.up.rate < named.down.rate {
        0.85
    } else {
        0.9
    })
}

/// A way over a satellite.
fn satellite() -> Named {
    let ms = Duration::from_millis;
    let profile = Profile::new(50_000_000, ms(300), ms(300)).with_loss(0.01);
    Named { name: "satellite, 50 Mbit/s, 600 ms, loss 1 %".to_owned(), down: profile, up: profile }
}

fn ours() -> Path {
    Path::Ours { mtu: None }
}
