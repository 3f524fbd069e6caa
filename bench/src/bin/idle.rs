//! Question 7: what do tunnels and connections cost that carry nothing, and what does a tunnel's handshake cost?

use std::time::Duration;

use anyhow::Result;
use bench::arguments::Arguments;
use bench::cpu;
use bench::fleet_hub::FleetHub;
use bench::handshakes::{BareServer, Handshakes, Shaken, With};
use bench::idlers::Idlers;
use bench::place::Place;
use bench::program;
use bench::report::{Figure, Report, Target};
use bench::rounds::Rounds;
use bench::service::Service;

/// Tunnels that are up before anything is counted: what is made once has been made by then.
const FIRST: usize = 100;
/// How long memory and CPU take to settle after a change: the registry has written, no handshake is left.
const SETTLE: Duration = Duration::from_secs(3);
/// The number of tunnels that the target for the CPU is for.
const JUDGED: f64 = 10_000.0;

fn main() -> Result<()> {
    program::run(measure)
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let title = "what do tunnels and connections cost that carry nothing, and what does a handshake cost?";
    let mut report = Report::new("idle", 7, title, arguments.short)?;
    let (stages, connections): (&[usize], _) =
        if arguments.short { (&[1_000], 1_000) } else { (&[1_000, 5_000, 10_000], 10_000) };
    // A hub for each, as one that has freed memory would take it again instead of more.
    let most = stages[stages.len() - 1];
    tunnels(&FleetHub::start(most, 0).await?, stages, arguments, &mut report).await?;
    report.figures.push(idle_connections(&FleetHub::start(FIRST, connections).await?, connections).await?);
    report.figures.extend(handshakes(&FleetHub::start(FIRST, 0).await?, arguments).await?);
    Ok(report)
}

/// Memory and CPU of tunnels without streams, at each number of them.
async fn tunnels(fleet_hub: &FleetHub, stages: &[usize], arguments: &Arguments, report: &mut Report) -> Result<()> {
    // Not less than the agents' keep-alive.
    let window = Duration::from_secs_f64(arguments.seconds.unwrap_or(if arguments.short { 10.0 } else { 30.0 }));
    let (mut agent_processes, mut up) = (vec![fleet_hub.connect(0, FIRST).await?], FIRST);
    tokio::time::sleep(SETTLE).await;
    let start = fleet_hub.memory()?;
    for &stage in stages {
        agent_processes.push(fleet_hub.connect(up, stage - up).await?);
        up = stage;
        tokio::time::sleep(SETTLE).await;
        let memory = (fleet_hub.memory()? - start) / (up - FIRST) as f64;
        let load = 100.0 * fleet_hub.load(window).await?;
        let memory = Figure::new(format!("{up} idle tunnels: memory"), "ours", memory, "KiB each");
        report.figures.push(memory.target(Target::AtMost(32.0)));
        report.figures.push(Figure::new(format!("{up} idle tunnels: CPU"), "ours", load, "% of a core"));
        if up == stages[stages.len() - 1] {
            let judged = load * JUDGED / up as f64;
            let judged = Figure::new("10000 idle tunnels: CPU, in proportion", "ours", judged, "% of a core");
            report.figures.push(judged.target(Target::AtMost(3.0)));
        }
    }
    Ok(())
}

/// Memory of connections that are open and carry nothing.
async fn idle_connections(fleet_hub: &FleetHub, connections: usize) -> Result<Figure> {
    let _agents = fleet_hub.connect(0, FIRST).await?;
    let service = Service::start(Place::loopback().any_port(), &Place::loopback()).await?;
    let routes = (0..FIRST).map(|index| fleet_hub.route(index, service.address)).collect::<Result<Vec<_>>>()?;
    // One for each tunnel first, so that what a tunnel sets aside for its first stream is not counted.
    let once = Idlers { routes: routes.clone(), connections: FIRST }.start().await?;
    tokio::time::sleep(SETTLE).await;
    let before = fleet_hub.memory()?;
    let idlers = Idlers { routes, connections }.start().await?;
    tokio::time::sleep(SETTLE).await;
    let memory = (fleet_hub.memory()? - before) / connections as f64;
    drop((once, idlers));
    let figure = Figure::new(format!("{connections} idle connections: memory"), "ours", memory, "KiB each");
    Ok(figure.target(Target::AtMost(8.0)))
}

/// CPU of the server for one handshake, by that of a server of bare TLS over TCP with the same settings.
async fn handshakes(fleet_hub: &FleetHub, arguments: &Arguments) -> Result<Vec<Figure>> {
    let (bare, address) = BareServer::start(fleet_hub.hub.state()).await?;
    let hub = fleet_hub.hub.addresses().tunnel;
    let ways = [
        ("TLS over TCP", With::Bare(address), bare.pid().as_raw()),
        ("QUIC handshake", With::Quic(hub), fleet_hub.hub.process().pid().as_raw()),
        ("tunnel, opened and closed", With::Tunnel(hub), fleet_hub.hub.process().pid().as_raw()),
    ];
    let count = if arguments.short { 300 } else { 1_000 };
    let measured = Rounds::run(&ways, arguments.rounds(3, 5), async |(_, with, server)| {
        let handshakes = Handshakes { with: *with, fleet: fleet_hub.fleet(), clusters: FIRST, count };
        let before = cpu::seconds(&[*server])?;
        let Shaken { rate } = handshakes.measure().await?;
        tokio::time::sleep(SETTLE / 10).await;
        Ok((rate, (cpu::seconds(&[*server])? - before) * 1e6 / count as f64))
    })
    .await?;
    let figures = ways.iter().enumerate().map(|(way, (name, with, _))| {
        let cost = Figure::new("handshake: server CPU", *name, measured.median(way, |(_, cpu)| *cpu), "us");
        let cost = if way == 0 { cost } else { cost.of(ways[0].0, measured.ratio(way, 0, |(_, cpu)| *cpu)) };
        let judged = matches!(with, With::Quic(_)).then_some(Target::AtMost(1.3));
        let rate = Figure::new("handshakes", *name, measured.median(way, |(rate, _)| *rate), "/s");
        [cost.target(judged), rate]
    });
    Ok(figures.flatten().collect())
}
