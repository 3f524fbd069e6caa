//! One direction of the simulated link: an emulated lane in virtual time, for the packets of several tunnels.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use links::{Jitter, Lane, Loss, Named, Profile, Statistics};

/// IPv4 and UDP headers, which take their share of the link.
pub(crate) const HEADERS: usize = 28;

/// The largest UDP payload of Ethernet's packets.
const ETHERNET: u16 = 1452;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Path {
    /// Bytes per second.
    pub(crate) rate: f64,
    pub(crate) rtt: Duration,
    /// Of the bottleneck, in time at `rate`.
    pub(crate) queue: Duration,
    /// The probability that a packet is lost before the queue.
    pub(crate) loss: f64,
    /// The same for ACKs, where it is more than `loss`.
    pub(crate) ack_loss: f64,
    /// Packets lost in a row, on average.
    pub(crate) run: f64,
    /// Each way.
    pub(crate) jitter: Jitter,
    /// The largest UDP payload.
    pub(crate) mtu: u16,
}

impl Path {
    /// `queue` in round trips.
    pub(crate) fn new(mbit: f64, rtt_ms: f64, queue: f64, loss: f64) -> Self {
        let rtt = Duration::from_secs_f64(rtt_ms / 1e3);
        Self {
            rate: mbit * 1e6 / 8.0,
            rtt,
            queue: rtt.mul_f64(queue),
            loss,
            ack_loss: 0.0,
            run: 1.0,
            jitter: Jitter::default(),
            mtu: ETHERNET,
        }
    }

    /// From the servers, or from the clients.
    fn profile(&self, up: bool) -> Profile {
        let share = if up { self.loss.max(self.ack_loss) } else { self.loss };
        Profile {
            loss: Loss { share, run: self.run },
            jitter: self.jitter,
            ..Profile::new((self.rate * 8.0) as u64, self.rtt / 2, self.queue)
        }
    }
}

/// What the link does in each direction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Route {
    pub(crate) down: Profile,
    pub(crate) up: Profile,
    /// The largest UDP payload.
    pub(crate) mtu: u16,
}

impl From<Path> for Route {
    fn from(path: Path) -> Self {
        Self { down: path.profile(false), up: path.profile(true), mtu: path.mtu }
    }
}

impl From<&Named> for Route {
    fn from(named: &Named) -> Self {
        Self { down: named.down, up: named.up, mtu: ETHERNET }
    }
}

impl Route {
    /// That of one direction. Besides what is queued one packet may be on the wire.
    fn profile(&self, up: bool) -> Profile {
        let profile = if up { self.up } else { self.down };
        Profile { queue: profile.queue + profile.wire_time(self.mtu.into()), ..profile }
    }
}

pub(super) struct Link {
    up: bool,
    pub(super) mtu: u16,
    epoch: Instant,
    lane: Lane<(usize, BytesMut)>,
}

impl Link {
    pub(super) fn new(route: Route, up: bool, seed: u64, epoch: Instant) -> Self {
        Self { up, mtu: route.mtu, epoch, lane: Lane::new(route.profile(up), 2 * seed + u64::from(up)) }
    }

    /// From now on it is another.
    pub(super) fn change(&mut self, route: Route) {
        self.mtu = route.mtu;
        self.lane.set_profile(route.profile(self.up));
    }

    pub(super) fn send(&mut self, now: Instant, tunnel: usize, packet: &[u8]) {
        if packet.len() <= self.mtu.into() {
            self.lane.offer(now - self.epoch, packet.len() + HEADERS, (tunnel, packet.into()));
        }
    }

    pub(super) fn next(&self) -> Option<Instant> {
        Some(self.epoch + self.lane.next()?)
    }

    pub(super) fn deliver(&mut self, now: Instant) -> Option<(usize, BytesMut)> {
        let now = now - self.epoch;
        self.lane.take(now, now)
    }

    pub(super) fn statistics(&self) -> Statistics {
        self.lane.statistics()
    }
}
