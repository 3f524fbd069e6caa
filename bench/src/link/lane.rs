//! One direction of a link: which packets it takes, and when each comes out. No sockets and no clock: the caller says what time it is.

use std::collections::VecDeque;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::Profile;

/// Buffers kept for reuse: about what a link of 400 Mbit/s and 100 ms holds.
const SPARE: usize = 4096;

/// One direction. Packets come out in the order in which they went in.
///
/// - [`Self::offer`] puts a packet in: it is lost, dropped or taken.
/// - [`Self::take`] gives those that are due, [`Self::next`] when the next will be.
///
/// Times are counted from any one moment and never go back. What it holds is bounded by rate x (delay + queue).
#[derive(Debug)]
pub struct Lane {
    profile: Profile,
    dice: StdRng,
    /// When the wire has sent all that was taken.
    wire_free: Duration,
    /// What is under way, in order of its time.
    under_way: VecDeque<Due>,
    spare: Vec<Vec<u8>>,
    statistics: Statistics,
}

#[derive(Debug)]
struct Due {
    at: Duration,
    packet: Vec<u8>,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It comes out at its time.
    Taken,
    /// It was lost at random.
    Lost,
    /// It found the queue full.
    Dropped,
}

/// What one direction has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Packets that were lost at random.
    pub lost: u64,
    /// Packets that found the queue full.
    pub dropped: u64,
    /// Packets that came out.
    pub delivered: u64,
    /// Their bytes, as IP packets.
    pub delivered_bytes: u64,
    /// The longest that a packet waited for the wire.
    pub longest_queue: Duration,
    /// How long all that were taken waited for the wire, together.
    pub total_queue: Duration,
    /// The most that a packet came out too early or too late: the emulator's own error.
    pub largest_error: Duration,
    /// The errors of all that came out, together.
    pub total_error: Duration,
}

impl Lane {
    /// An idle direction whose losses are chosen by `seed`: which of the packets are lost depends on nothing else but their number.
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            dice: StdRng::seed_from_u64(seed),
            wire_free: Duration::ZERO,
            under_way: VecDeque::new(),
            spare: Vec::new(),
            statistics: Statistics::default(),
        }
    }

    /// From now on another profile; what is under way comes out as it would have.
    pub fn set_profile(&mut self, profile: Profile) {
        self.profile = profile;
    }

    /// What it has done so far.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Puts in a packet that has just arrived.
    pub fn offer(&mut self, now: Duration, packet: &[u8]) -> Fate {
        // One throw for each packet, also without loss, so that the seed alone decides.
        if self.dice.random::<f64>() < self.profile.loss {
            self.statistics.lost += 1;
            return Fate::Lost;
        }
        let waits = self.wire_free.saturating_sub(now);
        if waits > self.profile.queue {
            self.statistics.dropped += 1;
            return Fate::Dropped;
        }
        self.wire_free = now + waits + self.profile.wire_time(packet.len());
        self.statistics.total_queue += waits;
        self.statistics.longest_queue = self.statistics.longest_queue.max(waits);
        // A shorter delay than before overtakes nothing.
        let before = self.under_way.back().map_or(Duration::ZERO, |last| last.at);
        let at = before.max(self.wire_free + self.profile.delay);
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(packet);
        self.under_way.push_back(Due { at, packet: buffer });
        Fate::Taken
    }

    /// The next packet, if its time comes until `horizon`, which may lie after `now`. Give it back to [`Self::reuse`].
    pub fn take(&mut self, now: Duration, horizon: Duration) -> Option<Vec<u8>> {
        if self.next()? > horizon {
            return None;
        }
        let due = self.under_way.pop_front()?;
        let error = now.abs_diff(due.at);
        self.statistics.delivered += 1;
        self.statistics.delivered_bytes += due.packet.len() as u64;
        self.statistics.largest_error = self.statistics.largest_error.max(error);
        self.statistics.total_error += error;
        Some(due.packet)
    }

    /// Takes a packet's buffer back.
    pub fn reuse(&mut self, buffer: Vec<u8>) {
        if self.spare.len() < SPARE {
            self.spare.push(buffer);
        }
    }

    /// When the next packet comes out; none is under way without.
    pub fn next(&self) -> Option<Duration> {
        self.under_way.front().map(|due| due.at)
    }
}

impl Statistics {
    /// What happened since an earlier look; the longest times are those of all the time.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            lost: self.lost - earlier.lost,
            dropped: self.dropped - earlier.dropped,
            delivered: self.delivered - earlier.delivered,
            delivered_bytes: self.delivered_bytes - earlier.delivered_bytes,
            longest_queue: self.longest_queue,
            total_queue: self.total_queue - earlier.total_queue,
            largest_error: self.largest_error,
            total_error: self.total_error - earlier.total_error,
        }
    }

    /// How long a packet that came out waited for the wire, on average.
    pub fn average_queue(&self) -> Duration {
        self.each(self.total_queue)
    }

    /// How much too early or too late a packet came out, on average.
    pub fn average_error(&self) -> Duration {
        self.each(self.total_error)
    }

    fn each(&self, total: Duration) -> Duration {
        Duration::from_secs_f64(total.as_secs_f64() / self.delivered.max(1) as f64)
    }

    /// Packets that went in and are not under way any more.
    pub fn offered(&self) -> u64 {
        self.lost + self.dropped + self.delivered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);
    /// 100 us on the wire of [`Profile::WIDE_AREA`].
    const PACKET: [u8; 1250] = [7; 1250];

    fn take(lane: &mut Lane, now: Duration) -> Option<Vec<u8>> {
        lane.take(now, now)
    }

    fn lane(loss: f64, seed: u64) -> Lane {
        Lane::new(Profile::WIDE_AREA.with_loss(loss), seed)
    }

    #[test]
    fn a_lone_packet_comes_out_after_wire_time_and_delay() {
        let mut lane = lane(0.0, 1);
        assert_eq!(lane.offer(3 * MS, &PACKET), Fate::Taken);
        assert_eq!(lane.next(), Some(28 * MS + 100 * US));
        assert_eq!(take(&mut lane, 28 * MS), None);
        assert_eq!(take(&mut lane, 28 * MS + 150 * US).as_deref(), Some(PACKET.as_slice()));
        assert_eq!(lane.next(), None);
        assert_eq!(lane.statistics().largest_error, 50 * US);
    }

    #[test]
    fn what_is_due_within_the_horizon_may_come_out_early() {
        let mut lane = lane(0.0, 1);
        lane.offer(Duration::ZERO, &PACKET);
        assert_eq!(lane.take(25 * MS, 25 * MS + 99 * US), None);
        assert!(lane.take(25 * MS, 25 * MS + 100 * US).is_some());
        assert_eq!(lane.statistics().average_error(), 100 * US);
    }

    #[test]
    fn a_burst_is_spread_at_the_rate_and_in_order() {
        let mut lane = lane(0.0, 1);
        for number in 0..10 {
            lane.offer(Duration::ZERO, &[number; 1250]);
        }
        for number in 1..=10_u8 {
            let at = 25 * MS + u32::from(number) * 100 * US;
            assert_eq!(take(&mut lane, at - US), None);
            assert_eq!(take(&mut lane, at).map(|packet| packet[0]), Some(number - 1));
        }
        assert_eq!(lane.statistics().longest_queue, 900 * US);
    }

    #[test]
    fn the_queue_drops_what_finds_it_full_and_takes_again_once_it_drains() {
        let mut lane = lane(0.0, 1);
        let taken = (0..1000).filter(|_| lane.offer(Duration::ZERO, &PACKET) == Fate::Taken).count();
        // 50 ms of 100 us each wait, and one is on the wire.
        assert_eq!(taken, 501);
        assert_eq!(lane.statistics().dropped, 499);
        assert_eq!(lane.offer(50 * US, &PACKET), Fate::Dropped);
        assert_eq!(lane.offer(100 * US, &PACKET), Fate::Taken);
    }

    #[test]
    fn losses_are_the_seeds_and_of_the_right_number() {
        let fates = |seed| {
            let mut lane = lane(0.03, seed);
            (0..100_000_u32).map(|number| lane.offer(number * 100 * US, &PACKET)).collect::<Vec<_>>()
        };
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
        // Six standard deviations of a binomial (sqrt(100000 x 0.03 x 0.97) = 54) around 3000.
        let lost = fates(1).into_iter().filter(|fate| *fate == Fate::Lost).count();
        assert!((2676..=3324).contains(&lost), "{lost}");
    }

    #[test]
    fn a_lost_packet_takes_no_time_of_the_wire() {
        let mut lane = lane(1.0, 1);
        assert_eq!(lane.offer(Duration::ZERO, &PACKET), Fate::Lost);
        lane.set_profile(Profile::WIDE_AREA);
        lane.offer(Duration::ZERO, &PACKET);
        assert_eq!(lane.next(), Some(25 * MS + 100 * US));
    }

    #[test]
    fn a_shorter_delay_overtakes_nothing() {
        let mut lane = lane(0.0, 1);
        lane.offer(Duration::ZERO, &[1; 1250]);
        lane.set_profile(Profile { delay: MS, ..Profile::WIDE_AREA });
        lane.offer(200 * US, &[2; 1250]);
        assert_eq!(take(&mut lane, 26 * MS).map(|packet| packet[0]), Some(1));
        assert_eq!(take(&mut lane, 26 * MS).map(|packet| packet[0]), Some(2));
    }
}
