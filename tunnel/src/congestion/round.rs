//! What is seen in one round trip.

use std::time::{Duration, Instant};

/// ACKs of one receive call come together, so that much shorter rounds would measure the scheduler instead of the path.
const MINIMUM: Duration = Duration::from_millis(2);

/// Packets of a round that shows how much RTTs differ.
const DENSE: u32 = 16;

#[derive(Debug, Clone)]
pub(super) struct Round {
    /// The ACK that ended the round before.
    start: Instant,
    /// Bytes acknowledged since.
    pub(super) delivered: u64,
    /// Bytes found lost since.
    pub(super) lost: u64,
    pub(super) min_rtt: Duration,
    /// The sum of the packets' RTTs, and their number.
    rtts: Duration,
    packets: u32,
    /// There was less to send than the window allowed.
    pub(super) app_limited: bool,
    /// A packet that was sent in this round is acknowledged.
    turned: bool,
}

impl Round {
    pub(super) fn new(start: Instant) -> Self {
        Self {
            start,
            delivered: 0,
            lost: 0,
            min_rtt: Duration::MAX,
            rtts: Duration::ZERO,
            packets: 0,
            app_limited: false,
            turned: false,
        }
    }

    pub(super) fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.delivered += bytes;
        let rtt = now.saturating_duration_since(sent);
        self.min_rtt = self.min_rtt.min(rtt);
        self.rtts += rtt;
        self.packets += 1;
        self.turned |= sent >= self.start;
    }

    pub(super) fn mean_rtt(&self) -> Duration {
        self.rtts.checked_div(self.packets).unwrap_or(Duration::MAX)
    }

    /// Whether there were enough packets for their mean RTT to say something.
    pub(super) fn is_dense(&self) -> bool {
        self.packets >= DENSE
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.turned && now.saturating_duration_since(self.start) >= MINIMUM
    }

    /// Delivered bytes per second, from ACK to ACK.
    pub(super) fn rate(&self, now: Instant) -> f64 {
        self.delivered as f64 / now.saturating_duration_since(self.start).max(MINIMUM).as_secs_f64()
    }

    /// Bytes that were delivered within `rtt`; short of it while the round has just begun.
    pub(super) fn delivered_in(&self, rtt: Duration) -> u64 {
        let share = rtt.as_secs_f64() / MINIMUM.as_secs_f64();
        (self.delivered as f64 * share.min(1.0)) as u64
    }

    /// The share of the bytes that was lost.
    pub(super) fn loss(&self) -> f64 {
        self.lost as f64 / (self.lost + self.delivered).max(1) as f64
    }
}
