//! How much more than the empty path holds is sent, and whether that is why packets are lost.
//!
//! Headroom finds bandwidth that has become free, carries the sender over jitter and over losses not yet noticed, and
//! stands in the queue of the bottleneck. It alternates between a high and a low half of a cycle. Random losses are as
//! frequent in both; losses of a queue that is too short come with the high half, and then its headroom is cut.

use std::time::Duration;

use super::{bandwidth::Bandwidth, loss::Loss, model::LOSS_LIMIT, round::Round};

/// The queue that is always allowed: 4 ms is what schedulers and batched ACKs take.
pub(super) const MINIMUM_QUEUE: Duration = Duration::from_millis(4);

/// More of it would not stay in a processor's cache until it is acknowledged; a byte then costs a sixth more.
const CACHED: u64 = 1 << 20;

/// The standing queue of the high half, as a share of the min RTT.
const SHARE: f64 = 0.2;

/// In min RTTs: a longer one is of a queue in which others stand, which may be tunnels as this one; and the share then.
const CROWDED: f64 = 1.5;
const CROWDED_SHARE: f64 = 0.4;

/// The same since a dip did not drain the queue: there are others who fill it as far as it goes.
const CONTESTED: f64 = 1.3;
const CONTESTED_SHARE: f64 = 1.0;

/// How much of the high half's headroom the low half has.
const LOW: f64 = 0.35;

/// The least scale: finds out in time that a queue has become longer.
const MINIMUM_SCALE: f64 = 0.05;

/// Rounds in half a cycle.
const HALF: u8 = 5;

/// Those that are not counted: what is lost in a round is noticed up to 1.75 round trips after it was sent.
const LATE: u8 = 2;

#[derive(Debug, Clone)]
pub(super) struct Headroom {
    /// The part of the full headroom that the path was seen to bear.
    scale: f64,
    /// What is lost whatever is sent.
    loss: Loss,
    high: bool,
    /// The last dip did not drain the queue.
    contested: bool,
    rounds: u8,
    /// Bytes in the low and in the high half of this cycle.
    low_half: Tally,
    high_half: Tally,
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    delivered: u64,
    lost: u64,
}

impl Tally {
    fn sent(self) -> u64 {
        self.lost + self.delivered
    }

    fn loss(self) -> f64 {
        self.lost as f64 / self.sent().max(1) as f64
    }
}

impl Default for Headroom {
    fn default() -> Self {
        Self {
            scale: 1.0,
            loss: Loss::default(),
            high: true,
            contested: false,
            rounds: 0,
            low_half: Tally::default(),
            high_half: Tally::default(),
        }
    }
}

impl Headroom {
    /// In bytes, over a path whose empty RTT is `min_rtt`. The square root makes tunnels over one link share it: the smaller of two
    /// has the larger headroom for its size, and grows at the cost of the other.
    pub(super) fn bytes(&self, bandwidth: &Bandwidth, min_rtt: Duration, rtt: Duration, mtu: u64) -> u64 {
        let pipe = bandwidth.over(min_rtt);
        let few = (pipe * mtu).isqrt();
        // Beside a sender that fills the queue, to leave it room is to leave it the link; else a few packets of our own are a long
        // queue on a slow link.
        let (from, own, share) = if self.contested {
            (CONTESTED, Duration::ZERO, CONTESTED_SHARE)
        } else {
            (CROWDED, bandwidth.time(few + 2 * mtu), CROWDED_SHARE)
        };
        let crowded = rtt > min_rtt.mul_f64(from) + MINIMUM_QUEUE + own;
        let share = if crowded { share } else { SHARE };
        let least = bandwidth.over(MINIMUM_QUEUE).min(CACHED);
        let queue = bandwidth.over(min_rtt.mul_f64(share)).max(least);
        let full = queue + few;
        let half = if self.high || crowded { 1.0 } else { LOW };
        // What is lost is in flight until that is known.
        let lost = pipe as f64 * self.loss.recent() / (1.0 - self.loss.recent());
        (full as f64 * self.scale * half + lost) as u64 + 2 * mtu
    }

    /// After a dip that drained the queue or did not: forgets the half that it has disturbed.
    pub(super) fn restart_cycle(&mut self, contested: bool) {
        *self = Self { scale: self.scale, loss: self.loss, contested, ..Self::default() };
    }

    /// The share of the packets that is lost whatever is sent.
    pub(super) fn loss(&self) -> f64 {
        self.loss.least()
    }

    /// Begins the next period of what is lost whatever is sent.
    pub(super) fn rotate(&mut self) {
        self.loss.rotate();
    }

    /// Whether this is the first half of a cycle.
    pub(super) fn is_high(&self) -> bool {
        self.high
    }

    /// Counts a round; true if it was the last of a half.
    pub(super) fn end_round(&mut self, round: &Round, mtu: u64) -> bool {
        self.rounds += 1;
        if self.rounds > LATE {
            let tally = if self.high { &mut self.high_half } else { &mut self.low_half };
            tally.delivered += round.delivered;
            tally.lost += round.lost;
        }
        if self.rounds < HALF {
            return false;
        }
        self.rounds = 0;
        if !self.high {
            self.judge(mtu);
        }
        self.high = !self.high;
        true
    }

    fn judge(&mut self, mtu: u64) {
        let (low, high) = (std::mem::take(&mut self.low_half), std::mem::take(&mut self.high_half));
        self.loss.add(low.loss().min(high.loss()), low.sent() + high.sent());
        // A few packets more are chance.
        let ours = high.loss() > low.loss() * 1.5 + 0.01 && high.lost > low.lost + 4 * mtu;
        self.scale = if ours || high.loss() > LOSS_LIMIT + self.loss() { self.scale / 2.0 } else { self.scale * 1.5 }
            .clamp(MINIMUM_SCALE, 1.0);
    }
}
