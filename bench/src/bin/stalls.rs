//! Question 6: what is left to the others of a tunnel when 200 of its readers take nothing?

use std::time::Duration;

use anyhow::Result;
use bench::arguments::Arguments;
use bench::cpu;
use bench::load::{Direction, Exchanges, Span, Transfer};
use bench::path::{Path, Running};
use bench::program::{self, Paths};
use bench::report::{Figure, Report, Target};
use bench::rounds::Rounds;
use tests::wait_until;
use tokio::time::sleep;

const PATHS: [Path; 2] = [Path::TlsRelay, Path::Ours { mtu: None }];
/// Readers that take nothing.
const STALLED: usize = 200;
/// Streams that carry bulk, and connections that ask and are answered, beside them.
const OTHERS: usize = 4;
/// How long the stalled readers may take until every buffer towards them is full: 200 times a window and two socket buffers.
const FILLING: Duration = Duration::from_secs(60);
/// The stretch of time in which processes that have nothing to do are to use next to nothing.
const QUIET: Duration = Duration::from_millis(200);

/// What the others got in one turn.
#[derive(Debug)]
struct Others {
    bulk: Transfer,
    requests: Exchanges,
}

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title = "what is left to the others when 200 readers take nothing?";
    let mut report = Report::new("stalls", 6, title, arguments.short)?;
    let paths = Paths::start(&PATHS, arguments).await?;
    let (rounds, span) = (arguments.rounds(3, 7), arguments.span(0.8, 2.0));
    let wanted = if arguments.short { &PATHS[1..] } else { &PATHS };
    for path in paths.select(wanted) {
        let rounds = Rounds::run(&[0, STALLED], rounds, async |stalled| others(path, *stalled, span).await).await?;
        report.figures.extend(figures(path, &rounds));
    }
    Ok(report)
}

/// Measures the others beside `stalled` readers, which are gone afterwards.
async fn others(path: &Running, stalled: usize, span: Span) -> Result<Others> {
    let _stalled = match stalled {
        0 => None,
        _ => Some(path.stall(stalled).await?),
    };
    // Both with stalled readers and after the last ones have gone: what they set in motion has ended.
    wait_until(FILLING, "processes without work", async || is_quiet(&path.counted).await).await?;
    let bulk = path.bulk(OTHERS, Direction::Download, span).await?;
    let requests = path.requests(OTHERS, span).await?;
    Ok(Others { bulk, requests })
}

/// Whether the processes use less than a tenth of a core together. Those of a peer are not known, and so never judged busy.
async fn is_quiet(pids: &[i32]) -> bool {
    let before = cpu::seconds(pids);
    sleep(QUIET).await;
    matches!((before, cpu::seconds(pids)), (Ok(before), Ok(after)) if after - before < QUIET.as_secs_f64() / 10.0)
}

/// Each figure beside the stalled readers, as a ratio to the one without them in the same round.
fn figures(path: &Running, rounds: &Rounds<Others>) -> [Figure; 3] {
    let (alone, beside) = (0, 1);
    let figure = |name: &str, unit, value: fn(&Others) -> f64| {
        let figure =
            Figure::new(format!("{name} beside {STALLED} stalled"), &path.name, rounds.median(beside, value), unit);
        figure.of("alone", rounds.ratio(beside, alone, value))
    };
    let judged = matches!(path.path, Path::Ours { .. });
    [
        figure("bulk", "Gbit/s", |others| others.bulk.gbit_per_second())
            .target(judged.then_some(Target::AtLeast(0.95))),
        figure("requests: rate", "/s", |others| others.requests.rate()).target(judged.then_some(Target::AtLeast(0.95))),
        figure("requests: p99", "us", |others| others.requests.p99).target(judged.then_some(Target::AtMost(1.2))),
    ]
}
