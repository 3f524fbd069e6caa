//! One direction of the simulated link: an emulated lane in virtual time, for the packets of several tunnels.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use links::{Jitter, Lane, Loss, Profile};

/// IPv4 and UDP headers, which take their share of the link.
pub(crate) const HEADERS: usize = 28;

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
    /// Packets arrive together at the multiples of this time.
    pub(crate) batch: Duration,
    /// The rate from the clients, where it is not the servers'.
    pub(crate) up: Option<f64>,
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
            batch: Duration::ZERO,
            up: None,
            mtu: 1452,
        }
    }

    /// Both directions, which differ in their rates alone.
    pub(crate) fn of(down: &Profile, up: &Profile) -> Self {
        Self {
            rate: down.rate as f64 / 8.0,
            rtt: down.round_trip(),
            queue: down.queue,
            loss: down.loss.share,
            run: down.loss.run,
            jitter: down.jitter,
            batch: down.batch,
            up: Some(up.rate as f64 / 8.0),
            ..Self::new(1.0, 1.0, 1.0, 0.0)
        }
    }

    /// From the servers, or from the clients.
    fn profile(&self, up: bool) -> Profile {
        let rate = if up { self.up.unwrap_or(self.rate) } else { self.rate };
        let share = if up { self.loss.max(self.ack_loss) } else { self.loss };
        Profile {
            loss: Loss { share, run: self.run },
            jitter: self.jitter,
            batch: self.batch,
            // Besides what is queued one packet may be on the wire.
            ..Profile::new(
                (rate * 8.0) as u64,
                self.rtt / 2,
                self.queue + Duration::from_secs_f64(f64::from(self.mtu) / rate),
            )
        }
    }
}

pub(super) struct Link {
    pub(super) path: Path,
    up: bool,
    epoch: Instant,
    lane: Lane<(usize, BytesMut)>,
}

impl Link {
    pub(super) fn new(path: Path, up: bool, epoch: Instant) -> Self {
        Self { path, up, epoch, lane: Lane::new(path.profile(up), u64::from(up) + 1) }
    }

    /// From now on it is another.
    pub(super) fn change(&mut self, path: Path) {
        self.path = path;
        self.lane.set_profile(path.profile(self.up));
    }

    pub(super) fn send(&mut self, now: Instant, tunnel: usize, packet: &[u8]) {
        if packet.len() <= self.path.mtu.into() {
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
}
