//! Question 1: how much can 1, 4, 16 and 64 streams carry, in each direction, and what does it cost?

use anyhow::Result;
use bench::arguments::Arguments;
use bench::load::{Direction, Transfer};
use bench::path::Path;
use bench::program::{self, Paths, position};
use bench::report::{Figure, Report, Target};
use bench::rounds::Rounds;

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let mut report = Report::new("bulk", 1, "how much do streams carry, and what does it cost?", arguments.short)?;
    let paths = Paths::start(&[Path::Direct, Path::TlsRelay, Path::Ours { mtu: None }], arguments).await?;
    let span = arguments.span(0.6, 2.0);
    let paths = paths.without(&[]);
    let baseline = position(&paths, &Path::TlsRelay)?;
    let rounds =
        Rounds::run(&paths, arguments.rounds(3, 5), async |path| path.bulk(1, Direction::Download, span).await).await?;
    for (index, path) in paths.iter().enumerate() {
        let rate = rounds.median(index, Transfer::gbit_per_second);
        let figure = Figure::new("1 stream, download", &path.name, rate, "Gbit/s");
        let figure = figure.cpu(rounds.median(index, Transfer::cpu_per_gib), "s/GiB");
        let ratio = rounds.ratio(index, baseline, Transfer::gbit_per_second);
        let target = (path.name == "ours").then_some(Target::AtLeast(0.85));
        report.figures.push(figure.of(&paths[baseline].name, ratio).target(target));
    }
    Ok(report)
}
