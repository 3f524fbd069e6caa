//! Question 4: how long does a small request take beside a bulk stream, at 0, 1 and 3 % loss?

use anyhow::Result;
use bench::arguments::Arguments;
use bench::load::Beside;
use bench::path::Path;
use bench::program::{self, Paths, position};
use bench::report::{Figure, Report, Target};
use bench::rounds::Rounds;
use links::Profile;

/// The random losses, each with the targets of p50 and p99 as parts of a tunnel over TCP.
const LOSSES: [(f64, Option<Target>, Option<Target>); 3] = [
    (0.0, Some(Target::AtMost(0.3)), Some(Target::AtMost(0.3))),
    (0.01, Some(Target::AtMost(0.3)), None),
    (0.03, None, None),
];
/// Of the idle round trip, without loss: the price of a full link, set with question 5.
const BESIDE_OF_IDLE: Target = Target::AtMost(1.9);
/// Chooses the packets that are lost.
const SEED: u64 = 4;

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title = "how long does a small request take beside a bulk stream?";
    let mut report = Report::new("beside", 4, title, arguments.short)?;
    let Some(link) = program::link(&mut report, arguments, Profile::WIDE_AREA, SEED)? else { return Ok(report) };
    let paths = [ours(), yamux("cubic"), yamux("bbr")];
    let paths = Paths::across(&link, &paths).await?;
    let paths: Vec<_> = paths.running.iter().collect();
    let ours = position(&paths, &ours())?;
    let idle = paths[ours].beside(0, arguments.wide_area_span(1.0, 5.0)).await?;
    report.figures.push(Figure::new("p50, no bulk", &paths[ours].name, idle.p50, "ms"));
    let losses = if arguments.short { &LOSSES[..2] } else { &LOSSES };
    for (loss, p50, p99) in losses {
        link.set_profile(Profile::WIDE_AREA.with_loss(*loss))?;
        let span = arguments.wide_area_span(2.5, 10.0);
        let rounds = Rounds::run(&paths, arguments.rounds(1, 3), async |path| path.beside(1, span).await).await?;
        let percent = loss * 100.0;
        for (index, path) in paths.iter().enumerate() {
            let bulk = rounds.median(index, Beside::mbit_per_second);
            report.figures.push(Figure::new(format!("bulk beside, {percent} % loss"), &path.name, bulk, "Mbit/s"));
        }
        for (name, value, target) in [("p50", p50_of as fn(&Beside) -> f64, p50), ("p99", p99_of, p99)] {
            for (index, path) in paths.iter().enumerate() {
                let name = format!("{name}, {percent} % loss");
                let figure = |index| Figure::new(&name, &path.name, rounds.median(index, value), "ms");
                if index != ours {
                    // Ours beside this one: a row for each, as both congestion controls are common.
                    let ratio = rounds.ratio(ours, index, value);
                    let ours = Figure::new(&name, &paths[ours].name, rounds.median(ours, value), "ms");
                    report.figures.push(figure(index));
                    report.figures.push(ours.of(&path.name, ratio).target(*target));
                }
            }
        }
        if *loss == 0.0 {
            let p50 = rounds.median(ours, p50_of);
            let figure = Figure::new("p50, 0 % loss", &paths[ours].name, p50, "ms");
            report.figures.push(figure.of("no bulk", p50 / idle.p50).target(BESIDE_OF_IDLE));
        }
    }
    program::end(&mut report, link)?;
    Ok(report)
}

fn ours() -> Path {
    Path::Ours { mtu: None }
}

fn yamux(congestion: &str) -> Path {
    Path::Yamux { congestion: congestion.to_owned() }
}

fn p50_of(beside: &Beside) -> f64 {
    beside.p50
}

fn p99_of(beside: &Beside) -> f64 {
    beside.p99
}
