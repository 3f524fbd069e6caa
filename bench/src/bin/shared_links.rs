//! Question 11: what does a tunnel leave to others on its link, and how fast does it follow a link that changes?

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bench::arguments::Arguments;
use bench::link::Link;
use bench::load::{Direction, Exchanges, Span, Transfer};
use bench::path::{Path, Running};
use bench::program::{self, Paths};
use bench::report::{Figure, Report, Target};
use bench::rounds::Rounds;
use bench::trace;
use links::{Profile, Statistics};
use tokio::time::sleep;

/// The others' congestion controls.
const OTHERS: [&str; 2] = ["cubic", "bbr"];
/// Round trips in ms, and queues in round trips, beside others.
const BESIDE: [(u64, f64); 6] = [(20, 0.5), (20, 4.0), (50, 1.0), (50, 2.0), (100, 0.5), (100, 4.0)];
const BESIDE_SHORT: [(u64, f64); 1] = [(50, 1.0)];
/// Of either's share.
const FAIR: Target = Target::Between(0.5, 2.0);
/// Queues in round trips for two tunnels.
const TWO: [f64; 4] = [0.2, 0.5, 1.0, 4.0];
const TWO_SHORT: [f64; 1] = [1.0];
/// The slower by the faster.
const EQUAL: Target = Target::AtLeast(0.7);
/// Streams beside which connections are opened.
const BULK: usize = 16;
/// Who opens them, one after the other.
const WORKERS: usize = 4;
/// In round trips.
const NEW_CONNECTION: Target = Target::AtMost(3.0);
/// How long a link has one rate.
const STEADY: Duration = Duration::from_secs(12);
/// In Mbit/s.
const SLOW: u64 = 10;
const FAST: u64 = 100;
/// How often a link is looked at that has changed.
const LOOK: Duration = Duration::from_millis(100);
/// Chooses nothing: no packet is lost by chance.
const SEED: u64 = 11;

fn main() -> Result<()> {
    program::run(measure)
}

/// A link with a queue in round trips.
fn profile(mbit: u64, rtt: Duration, queue: f64) -> Profile {
    Profile::new(mbit * 1_000_000, rtt / 2, rtt.mul_f64(queue))
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title = "what does a tunnel leave to others on its link, and how fast does it follow a link that changes?";
    let mut report = Report::new("shared_links", 11, title, arguments.short)?;
    let first = profile(SLOW, Duration::from_millis(50), 1.0);
    let Some(link) = program::link(&mut report, arguments, first, SEED)? else { return Ok(report) };
    let tunnels = Paths::across(&link, &[ours(), ours()]).await?;
    let [one, other] = tunnels.running.as_slice() else { anyhow::bail!("there are two tunnels") };
    changes(&mut report, &link, one).await?;
    new_connections(&mut report, &link, one, arguments).await?;
    two(&mut report, &link, [one, other], arguments).await?;
    for congestion in OTHERS {
        // A connection has its listener's, and that has the far end's.
        match link.far().set_tcp_congestion(congestion) {
            Ok(()) => beside(&mut report, &link, one, congestion, arguments).await?,
            Err(error) => report.notes.push(format!("not measured: {error:#}")),
        }
    }
    program::end(&mut report, link)?;
    Ok(report)
}

fn ours() -> Path {
    Path::Ours { mtu: None }
}

/// One download over a link that becomes ten times as fast, and as slow again.
async fn changes(report: &mut Report, link: &Link, path: &Running) -> Result<()> {
    let rtt = Duration::from_millis(50);
    let span = Span { warm_up: Duration::ZERO, measured: 3 * STEADY };
    let follow = async {
        sleep(STEADY).await;
        link.set_profile(profile(FAST, rtt, 1.0))?;
        let bound = 0.8 * FAST as f64 * 1e6 / 8.0;
        let faster = until(link, |look| look.delivered_bytes as f64 / LOOK.as_secs_f64() > bound).await?;
        sleep(STEADY).await;
        link.set_profile(profile(SLOW, rtt, 1.0))?;
        // A request would stand in the queue as well.
        let slower = until(link, |look| look.delivered > 0 && look.average_queue() < rtt).await?;
        anyhow::Ok([faster, slower])
    };
    let (_, [faster, slower]) = tokio::try_join!(path.bulk(1, Direction::Download, span), follow)?;
    for (name, time, most) in [
        (format!("{SLOW} to {FAST} Mbit/s: to 0.8 of it"), faster, 3.0),
        (format!("{FAST} to {SLOW} Mbit/s: to a queue below 1 RTT"), slower, 2.0),
    ] {
        report.figures.push(Figure::new(name, &path.name, time.as_secs_f64(), "s").target(Target::AtMost(most)));
    }
    Ok(())
}

/// How long it takes until what comes from the far end in one look is as it should be; as long as the link is steady where it never is.
async fn until(link: &Link, good: impl Fn(&Statistics) -> bool) -> Result<Duration> {
    let down = || link.statistics().map(|[_, down]| down).context("netem does not tell what it carries");
    let (start, mut before) = (Instant::now(), down()?);
    while start.elapsed() < STEADY {
        sleep(LOOK).await;
        let now = down()?;
        if good(&now.since(&before)) {
            return Ok(start.elapsed());
        }
        before = now;
    }
    Ok(STEADY)
}

/// Connections that are opened beside downloads which fill a slow link.
async fn new_connections(report: &mut Report, link: &Link, path: &Running, arguments: &Arguments) -> Result<()> {
    let rtt = Duration::from_millis(80);
    link.set_profile(profile(20, rtt, 1.0))?;
    let span = arguments.wide_area_span(8.0, 30.0);
    let idle = path.connections(WORKERS, span).await?;
    let mut last = None;
    let rounds = Rounds::run(&[()], arguments.rounds(1, 3), async |()| {
        let bulk = trace::recorded(link, path, path.bulk(BULK, Direction::Download, span));
        let (connections, (_, trace)) = tokio::try_join!(path.connections(WORKERS, span), bulk)?;
        last = trace;
        Ok(connections)
    });
    let rounds = rounds.await?;
    let [p50, p99] = [|given: &Exchanges| given.p50, |given: &Exchanges| given.p99].map(|of| rounds.median(0, of));
    for (name, bulk, us, target) in
        [("p50", 0, idle.p50, None), ("p50", BULK, p50, None), ("p99", BULK, p99, Some(NEW_CONNECTION))]
    {
        let name = format!("{name} of a new connection beside {bulk} streams, 20 Mbit/s, 80 ms");
        let figure = Figure::new(name, &path.name, us / 1e3, "ms").of("RTT", us / 1e6 / rtt.as_secs_f64());
        report.figures.push(figure.target(target));
    }
    trace::explain(report, [last])
}

/// A download through each of two tunnels.
async fn two(report: &mut Report, link: &Link, tunnels: [&Running; 2], arguments: &Arguments) -> Result<()> {
    let queues = if arguments.short { &TWO_SHORT[..] } else { &TWO };
    for queue in queues {
        link.set_profile(profile(50, Duration::from_millis(50), *queue))?;
        let [first, second] = tunnels;
        let both = trace::recorded(link, second, together(tunnels, arguments));
        let (([one, other], second_trace), first_trace) = trace::recorded(link, first, both).await?;
        let name = format!("two tunnels, 50 Mbit/s, 50 ms, queue {queue}");
        let figure = Figure::new(name, &tunnels[0].name, one.min(other), "Mbit/s");
        report.figures.push(figure.of("the faster", one.min(other) / one.max(other)).target(EQUAL));
        trace::explain(report, [first_trace, second_trace])?;
    }
    Ok(())
}

/// A download through a tunnel beside one over plain TCP.
async fn beside(
    report: &mut Report,
    link: &Link,
    path: &Running,
    congestion: &str,
    arguments: &Arguments,
) -> Result<()> {
    let direct = Paths::across(link, &[Path::Direct]).await?;
    let direct = direct.running.first().context("plain TCP is up")?;
    let links = if arguments.short { &BESIDE_SHORT[..] } else { &BESIDE };
    for (rtt, queue) in links {
        link.set_profile(profile(50, Duration::from_millis(*rtt), *queue))?;
        let load = together([path, direct], arguments);
        let ([ours, theirs], trace) = trace::recorded(link, path, load).await?;
        let name = format!("beside {congestion}, 50 Mbit/s, {rtt} ms, queue {queue}");
        let figure = Figure::new(name, &path.name, ours, "Mbit/s").of(congestion, ours / theirs);
        report.figures.push(figure.target(FAIR));
        trace::explain(report, [trace])?;
    }
    Ok(())
}

/// What two downloads at the same time have, in Mbit/s, after they had time to come to terms.
async fn together(paths: [&Running; 2], arguments: &Arguments) -> Result<[f64; 2]> {
    let span = Span { warm_up: STEADY, ..arguments.span(20.0, 30.0) };
    let [one, other] = paths.map(|path| path.bulk(1, Direction::Download, span));
    let (one, other) = tokio::try_join!(one, other)?;
    Ok([one, other].map(|transfer: Transfer| transfer.gbit_per_second() * 1e3))
}
