//! Question 5: how much of a link do 16 bulk streams reach at 0, 1 and 3 % loss, and one stream on a long fat link? With `--soak`:
//! is a tunnel ever lost?

use std::time::Duration;

use anyhow::{Context as _, Result};
use bench::arguments::Arguments;
use bench::link::Link;
use bench::load::{Direction, Span, Transfer};
use bench::path::{Ours, Path, Running};
use bench::program::{self, Paths, position};
use bench::report::{Figure, Report, Target};
use bench::rounds::Rounds;
use bench::trace;
use links::Profile;
use tests::metrics::Metrics;

/// The random losses, each with the target share of the link.
const LOSSES: [(f64, Option<Target>); 3] =
    [(0.0, None), (0.01, Some(Target::AtLeast(0.85))), (0.03, Some(Target::AtLeast(0.85)))];
/// One stream over 100 ms and 400 Mbit/s, from its first byte on, as a part of plain TCP.
const LONG_FAT: Target = Target::AtLeast(0.95);
/// Streams of the first part.
const STREAMS: usize = 16;
/// Streams under which the tunnel is held in a soak.
const SOAK_STREAMS: usize = 4;
/// Chooses the packets that are lost.
const SEED: u64 = 5;

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title = "how much of a link do bulk streams reach under loss?";
    let mut report = Report::new("loss", 5, title, arguments.short)?;
    let Some(link) = program::link(&mut report, arguments, Profile::WIDE_AREA, SEED)? else { return Ok(report) };
    let yamux = ["cubic", "bbr"].map(|congestion| Path::Yamux { congestion: congestion.to_owned() });
    // The short form has no time for tunnels over TCP; the target is a share of the link.
    let yamux = if arguments.short { &[][..] } else { &yamux };
    let paths = Paths::across(&link, &[&[Path::Direct, ours()], yamux].concat()).await?;
    match arguments.soak {
        Some(time) => soak(&mut report, &link, &paths, time).await?,
        None => {
            // The tunnels stand all the time: what losses did to them is not to slow down the link that has none.
            long_fat(&mut report, &link, &paths, arguments).await?;
            shares(&mut report, &link, &paths, arguments).await?;
        }
    }
    let congestion = link.far().tcp_congestion()?;
    report.notes.push(format!("direct TCP has the machine's congestion control, {congestion}"));
    program::end(&mut report, link)?;
    Ok(report)
}

/// One stream over 100 ms and 400 Mbit/s, by plain TCP's.
async fn long_fat(report: &mut Report, link: &Link, paths: &Paths, arguments: &Arguments) -> Result<()> {
    link.set_profile(Profile::LONG_FAT)?;
    let paths: Vec<&Running> = paths.running.iter().collect();
    let (direct, ours) = (position(&paths, &Path::Direct)?, position(&paths, &ours())?);
    let span = Span { warm_up: Duration::ZERO, ..arguments.span(4.0, 4.0) };
    let mut last = None;
    let download = async |path: &&Running| {
        let (carried, trace) = trace::recorded(link, path, path.bulk(1, Direction::Download, span)).await?;
        last = trace.or_else(|| last.take());
        anyhow::Ok(carried)
    };
    let rounds = Rounds::run(&paths, arguments.rounds(1, 3), download).await?;
    for (index, path) in paths.iter().enumerate() {
        let rate = rounds.median(index, Transfer::gbit_per_second) * 1e3;
        let ratio = rounds.ratio(index, direct, Transfer::gbit_per_second);
        let figure = Figure::new("1 stream, 400 Mbit/s, 100 ms, its first 4 s", &path.name, rate, "Mbit/s");
        report.figures.push(figure.of(&paths[direct].name, ratio).target((index == ours).then_some(LONG_FAT)));
    }
    trace::explain(report, [last])
}

/// 16 streams, by the link's rate.
async fn shares(report: &mut Report, link: &Link, paths: &Paths, arguments: &Arguments) -> Result<()> {
    let paths: Vec<&Running> = match arguments.short {
        true => paths.select(&[ours()]),
        false => paths.running.iter().collect(),
    };
    let ours = position(&paths, &ours())?;
    for (loss, target) in LOSSES {
        let profile = Profile::WIDE_AREA.with_loss(loss);
        link.set_profile(profile)?;
        let span = arguments.wide_area_span(4.0, 10.0);
        let download = async |path: &&Running| path.bulk(STREAMS, Direction::Download, span).await;
        let rounds = Rounds::run(&paths, arguments.rounds(1, 3), download).await?;
        let percent = loss * 100.0;
        for (index, path) in paths.iter().enumerate() {
            let rate = rounds.median(index, Transfer::gbit_per_second);
            let figure = Figure::new(format!("{STREAMS} streams, {percent} % loss"), &path.name, rate * 1e3, "Mbit/s");
            let figure = figure.of("the link", rate * 1e9 / profile.rate as f64);
            report.figures.push(figure.target(if index == ours { target } else { None }));
        }
        let fairness = rounds.median(ours, Transfer::slowest_of_median);
        let name = format!("slowest stream, {percent} % loss");
        report.figures.push(Figure::new(name, &paths[ours].name, fairness, "of median"));
    }
    Ok(())
}

/// Streams for that long at each loss on the long fat link, where most is under way; no tunnel is to end.
async fn soak(report: &mut Report, link: &Link, paths: &Paths, time: Duration) -> Result<()> {
    let running: Vec<&Running> = paths.running.iter().collect();
    let path = running[position(&running, &ours())?];
    let ours = path.ours.as_ref().context("ours is not up")?;
    for (loss, _) in LOSSES {
        link.set_profile(Profile::LONG_FAT.with_loss(loss))?;
        let before = lost(ours).await?;
        let span = Span { warm_up: Duration::from_secs(2), measured: time };
        let soaked = path.bulk(SOAK_STREAMS, Direction::Download, span).await;
        let percent = loss * 100.0;
        match &soaked {
            Ok(transfer) => {
                let name = format!("soak, {SOAK_STREAMS} streams, {percent} % loss");
                report.figures.push(Figure::new(name, &path.name, transfer.gbit_per_second() * 1e3, "Mbit/s"));
            }
            Err(error) => report.notes.push(format!("soak at {percent} % loss: {error:#}")),
        }
        let lost = lost(ours).await? - before;
        // A load that broke without the loss of a tunnel is a miss all the same.
        let misses = if soaked.is_err() { lost.max(1.0) } else { lost };
        let name = format!("tunnels lost in {time:?}, {percent} % loss");
        report.figures.push(Figure::new(name, &path.name, misses, "").target(Target::AtMost(0.0)));
    }
    Ok(())
}

/// Tunnels that the hub has lost since its start.
async fn lost(ours: &Ours) -> Result<f64> {
    let metrics = Metrics::fetch(ours.hub.addresses().metrics).await?;
    Ok(metrics.sum("proxy_server_tunnels_closed_total", &[]))
}

fn ours() -> Path {
    Path::Ours { mtu: None }
}
