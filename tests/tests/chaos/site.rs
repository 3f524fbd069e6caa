//! A site: a hub, agents behind paths of their own, etcd where it is needed, and the services; what faults do to it, and who
//! starts again what has ended.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::client::Connection;
use tests::service::echo;
use tests::{Etcd, Fetch, Hub, Path, Process, Program, Service, Spoke, Weather};

use tokio::net::TcpStream;

use crate::fault::{Fault, freeze};
use crate::history::{History, State};
use crate::{traffic, trickle};

const BOUND: Duration = Duration::from_secs(60);
/// Each way.
const DELAY: Duration = Duration::from_millis(10);
const SPIKE: Duration = Duration::from_secs(4);
/// How long a process that ended by itself is left alone, as by systemd.
const REST: Duration = Duration::from_millis(500);
/// From when on who drains (for 5 s) may cut what it carries.
const CUT: Duration = Duration::from_millis(4800);
/// How slow etcd is: it runs for the second part of each period.
const SLOW: [Duration; 2] = [Duration::from_millis(1500), Duration::from_millis(300)];
/// Files that the hub may have open until none is to be had.
const FILES: &str = "4096";

/// Which of these stand on a site.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) etcd: bool,
    pub(crate) clocks: bool,
}

#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) hub: Hub,
    pub(crate) echo: Service,
    pub(crate) web: Service,
    places: Vec<Place>,
    etcd: Option<Etcd>,
    etcd_runs: bool,
    etcd_slow: Option<Instant>,
    hub_frozen: bool,
    /// It has begun to listen.
    hub_listens: bool,
    hub_rest: Option<Instant>,
    disk_full: bool,
    /// Hubs that drain.
    leaving: Vec<(Process, Instant)>,
    /// Connections that take the hub's last descriptors.
    taken: Vec<Connection>,
    clocks: TempDir,
    _hosts: TempDir,
}

/// An agent, alone in its cluster.
#[derive(Debug)]
struct Place {
    spoke: Spoke,
    path: Path,
    forward: SocketAddr,
    _forwarding: Process,
    runs: bool,
    ended: bool,
    /// It was asked to end.
    stopping: Option<Instant>,
    frozen: bool,
    rest: Option<Instant>,
    weather: Vec<Fault>,
    history: History,
}

impl Site {
    /// Starts it with these clusters.
    pub(crate) async fn start(clusters: &[&str], needs: Needs) -> Result<Self> {
        let (clocks, hosts) = (TempDir::new()?, TempDir::new()?);
        let file = hosts.path().join("hosts");
        fs::write(&file, "127.0.0.1 localhost web.mon.svc\n")?;
        let etcd = if needs.etcd { Some(Etcd::start().await?) } else { None };
        let mut hub = Hub::builder().args(["--drain-timeout", "5s"]).quiet();
        hub = hub.after_shell(&format!("trap '' XFSZ; ulimit -n {FILES}{}", clock(needs, &clocks, "hub")?));
        if let Some(etcd) = &etcd {
            hub = hub.args(["--store", "etcd", "--etcd-endpoint", &etcd.endpoint()]);
        }
        let hub = hub.start().await?;
        let (echo, web) = (echo::start().await?, trickle::start().await?);
        let mut places = Vec::new();
        for cluster in clusters {
            let path = Path::start(hub.addresses().tunnel, Weather::fair(DELAY)).await?;
            let shell = format!("true{}", clock(needs, &clocks, cluster)?);
            let spoke = Spoke::of(&hub, cluster).via(path.address()).hosts(&file).args(["--drain-timeout", "5s"]);
            let spoke = spoke.after_shell(&shell).start().await?;
            let words = ["port-forward", "-c", cluster, "127.0.0.1", &format!(":{}", echo.port())];
            let forwarding = hub.operator(&hub.credentials())?.args(words).quiet().spawn()?;
            let forward = traffic::forwarded(&forwarding, BOUND).await?;
            let place = Place {
                spoke,
                path,
                forward,
                _forwarding: forwarding,
                runs: true,
                ended: false,
                stopping: None,
                frozen: false,
                rest: None,
                weather: Vec::new(),
                history: History::default(),
            };
            places.push(place);
        }
        let mut site = Self {
            hub,
            echo,
            web,
            places,
            etcd,
            etcd_runs: true,
            etcd_slow: None,
            hub_frozen: false,
            hub_listens: true,
            hub_rest: None,
            disk_full: false,
            leaving: Vec::new(),
            taken: Vec::new(),
            clocks,
            _hosts: hosts,
        };
        site.note();
        Ok(site)
    }

    pub(crate) fn cluster(&self, place: usize) -> &str {
        self.places[place].spoke.cluster()
    }

    pub(crate) fn forward(&self, place: usize) -> SocketAddr {
        self.places[place].forward
    }

    pub(crate) fn history(&self, place: usize) -> &History {
        &self.places[place].history
    }

    pub(crate) fn spokes(&self) -> impl Iterator<Item = &Spoke> {
        self.places.iter().map(|place| &place.spoke)
    }

    /// Starts again what has ended and should run, and lets a slow etcd go on or rest.
    pub(crate) async fn supervise(&mut self) -> Result<()> {
        for place in &mut self.places {
            let running = place.spoke.is_running()?;
            if !running && !place.ended {
                place.ended = true;
                let now = Instant::now();
                let cut = place.stopping.take().map_or(now, |since| now.min(since + CUT));
                place.history.agent_drained(cut, now);
            }
            if let Some(since) = place.stopping.filter(|since| since.elapsed() > CUT) {
                place.history.agent_drained(since + CUT, Instant::now());
            }
            if place.runs && !running && over(&mut place.rest) {
                place.spoke.begin_again()?;
                place.ended = false;
                if place.frozen {
                    freeze(place.spoke.process(), true);
                }
            }
        }
        if !self.hub.is_running()? {
            self.hub_listens = false;
            if over(&mut self.hub_rest) {
                drop(self.hub.begin_again()?);
                self.hub_begins().await?;
            }
        }
        if !self.hub_listens {
            self.hub_listens = TcpStream::connect(self.hub.addresses().proxy).await.is_ok();
        }
        let mut leaving = Vec::new();
        for (mut hub, since) in self.leaving.drain(..) {
            let running = hub.is_running()?;
            if !running || since.elapsed() > CUT {
                let at = Instant::now().min(since + CUT);
                self.places.iter_mut().for_each(|place| place.history.hub_ended(since, at));
            }
            if running {
                leaving.push((hub, since));
            }
        }
        self.leaving = leaving;
        if let Some(etcd) = &mut self.etcd {
            if self.etcd_runs && !etcd.is_running()? {
                etcd.begin_again()?;
            }
            if let Some(since) = self.etcd_slow {
                let place = since.elapsed().as_millis() % (SLOW[0] + SLOW[1]).as_millis();
                freeze(etcd.process(), place < SLOW[0].as_millis());
            }
        }
        self.note();
        Ok(())
    }

    async fn hub_begins(&mut self) -> Result<()> {
        if self.hub_frozen {
            freeze(self.hub.process(), true);
        }
        if self.disk_full {
            self.fill_disk(true).await?;
        }
        Ok(())
    }

    fn note(&mut self) {
        let hub = !self.hub_frozen && self.hub_listens && self.hub.is_running().unwrap_or_default();
        for place in &mut self.places {
            let weather = weather(&place.weather);
            let agent = !place.frozen && place.spoke.is_running().unwrap_or_default();
            let spike = weather.delay == SPIKE;
            place.history.note(State { agent, hub, link: weather.there && weather.back, spike });
        }
    }

    pub(crate) async fn kill_agent(&mut self, place: usize, again: bool) -> Result<()> {
        let place = &mut self.places[place];
        place.runs = again;
        place.rest = None;
        place.history.agent_ended(Instant::now());
        place.spoke.kill().await?;
        self.supervise().await
    }

    pub(crate) fn let_agent_run(&mut self, place: usize) {
        self.places[place].runs = true;
    }

    /// Asks it to end; it is started again when it has.
    pub(crate) fn stop_agent(&mut self, place: usize) -> Result<()> {
        // It may have ended by another fault.
        let place = &mut self.places[place];
        if place.spoke.process().signal(Signal::SIGTERM).is_ok() && !place.ended {
            place.stopping = Some(Instant::now());
        }
        Ok(())
    }

    pub(crate) fn freeze_agent(&mut self, place: usize, frozen: bool) -> Result<()> {
        self.places[place].frozen = frozen;
        freeze(self.places[place].spoke.process(), frozen);
        self.note();
        Ok(())
    }

    pub(crate) async fn kill_hub(&mut self) -> Result<()> {
        let now = Instant::now();
        self.places.iter_mut().for_each(|place| place.history.hub_ended(now, now));
        for (hub, _) in &mut self.leaving {
            hub.kill().await?;
        }
        self.hub.kill().await?;
        self.hub_listens = false;
        self.hub_rest = None;
        self.note();
        self.supervise().await
    }

    /// Asks it to end while the next one begins.
    pub(crate) async fn succeed_hub(&mut self) -> Result<()> {
        drop(self.hub.process().signal(Signal::SIGTERM));
        let before = self.hub.begin_again()?;
        self.leaving.push((before, Instant::now()));
        self.hub_begins().await
    }

    pub(crate) fn freeze_hub(&mut self, frozen: bool) -> Result<()> {
        self.hub_frozen = frozen;
        self.hubs().for_each(|hub| freeze(hub, frozen));
        // What it was asked for while it stood still it begins now.
        self.leaving.iter_mut().filter(|_| !frozen).for_each(|(_, since)| *since = Instant::now());
        self.note();
        Ok(())
    }

    /// Adds a fault of the path, or takes it away.
    pub(crate) fn weather(&mut self, place: usize, fault: Fault, holds: bool) {
        let place = &mut self.places[place];
        place.weather.retain(|other| *other != fault);
        if holds {
            place.weather.push(fault);
        }
        place.path.set(weather(&place.weather));
        self.note();
    }

    pub(crate) async fn kill_etcd(&mut self, again: bool) -> Result<()> {
        self.etcd_runs = again;
        self.etcd.as_mut().context("no etcd here")?.kill().await
    }

    pub(crate) fn let_etcd_run(&mut self) {
        self.etcd_runs = true;
    }

    pub(crate) fn slow_etcd(&mut self, slow: bool) -> Result<()> {
        self.etcd_slow = slow.then(Instant::now);
        freeze(self.etcd.as_ref().context("no etcd here")?.process(), false);
        Ok(())
    }

    pub(crate) fn agent_clock(&self, place: usize, offset: &str) -> Result<()> {
        tests::clock::set(&self.clocks.path().join(self.cluster(place)), offset)
    }

    pub(crate) fn hub_clock(&self, offset: &str) -> Result<()> {
        tests::clock::set(&self.clocks.path().join("hub"), offset)
    }

    /// A limit on the size of its files stands in for a disk that is full; see the scenario about that.
    pub(crate) async fn fill_disk(&mut self, full: bool) -> Result<()> {
        self.disk_full = full;
        let store = fs::metadata(self.hub.state().join("registry.redb")).map_or(1 << 20, |store| store.len());
        let size = if full { store.to_string() } else { String::from("unlimited") };
        limit(self.hub.process(), &format!("--fsize={size}:")).await
    }

    /// Has clients take what the hub may open, until one is refused.
    pub(crate) async fn take_descriptors(&mut self) -> Result<()> {
        const MOST: usize = 500;
        for hub in self.hubs() {
            let files = fs::read_dir(format!("/proc/{}/fd", hub.pid()));
            let highest = files.map_or(0, |files| {
                let numbers = files.filter_map(|file| file.ok()?.file_name().to_str()?.parse::<usize>().ok());
                numbers.max().unwrap_or_default()
            });
            limit(hub, &format!("--nofile={}:", highest + 1)).await?;
        }
        let (client, target) = (self.hub.client(self.cluster(0))?, self.echo.address().to_string());
        const SOON: Duration = Duration::from_secs(1);
        while let Ok(Ok(connection)) = tokio::time::timeout(SOON, client.dial(&target)).await {
            self.taken.push(connection);
            ensure!(self.taken.len() < MOST, "the limit holds for nobody");
        }
        Ok(())
    }

    pub(crate) async fn give_descriptors(&mut self) -> Result<()> {
        self.taken.clear();
        for hub in self.hubs() {
            limit(hub, &format!("--nofile={FILES}:")).await?;
        }
        Ok(())
    }

    /// The hub, and those before it that drain.
    fn hubs(&self) -> impl Iterator<Item = &Process> {
        self.leaving.iter().map(|(hub, _)| hub).chain([self.hub.process()])
    }

    /// The processes and what they are called.
    pub(crate) fn processes(&self) -> impl Iterator<Item = (&'static str, &Process)> {
        let agents = self.places.iter().map(|place| ("agent", place.spoke.process()));
        agents.chain([("hub", self.hub.process())])
    }

    /// Whether nothing that was asked to end is yet to do so, and nothing that ended to begin.
    pub(crate) fn is_settled(&mut self) -> bool {
        self.leaving.is_empty()
            && self.hub.is_running().unwrap_or_default()
            && self.places.iter().all(|place| !place.ended && place.stopping.is_none())
    }

    /// Whether the processes have begun to serve, whatever they know of each other.
    pub(crate) async fn has_begun(&mut self) -> bool {
        let answers = async |address| Fetch::get("/healthz").plain(address).await.is_ok();
        let mut begun = Fetch::get("/readyz")
            .plain(self.hub.addresses().metrics)
            .await
            .is_ok_and(|ready| ready.status.is_success());
        for place in &self.places {
            begun &= answers(place.spoke.metrics()).await;
        }
        begun
    }
}

async fn limit(hub: &Process, limit: &str) -> Result<()> {
    let prlimit = Program::at("/usr/bin/prlimit").arg(format!("--pid={}", hub.pid()));
    // A hub that has just ended has no limits.
    drop(prlimit.arg(limit).run(BOUND).await?);
    Ok(())
}

/// Whether a rest is over; begins one.
fn over(rest: &mut Option<Instant>) -> bool {
    let over = rest.is_none_or(|since| since.elapsed() >= REST);
    if over {
        *rest = Some(Instant::now());
    }
    over
}

fn weather(faults: &[Fault]) -> Weather {
    let any = |sought: fn(&Fault) -> bool| faults.iter().any(sought);
    let down = any(|fault| matches!(fault, Fault::LinkDown(_)));
    Weather {
        delay: if any(|fault| *fault == Fault::Spike) { SPIKE } else { DELAY },
        there: !down && !any(|fault| *fault == Fault::AgentMute),
        back: !down && !any(|fault| *fault == Fault::HubMute),
        ..Weather::fair(DELAY)
    }
}

/// Has a process read the time from a file, as far as somebody needs that.
fn clock(needs: Needs, clocks: &TempDir, whose: &str) -> Result<String> {
    if !needs.clocks {
        return Ok(String::new());
    }
    Ok(format!("; {}", tests::clock::read_from(&clocks.path().join(whose))?))
}
