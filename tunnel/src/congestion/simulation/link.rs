//! One direction of the simulated link: random loss, then a drop-tail queue before a bottleneck, then delay.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::BytesMut;

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
    /// The largest UDP payload.
    pub(crate) mtu: u16,
}

impl Path {
    /// `queue` in round trips.
    pub(crate) fn new(mbit: f64, rtt_ms: f64, queue: f64, loss: f64) -> Self {
        let rtt = Duration::from_secs_f64(rtt_ms / 1e3);
        Self { rate: mbit * 1e6 / 8.0, rtt, queue: rtt.mul_f64(queue), loss, ack_loss: 0.0, mtu: 1452 }
    }
}

pub(super) struct Link {
    pub(super) path: Path,
    /// When the bottleneck has sent all it has.
    free: Instant,
    /// Arrival, tunnel and packet, in order.
    packets: VecDeque<(Instant, usize, BytesMut)>,
    random: u64,
}

impl Link {
    pub(super) fn new(path: Path, seed: u64, now: Instant) -> Self {
        Self { path, free: now, packets: VecDeque::new(), random: seed }
    }

    pub(super) fn send(&mut self, now: Instant, tunnel: usize, packet: &[u8]) {
        let service = Duration::from_secs_f64((packet.len() + HEADERS) as f64 / self.path.rate);
        let backlog = self.free.saturating_duration_since(now);
        if packet.len() > self.path.mtu.into() || self.random() < self.path.loss {
            return;
        }
        // Besides what is queued one packet may be on the wire.
        if backlog > self.path.queue + service {
            return;
        }
        self.free = self.free.max(now) + service;
        let arrival = self.free + self.path.rtt / 2;
        let arrival = self.packets.back().map_or(arrival, |(last, ..)| arrival.max(*last));
        self.packets.push_back((arrival, tunnel, packet.into()));
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.packets.front().map(|(arrival, ..)| *arrival)
    }

    pub(super) fn deliver(&mut self, now: Instant) -> Option<(usize, BytesMut)> {
        let (_, tunnel, packet) = self.packets.pop_front_if(|(arrival, ..)| *arrival <= now)?;
        Some((tunnel, packet))
    }

    /// SplitMix64, between 0 and 1.
    fn random(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
