//! The bandwidth of the path: the highest delivery rate of the last two periods.

use std::time::Duration;

/// In bytes per second; 0 while nothing is known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bandwidth {
    current: f64,
    previous: f64,
}

impl Bandwidth {
    /// Takes the rate of one round; true if it is by a quarter above what was known. An application that sends less
    /// than it may says nothing of the path, unless it shows that there is more.
    pub(super) fn add(&mut self, rate: f64, app_limited: bool) -> bool {
        let known = self.rate();
        if !app_limited || rate > known {
            self.current = self.current.max(rate);
        }
        rate > known * 1.25
    }

    /// This period's is above the last one's by more than an eighth.
    pub(super) fn has_grown(&self) -> bool {
        self.previous > 0.0 && self.current > self.previous * 1.125
    }

    /// Begins the next period, and forgets the last but one.
    pub(super) fn rotate(&mut self) {
        self.previous = std::mem::take(&mut self.current);
    }

    /// Believes `rate`, and nothing that was before.
    pub(super) fn replace(&mut self, rate: f64) {
        *self = Self { current: rate, previous: 0.0 };
    }

    pub(super) fn is_known(&self) -> bool {
        self.rate() > 0.0
    }

    /// Bytes delivered in `time`.
    pub(super) fn over(&self, time: Duration) -> u64 {
        // The cast saturates: `Duration::MAX` stands for a time not yet known.
        (self.rate() * time.as_secs_f64()) as u64
    }

    /// The time in which `bytes` are delivered.
    pub(super) fn time(&self, bytes: u64) -> Duration {
        Duration::try_from_secs_f64(bytes as f64 / self.rate()).unwrap_or(Duration::MAX)
    }

    pub(super) fn rate(&self) -> f64 {
        self.current.max(self.previous)
    }
}
