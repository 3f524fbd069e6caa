//! How much longer a packet may take than the fastest one although none of ours stands in a queue.
//!
//! What a path with jitter delivers in its least RTT is not all that it holds: most packets take longer, and so they do where packets
//! or ACKs are handed over in batches. A round tells by how much its RTTs differ; but those of a queue that grows differ as well, so
//! it is the calmest of the rounds that is believed.

use std::time::Duration;

use super::round::Round;

/// The least spread of a round's RTTs in this cycle of the headroom and the last one: a link may have no jitter for hours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Jitter {
    current: Duration,
    previous: Duration,
}

impl Default for Jitter {
    fn default() -> Self {
        Self { current: Duration::MAX, previous: Duration::MAX }
    }
}

impl Jitter {
    /// Takes the RTTs of one round. Where they are spread evenly, the longest is by twice the mean's distance above the least.
    pub(super) fn add(&mut self, round: &Round) {
        if round.is_dense() {
            self.current = self.current.min(2 * round.mean_rtt().saturating_sub(round.min_rtt));
        }
    }

    /// Begins the next cycle, and forgets the last but one.
    pub(super) fn rotate(&mut self) {
        self.previous = std::mem::replace(&mut self.current, Duration::MAX);
    }

    /// Zero while nothing is known.
    pub(super) fn time(&self) -> Duration {
        let least = self.current.min(self.previous);
        if least == Duration::MAX { Duration::ZERO } else { least }
    }
}
