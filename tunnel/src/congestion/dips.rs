//! When the window becomes so small that the queue drains, and whether it did.

use std::time::{Duration, Instant};

use super::{DIP_INTERVAL, headroom::MINIMUM_QUEUE};

/// In ms: dips are rarer by what a round trip is longer.
const LONG: u128 = 200;

/// By how many times the least RTT is longer where others fill the queue.
const FILLED: f64 = 1.1;

#[derive(Debug, Clone)]
pub(super) struct Dips {
    /// One is due at this time, and each [`DIP_INTERVAL`] before and after.
    at: Instant,
    /// The number of the last.
    number: u64,
    /// The least RTT that one has shown lately.
    drained: Duration,
}

impl Dips {
    pub(super) fn new(at: Instant, now: Instant) -> Self {
        let mut dips = Self { at, number: 0, drained: Duration::MAX };
        dips.take(now, Duration::MAX);
        dips
    }

    /// Whether one is due, over a path of this min RTT; it is due once.
    pub(super) fn take(&mut self, now: Instant, min_rtt: Duration) -> bool {
        let number = now.saturating_duration_since(self.at).as_secs() / DIP_INTERVAL.as_secs();
        // Two round trips at half of what the path holds are to cost little on a long path, too.
        let every = if min_rtt == Duration::MAX { 1 } else { 1 + (min_rtt.as_millis() / LONG) as u64 };
        number != std::mem::replace(&mut self.number, number) && number.is_multiple_of(every)
    }

    /// Ends one that has shown this RTT; true if others fill the queue that it was to drain.
    pub(super) fn end(&mut self, min_rtt: Duration) -> bool {
        // A path may have become longer: after ten dips twice as long a one is believed.
        self.drained = min_rtt.min(self.drained.saturating_add(self.drained / 16));
        min_rtt > self.drained.mul_f64(FILLED) + MINIMUM_QUEUE / 4
    }
}
