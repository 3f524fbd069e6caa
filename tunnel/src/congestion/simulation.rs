//! Two real quinn state machines per tunnel over a simulated link in virtual time: the pacer, the delay of ACKs, loss
//! detection and stream reassembly all take part.

mod changes;
mod end;
mod grid;
mod link;
mod tests;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use links::Statistics;
use quinn_proto::congestion::ControllerFactory;

use self::{
    end::{End, Load},
    link::Link,
};

pub(super) use self::link::{Path, Route};

/// The least step. quinn's pacer asks for less than a nanosecond where a token is a fraction of a byte short, and time would stand.
const TICK: Duration = Duration::from_micros(10);

/// Tunnels over one bottleneck. The servers send.
pub(super) struct Network {
    epoch: Instant,
    now: Instant,
    /// Down, from the servers; up, from the clients.
    links: [Link; 2],
    tunnels: Vec<Tunnel>,
}

struct Tunnel {
    /// When it begins.
    start: Instant,
    /// Server and client.
    ends: [End; 2],
}

/// What one tunnel did in a span of time.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Bytes received on bulk streams, per second.
    pub(super) rate: f64,
    /// The least of a bulk stream's bytes as a share of the mean.
    pub(super) least: f64,
    /// Round trips of the small requests, sorted.
    pub(super) requests: Vec<Duration>,
    /// The connection's end, if it ended.
    pub(super) death: Option<String>,
    /// Packets sent, and lost, by the server since the beginning.
    pub(super) sent: u64,
    pub(super) lost: u64,
}

impl Outcome {
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let last = self.requests.len().saturating_sub(1);
        self.requests.get((last as f64 * share) as usize).copied().unwrap_or_default()
    }
}

/// Chooses the congestion controller of a tunnel, from the time the simulation begins.
pub(super) type Choice = fn(Instant) -> Arc<dyn ControllerFactory + Send + Sync>;

impl Network {
    pub(super) fn new(route: impl Into<Route>) -> Self {
        Self::seeded(route, 1)
    }

    /// One in which the seed chooses what happens to which packet.
    pub(super) fn seeded(route: impl Into<Route>, seed: u64) -> Self {
        let (epoch, route) = (Instant::now(), route.into());
        let links = [false, true].map(|up| Link::new(route, up, seed, epoch));
        Self { epoch, now: epoch, links, tunnels: Vec::new() }
    }

    /// Adds a tunnel that begins after `delay` with `streams` bulk streams and, if asked for, small requests.
    pub(super) fn tunnel(&mut self, delay: Duration, streams: usize, requests: bool, choice: Choice) {
        let seed = self.tunnels.len() as u8;
        let load = Load { streams, requests, paused: false };
        let ends = end::pair(self.links[0].mtu, load, seed, choice(self.epoch), self.now);
        self.tunnels.push(Tunnel { start: self.now + delay, ends });
    }

    /// From now on the link is another.
    pub(super) fn change(&mut self, route: impl Into<Route>) {
        let route = route.into();
        for link in &mut self.links {
            link.change(route);
        }
    }

    /// Lets time pass, and tells what each tunnel did meanwhile.
    pub(super) fn run(&mut self, span: Duration) -> Vec<Outcome> {
        let end = self.now + span;
        let before: Vec<_> = self.tunnels.iter().map(|tunnel| tunnel.ends[1].received()).collect();
        for tunnel in &mut self.tunnels {
            tunnel.ends[1].requests.clear();
        }
        while self.now < end {
            self.step(end);
        }
        self.tunnels.iter().zip(before).map(|(tunnel, before)| tunnel.outcome(&before, span)).collect()
    }

    /// The servers stop sending, or begin again.
    pub(super) fn pause(&mut self, pause: bool) {
        for tunnel in &mut self.tunnels {
            tunnel.ends[0].load.paused = pause;
        }
    }

    /// What the server of `tunnel` has in its window, for a look at the model.
    pub(super) fn window(&self, tunnel: usize) -> u64 {
        self.tunnels[tunnel].ends[0].window()
    }

    /// What the link towards the clients has done so far.
    pub(super) fn down(&self) -> Statistics {
        self.links[0].statistics()
    }

    fn step(&mut self, end: Instant) {
        for (id, tunnel) in self.tunnels.iter_mut().enumerate() {
            if tunnel.start > self.now {
                continue;
            }
            for (side, machine) in tunnel.ends.iter_mut().enumerate() {
                let link = &mut self.links[side];
                machine.drive(self.now, |now, packet| link.send(now, id, packet));
            }
        }
        let mut next = end;
        for tunnel in &mut self.tunnels {
            if tunnel.start > self.now {
                next = next.min(tunnel.start);
                continue;
            }
            for end in &mut tunnel.ends {
                next = end.wakeup().map_or(next, |time| next.min(time));
            }
        }
        for link in &self.links {
            next = link.next().map_or(next, |time| next.min(time));
        }
        self.now = next.max(self.now + TICK);
        for side in 0..2 {
            while let Some((id, packet)) = self.links[side].deliver(self.now) {
                self.tunnels[id].ends[1 - side].inbound.push(packet);
            }
        }
    }
}

impl Tunnel {
    fn outcome(&self, before: &BTreeMap<quinn_proto::StreamId, u64>, span: Duration) -> Outcome {
        let after = self.ends[1].received();
        let bytes: Vec<_> = after.iter().map(|(id, bytes)| bytes - before.get(id).unwrap_or(&0)).collect();
        let total = bytes.iter().sum::<u64>() as f64;
        let least = bytes.iter().min().copied().unwrap_or(0) as f64 * bytes.len() as f64 / total.max(1.0);
        let mut requests = self.ends[1].requests.clone();
        requests.sort_unstable();
        let (sent, lost) = self.ends[0].packets();
        let death = self.ends.iter().find_map(|end| end.death.clone());
        Outcome { rate: total / span.as_secs_f64(), least, requests, death, sent, lost }
    }
}
