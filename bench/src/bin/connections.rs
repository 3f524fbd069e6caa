//! Question 3: how many new connections a second, each with one request, and what does one cost?

use anyhow::Result;
use bench::arguments::Arguments;
use bench::comparison::{Compared, Comparison};
use bench::load::Exchanges;
use bench::path::{Path, Running};
use bench::program::{self, Paths};
use bench::report::{Figure, Report, Target};

const PATHS: [Path; 4] = [Path::Direct, Path::TcpRelay, Path::TlsRelay, Path::Ours { mtu: None }];
/// The number of workers that the targets are for.
const JUDGED: usize = 16;

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title = "how many new connections a second, each with one request, and what does one cost?";
    let mut report = Report::new("connections", 3, title, arguments.short)?;
    let paths = Paths::start(&PATHS, arguments).await?;
    let (rounds, span) = (arguments.rounds(3, 5), arguments.span(0.8, 2.0));
    for workers in if arguments.short { vec![JUDGED] } else { vec![1, JUDGED, 64] } {
        let connections = async |path: &Running| path.connections(workers, span).await;
        let compared = Comparison::run(paths.select(&PATHS), &Path::TlsRelay, rounds, connections).await?;
        compared.iter().for_each(|path| report.figures.extend(figures(&path, workers)));
    }
    Ok(report)
}

/// Rate, time and cost of one path.
fn figures(compared: &Compared<'_, '_, Exchanges>, workers: usize) -> Vec<Figure> {
    let name = if workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
    let rate = compared.figure(format!("{name}: rate"), "/s", Exchanges::rate);
    let p99 = compared.figure(format!("{name}: p99"), "us", |exchanges| exchanges.p99);
    let cost = compared.figure(format!("{name}: CPU"), "us/connection", Exchanges::cpu_per_operation);
    let judged = workers == JUDGED && matches!(compared.path.path, Path::Ours { .. });
    let rate = rate.target(judged.then_some(Target::AtLeast(2.5)));
    match compared.is_accounted() {
        true => vec![rate, p99, cost.target(judged.then_some(Target::AtMost(0.6)))],
        false => vec![rate, p99],
    }
}
