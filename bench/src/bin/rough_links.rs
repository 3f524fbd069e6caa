//! Question 10: how much does a download carry over links as users have them, by plain TCP with BBR?

use anyhow::{Context as _, Result};
use bench::arguments::Arguments;
use bench::load::{Direction, Transfer};
use bench::path::{Path, Running};
use bench::program::{self, Paths, position};
use bench::report::{Figure, Report, Target};
use bench::rounds::Rounds;
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
    let paths = Paths::across(&link, &[Path::Direct, ours()]).await?;
    let paths: Vec<&Running> = paths.running.iter().collect();
    for named in &links {
        link.set_profiles([named.up, named.down])?;
        download(&mut report, named, &paths, arguments).await?;
        if named.name == BOTH_WAYS {
            both_ways(&mut report, named, &paths, arguments).await?;
        }
    }
    program::end(&mut report, link)?;
    Ok(report)
}

/// One download.
async fn download(report: &mut Report, named: &Named, paths: &[&Running], arguments: &Arguments) -> Result<()> {
    let span = arguments.wide_area_span(3.0, 8.0);
    let download = async |path: &&Running| path.bulk(1, Direction::Download, span).await;
    let rounds = Rounds::run(paths, arguments.rounds(1, 3), download).await?;
    tell(report, &named.name, paths, &rounds, target(&named.down), Transfer::gbit_per_second)
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

fn target(link: &Profile) -> Target {
    let scattered = link.loss.run <= 1.0;
    Target::AtLeast(match link.loss.share {
        share if share >= 0.1 => 0.8,
        share if share > 0.0 && !scattered => 0.85,
        _ if !link.batch.is_zero() => 0.85,
        _ => 0.9,
    })
}

fn ours() -> Path {
    Path::Ours { mtu: None }
}
