//! Question 2: how long does a request of 64 bytes take on standing connections, 1, 64 and 1000 of them, and what does it cost?

use anyhow::Result;
use bench::arguments::Arguments;
use bench::comparison::{Compared, Comparison};
use bench::load::Exchanges;
use bench::path::{Path, Running};
use bench::program::{self, Paths};
use bench::report::{Figure, Report, Target};

/// What is compared with one connection; with more of them only [`JUDGED`] in the short form.
const ALL: [Path; 5] = [Path::Direct, Path::TcpRelay, Path::TlsRelay, Path::Quinn, Path::Ours { mtu: None }];
/// The baseline and ours.
const JUDGED: [Path; 2] = [Path::TlsRelay, Path::Ours { mtu: None }];

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title = "how long does a request take on standing connections, and what does it cost?";
    let mut report = Report::new("requests", 2, title, arguments.short)?;
    let paths = Paths::start(&ALL, arguments).await?;
    let (rounds, span) = (arguments.rounds(3, 5), arguments.span(0.8, 2.0));
    for connections in [1, 64, 1000] {
        let measured = paths.select(if arguments.short && connections > 1 { &JUDGED } else { &ALL });
        let requests = async |path: &Running| path.requests(connections, span).await;
        let compared = Comparison::run(measured, &Path::TlsRelay, rounds, requests).await?;
        compared.iter().for_each(|path| report.figures.extend(figures(&path, connections)));
    }
    Ok(report)
}

/// Median, 99th percentile and rate of one path. Each target is for one number of connections.
fn figures(compared: &Compared<'_, '_, Exchanges>, connections: usize) -> Vec<Figure> {
    let name = match connections {
        1 => "1 connection".to_owned(),
        many => format!("{many} connections"),
    };
    let mut rate = compared.figure(format!("{name}: rate"), "/s", Exchanges::rate);
    if compared.is_accounted() {
        rate = rate.cpu(compared.median(Exchanges::cpu_per_operation), "us/request");
    }
    let p50 = compared.figure(format!("{name}: p50"), "us", |exchanges| exchanges.p50);
    let p99 = compared.figure(format!("{name}: p99"), "us", |exchanges| exchanges.p99);
    if !matches!(compared.path.path, Path::Ours { .. }) {
        return vec![p50, p99, rate];
    }
    vec![
        p50.target((connections == 1).then_some(Target::AtMost(1.10))),
        p99.target((connections == 64).then_some(Target::AtMost(1.0))),
        rate.target((connections == 1000).then_some(Target::AtLeast(1.5))),
    ]
}
