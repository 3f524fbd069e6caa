//! Question 1: how much can 1, 4, 16 and 64 streams carry, in each direction, and what does it cost?

use anyhow::Result;
use bench::arguments::Arguments;
use bench::comparison::{Compared, Comparison};
use bench::load::{Direction, Transfer};
use bench::path::{MTU_1500, Path, Running};
use bench::program::{self, Paths};
use bench::report::{Figure, Report, Target};

/// What is compared with one stream; with more of them, and for the other direction, only those of [`JUDGED`] in the short form.
const ALL: [Path; 6] =
    [Path::Direct, Path::TcpRelay, Path::TlsRelay, Path::Quinn, Path::Ours { mtu: None }, Path::Ours { mtu: MTU_1500 }];
/// The baseline and ours.
const JUDGED: [Path; 3] = [Path::TlsRelay, Path::Ours { mtu: None }, Path::Ours { mtu: MTU_1500 }];

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let mut report = Report::new("bulk", 1, "how much do streams carry, and what does it cost?", arguments.short)?;
    let paths = Paths::start(&ALL, arguments).await?;
    let full =
        [1, 4, 16, 64].into_iter().flat_map(|streams| [(streams, Direction::Download), (streams, Direction::Upload)]);
    let short =
        [(1, Direction::Download), (16, Direction::Download), (64, Direction::Download), (1, Direction::Upload)];
    let loads = if arguments.short { short.to_vec() } else { full.collect() };
    let rounds = arguments.rounds(3, 5);
    for (streams, direction) in loads {
        // Many streams need longer until each has had so many turns that one more or less does not show.
        let span = if streams < 64 { arguments.span(0.6, 2.0) } else { arguments.span(1.2, 4.0) };
        let everything = !arguments.short || (streams, direction) == (1, Direction::Download);
        let measured = paths.select(if everything { &ALL } else { &JUDGED });
        let bulk = async |path: &Running| path.bulk(streams, direction, span).await;
        let compared = Comparison::run(measured, &Path::TlsRelay, rounds, bulk).await?;
        compared.iter().for_each(|path| report.figures.extend(figures(&path, streams, direction)));
    }
    Ok(report)
}

/// The figures of one path: throughput with its cost, which is judged of ours, and the fairness among many streams.
fn figures(compared: &Compared<'_, '_, Transfer>, streams: usize, direction: Direction) -> Vec<Figure> {
    let direction = match direction {
        Direction::Download => "download",
        Direction::Upload => "upload",
    };
    let name = if streams == 1 { format!("1 stream, {direction}") } else { format!("{streams} streams, {direction}") };
    let mut rate = compared.figure(&name, "Gbit/s", Transfer::gbit_per_second);
    if compared.is_accounted() {
        rate = rate.cpu(compared.median(Transfer::cpu_per_gib), "s/GiB");
    }
    let mut figures = vec![rate];
    let ours = if let Path::Ours { mtu } = compared.path.path { Some(mtu) } else { None };
    if let Some(mtu) = ours {
        let (one, many, cost) = if mtu.is_none() { (0.85, 0.75, 1.3) } else { (0.75, 0.60, 1.6) };
        let target = match streams {
            1 => Some(Target::AtLeast(one)),
            16.. => Some(Target::AtLeast(many)),
            _ => None,
        };
        figures[0].target = target;
        let cpu = compared.figure(format!("{name}: CPU"), "s/GiB", Transfer::cpu_per_gib);
        figures.push(cpu.target(Target::AtMost(cost)));
    }
    if streams >= 16 {
        let slowest = compared.median(Transfer::slowest_of_median);
        let figure = Figure::new(format!("{name}: slowest by median stream"), &compared.path.name, slowest, "");
        figures.push(figure.target(ours.is_some().then_some(Target::AtLeast(0.7))));
    }
    figures
}
