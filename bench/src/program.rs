//! The frame of every program: a role if the command line names one, otherwise one report.

use anyhow::{Context as _, Result};
use clap::Parser as _;
use links::{Profile, Statistics};
use tests::allow_open_files;

use crate::arguments::Arguments;
use crate::link::Link;
use crate::path::{Path, Running};
use crate::place::{Place, Places};
use crate::report::Report;
use crate::role;
use crate::route::Dialer;
use crate::service::{self, Service};
use crate::storm::served;

/// Files that one process of the largest measurement has open: both ends of a thousand connections, and then some.
const FILES: u64 = 4096;

/// Plays the role that the command line names; without one it measures, prints the table and writes the JSON.
pub fn run(measure: impl AsyncFnOnce(&Arguments) -> Result<Report>) -> Result<()> {
    if role::run()? {
        return Ok(());
    }
    let arguments = Arguments::parse();
    allow_open_files(FILES)?;
    let report = role::runtime()?.block_on(measure(&arguments))?;
    print(&report.table());
    let file = report.write(arguments.json.as_deref())?;
    print(&format!("written to {}", file.display()));
    Ok(())
}

/// Paths that are up, to one service.
#[derive(Debug)]
pub struct Paths {
    /// In the order they were asked for, then the peers.
    pub running: Vec<Running>,
    /// The service at the end of each.
    pub service: service::Running,
}

impl Paths {
    /// Brings up `paths` and the peers of the command line on loopback.
    pub async fn start(paths: &[Path], arguments: &Arguments) -> Result<Self> {
        let service = Service::start(arguments.service, &Place::loopback()).await?;
        let mut running = Vec::new();
        for path in paths.iter().cloned().chain(arguments.peer.iter().cloned().map(Path::Peer)) {
            running.push(path.start(&service, &Places::loopback()).await?);
        }
        Ok(Self { running, service })
    }

    /// Brings up `paths` from the near end of a link to a service at its far end. This thread must be inside the near end.
    pub async fn across(link: &Link, paths: &[Path]) -> Result<Self> {
        let places = link.places();
        let service = Service::start(places.far.any_port(), &places.far).await?;
        let mut running = Vec::new();
        for path in paths {
            running.push(path.start(&service, &places).await?);
        }
        Ok(Self { running, service })
    }

    /// Starts the agents anew, as where they stand for good: what a tunnel has learned of the link before is gone.
    pub async fn renew_tunnels(&mut self) -> Result<()> {
        for path in &mut self.running {
            if let Some(ours) = &mut path.ours {
                let before = ours.spoke.process().pid().as_raw();
                ours.spoke.kill().await?;
                ours.spoke.start_again().await?;
                let now = ours.spoke.process().pid().as_raw();
                path.counted.iter_mut().filter(|pid| **pid == before).for_each(|pid| *pid = now);
                served(&Dialer::new(&path.route)).await?;
            }
        }
        Ok(())
    }

    /// Those of `wanted` that are up, and the peers.
    pub fn select(&self, wanted: &[Path]) -> Vec<&Running> {
        let selected = |path: &&Running| matches!(path.path, Path::Peer(_)) || wanted.contains(&path.path);
        self.running.iter().filter(selected).collect()
    }

    /// All but those of `left_out`.
    pub fn without(&self, left_out: &[Path]) -> Vec<&Running> {
        self.running.iter().filter(|path| !left_out.contains(&path.path)).collect()
    }
}

/// The place of a path among those that are measured.
pub fn position(paths: &[&Running], path: &Path) -> Result<usize> {
    let found = paths.iter().position(|running| running.path == *path);
    found.with_context(|| format!("{} is not measured", path.name()))
}

/// A link whose near end this thread is in; none, with a note, where there can be none.
pub fn link(report: &mut Report, arguments: &Arguments, profile: Profile, seed: u64) -> Result<Option<Link>> {
    if let Err(missing) = Link::available() {
        report.notes.push(format!("not measured: {missing:#}"));
        return Ok(None);
    }
    let link = if arguments.netem { Link::start_netem(profile) } else { Link::start(profile, seed) }?;
    report.notes.extend(arguments.netem.then(|| "the link is the kernel's netem".to_owned()));
    link.tcp_memory().check()?;
    link.near().enter()?;
    Ok(Some(link))
}

/// Ends the link, and notes how well it was emulated. Figures taken while others had TCP's memory are none.
pub fn end(report: &mut Report, link: Link) -> Result<()> {
    for (direction, statistics) in ["there", "back"].iter().zip(link.statistics().into_iter().flatten()) {
        let Statistics { delivered, lost, dropped, largest_error, .. } = statistics;
        let [error, most] = [statistics.average_error(), largest_error].map(|error| error.as_secs_f64() * 1e3);
        report.notes.push(format!(
            "the link {direction}: {delivered} packets delivered, {lost} lost, {dropped} dropped; {error:.2} ms off on \
             average, {most:.1} at most"
        ));
    }
    link.tcp_memory().check()?;
    link.stop()
}

/// Writes to standard output.
#[expect(clippy::print_stdout, reason = "what a program is run for")]
pub fn print(text: &str) {
    println!("{text}");
}
