//! One direction of a link: which packets it takes, and when each comes out.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::{Policer, Profile};

/// One direction, for packets of the caller's kind.
///
/// - [`Self::offer`] puts a packet in: it is lost, dropped or taken.
/// - [`Self::take`] gives those that are due, [`Self::next`] when the next will be.
///
/// Times are counted from any one moment and never go back. What it holds is bounded by rate x (delay + queue + jitter). What becomes
/// of a packet is decided by the seed, the profile and the number of the packet; in a burst of losses, by its time, too.
#[derive(Debug)]
pub struct Lane<P> {
    profile: Profile,
    dice: StdRng,
    /// The channel loses all that is sent now.
    bad: bool,
    /// When the last packet was put in.
    offered: Duration,
    /// Bytes that the policer lets pass, at the time of the last packet.
    tokens: (Duration, f64),
    /// When the wire has sent all that was taken.
    wire_free: Duration,
    /// When the last packet that keeps its place comes out.
    last: Duration,
    /// What is under way, by its time and number.
    under_way: BTreeMap<(Duration, u64), (usize, P)>,
    taken: u64,
    statistics: Statistics,
}

/// What became of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It comes out at its time.
    Taken,
    /// It was lost by chance.
    Lost,
    /// It found the queue full, or was more than the policer allows.
    Dropped,
}

/// What one direction has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Packets that were lost by chance.
    pub lost: u64,
    /// Packets that found the queue full, or were more than the policer allows.
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

impl<P: Clone> Lane<P> {
    /// An idle direction.
    pub fn new(profile: Profile, seed: u64) -> Self {
        Self {
            profile,
            dice: StdRng::seed_from_u64(seed),
            bad: false,
            offered: Duration::ZERO,
            tokens: (Duration::ZERO, f64::INFINITY),
            wire_free: Duration::ZERO,
            last: Duration::ZERO,
            under_way: BTreeMap::new(),
            taken: 0,
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

    /// Puts in a packet that has just arrived, of so many bytes on the wire.
    pub fn offer(&mut self, now: Duration, bytes: usize, packet: P) -> Fate {
        // As many throws for each packet whatever becomes of it, so that the seed alone decides.
        let [over, lost, late, by, twice] = [(); 5].map(|()| self.dice.random::<f64>());
        self.bad = over < self.bad_after(now.saturating_sub(self.offered), bytes);
        self.offered = now;
        if self.loses(lost) {
            self.statistics.lost += 1;
            return Fate::Lost;
        }
        let waits = self.wire_free.saturating_sub(now);
        if waits > self.profile.queue || !self.passes(now, bytes) {
            self.statistics.dropped += 1;
            return Fate::Dropped;
        }
        self.wire_free = now + waits + self.profile.wire_time(bytes);
        self.statistics.total_queue += waits;
        self.statistics.longest_queue = self.statistics.longest_queue.max(waits);
        let at = self.arrival(late, by);
        if twice < self.profile.duplicated {
            self.send(at, bytes, packet.clone());
        }
        self.send(at, bytes, packet);
        Fate::Taken
    }

    /// How likely the channel is bad after a while in which no packets followed each other on the wire. It changes by itself.
    fn bad_after(&self, idle: Duration, bytes: usize) -> f64 {
        let packets = (idle.as_secs_f64() / self.profile.wire_time(bytes).as_secs_f64() - 1.0).max(0.0);
        let (share, [begins, ends]) = (self.profile.loss.share, self.turns());
        let remembered = (1.0 - begins - ends).max(0.0).powf(packets);
        share + (f64::from(self.bad) - share) * remembered
    }

    /// How likely a good channel becomes bad with a packet, and a bad one good.
    fn turns(&self) -> [f64; 2] {
        let loss = self.profile.loss;
        // One that loses more than every second packet has longer runs than it is asked for.
        let run = loss.run.max(loss.share / (1.0 - loss.share));
        [loss.share / (run * (1.0 - loss.share)), 1.0 / run]
    }

    /// Whether the channel loses the next packet.
    fn loses(&mut self, dice: f64) -> bool {
        let (loss, [begins, ends]) = (self.profile.loss, self.turns());
        self.bad = if loss.run <= 1.0 || loss.share <= 0.0 || loss.share >= 1.0 {
            dice < loss.share
        } else if self.bad {
            dice >= ends
        } else {
            dice < begins
        };
        self.bad
    }

    /// Whether the policer lets a packet pass.
    fn passes(&mut self, now: Duration, bytes: usize) -> bool {
        let Some(Policer { rate, burst }) = self.profile.policer else { return true };
        let (before, tokens) = self.tokens;
        let earned = now.saturating_sub(before).as_secs_f64() * rate as f64 / 8.0;
        let tokens = (tokens + earned).min(burst as f64);
        let passes = tokens >= bytes as f64;
        self.tokens = (now, if passes { tokens - bytes as f64 } else { tokens });
        passes
    }

    /// When what the wire has just sent comes out.
    fn arrival(&mut self, late: f64, by: f64) -> Duration {
        let jitter = self.profile.jitter;
        let late = if late < jitter.share {
            jitter.least + jitter.most.saturating_sub(jitter.least).mul_f64(by)
        } else {
            Duration::ZERO
        };
        // A shorter delay than before overtakes nothing.
        let [kept, added] = if jitter.reorders { [Duration::ZERO, late] } else { [late, Duration::ZERO] };
        self.last = self.last.max(self.batched(self.wire_free + self.profile.delay + kept));
        self.batched(self.last + added)
    }

    /// When what arrives then comes out.
    fn batched(&self, at: Duration) -> Duration {
        let (at, batch) = (at.as_nanos(), self.profile.batch.as_nanos().max(1));
        Duration::from_nanos(u64::try_from(at.div_ceil(batch) * batch).unwrap_or(u64::MAX))
    }

    fn send(&mut self, at: Duration, bytes: usize, packet: P) {
        self.taken += 1;
        self.under_way.insert((at, self.taken), (bytes, packet));
    }

    /// The next packet, if its time comes until `horizon`, which may lie after `now`.
    pub fn take(&mut self, now: Duration, horizon: Duration) -> Option<P> {
        if self.next()? > horizon {
            return None;
        }
        let ((at, _), (bytes, packet)) = self.under_way.pop_first()?;
        let error = now.abs_diff(at);
        self.statistics.delivered += 1;
        self.statistics.delivered_bytes += bytes as u64;
        self.statistics.largest_error = self.statistics.largest_error.max(error);
        self.statistics.total_error += error;
        Some(packet)
    }

    /// When the next packet comes out; none is under way without.
    pub fn next(&self) -> Option<Duration> {
        self.under_way.first_key_value().map(|((at, _), _)| *at)
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
    use crate::{Jitter, Loss};

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);
    /// 100 us on the wire of [`Profile::WIDE_AREA`].
    const BYTES: usize = 1250;

    fn take(lane: &mut Lane<u8>, now: Duration) -> Option<u8> {
        lane.take(now, now)
    }

    fn offer(lane: &mut Lane<u8>, now: Duration, packet: u8) -> Fate {
        lane.offer(now, BYTES, packet)
    }

    fn lane(loss: f64, seed: u64) -> Lane<u8> {
        Lane::new(Profile::WIDE_AREA.with_loss(loss), seed)
    }

    #[test]
    fn a_lone_packet_comes_out_after_wire_time_and_delay() {
        let mut lane = lane(0.0, 1);
        assert_eq!(offer(&mut lane, 3 * MS, 7), Fate::Taken);
        assert_eq!(lane.next(), Some(28 * MS + 100 * US));
        assert_eq!(take(&mut lane, 28 * MS), None);
        assert_eq!(take(&mut lane, 28 * MS + 150 * US), Some(7));
        assert_eq!(lane.next(), None);
        assert_eq!(lane.statistics().largest_error, 50 * US);
    }

    #[test]
    fn what_is_due_within_the_horizon_may_come_out_early() {
        let mut lane = lane(0.0, 1);
        offer(&mut lane, Duration::ZERO, 7);
        assert_eq!(lane.take(25 * MS, 25 * MS + 99 * US), None);
        assert!(lane.take(25 * MS, 25 * MS + 100 * US).is_some());
        assert_eq!(lane.statistics().average_error(), 100 * US);
    }

    #[test]
    fn a_burst_is_spread_at_the_rate_and_in_order() {
        let mut lane = lane(0.0, 1);
        for number in 0..10 {
            offer(&mut lane, Duration::ZERO, number);
        }
        for number in 1..=10_u8 {
            let at = 25 * MS + u32::from(number) * 100 * US;
            assert_eq!(take(&mut lane, at - US), None);
            assert_eq!(take(&mut lane, at), Some(number - 1));
        }
        assert_eq!(lane.statistics().longest_queue, 900 * US);
    }

    #[test]
    fn the_queue_drops_what_finds_it_full_and_takes_again_once_it_drains() {
        let mut lane = lane(0.0, 1);
        let taken = (0..1000).filter(|_| offer(&mut lane, Duration::ZERO, 7) == Fate::Taken).count();
        // 50 ms of 100 us each wait, and one is on the wire.
        assert_eq!(taken, 501);
        assert_eq!(lane.statistics().dropped, 499);
        assert_eq!(offer(&mut lane, 50 * US, 7), Fate::Dropped);
        assert_eq!(offer(&mut lane, 100 * US, 7), Fate::Taken);
    }

    #[test]
    fn losses_are_the_seeds_and_of_the_right_number() {
        let fates = |seed| {
            let mut lane = lane(0.03, seed);
            (0..100_000_u32).map(|number| offer(&mut lane, number * 100 * US, 7)).collect::<Vec<_>>()
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
        assert_eq!(offer(&mut lane, Duration::ZERO, 7), Fate::Lost);
        lane.set_profile(Profile::WIDE_AREA);
        offer(&mut lane, Duration::ZERO, 7);
        assert_eq!(lane.next(), Some(25 * MS + 100 * US));
    }

    #[test]
    fn a_shorter_delay_overtakes_nothing() {
        let mut lane = lane(0.0, 1);
        offer(&mut lane, Duration::ZERO, 1);
        lane.set_profile(Profile { delay: MS, ..Profile::WIDE_AREA });
        offer(&mut lane, 200 * US, 2);
        assert_eq!(take(&mut lane, 26 * MS), Some(1));
        assert_eq!(take(&mut lane, 26 * MS), Some(2));
    }

    /// When each of `packets` that are sent a millisecond apart comes out, by its number.
    fn arrivals(profile: Profile, packets: u16) -> Vec<(Duration, u16)> {
        let mut lane = Lane::new(profile, 1);
        (0..packets).for_each(|number| _ = lane.offer(u32::from(number) * MS, BYTES, number));
        std::iter::from_fn(|| Some((lane.next()?, lane.take(Duration::ZERO, Duration::MAX)?))).collect()
    }

    /// How much later than on an idle link each comes out.
    fn lateness(arrivals: &[(Duration, u16)]) -> Vec<Duration> {
        arrivals.iter().map(|(at, number)| *at - 25 * MS - 100 * US - u32::from(*number) * MS).collect()
    }

    #[test]
    fn jitter_keeps_the_order_or_does_not() {
        let kept = arrivals(Profile { jitter: Jitter::up_to(20 * MS), ..Profile::WIDE_AREA }, 1000);
        assert!(kept.is_sorted_by_key(|(_, number)| *number));
        let mixed = arrivals(Profile { jitter: Jitter::reordering(20 * MS), ..Profile::WIDE_AREA }, 1000);
        assert!(!mixed.is_sorted_by_key(|(_, number)| *number));
        for late in [lateness(&kept), lateness(&mixed)] {
            let (least, most) = (late.iter().min().unwrap(), late.iter().max().unwrap());
            assert!(*least < 10 * MS && *most > 18 * MS && *most <= 20 * MS, "{least:?}, {most:?}");
        }
        let mean = lateness(&mixed).iter().sum::<Duration>() / 1000;
        assert!((9 * MS..=11 * MS).contains(&mean), "{mean:?}");
    }

    #[test]
    fn some_packets_are_late_by_so_much() {
        let jitter = Jitter { share: 0.02, least: 5 * MS, most: 20 * MS, reorders: true };
        let late = lateness(&arrivals(Profile { jitter, ..Profile::WIDE_AREA }, 10_000));
        let (on_time, late): (Vec<_>, Vec<_>) = late.into_iter().partition(Duration::is_zero);
        assert!((130..=270).contains(&late.len()) && on_time.len() + late.len() == 10_000, "{}", late.len());
        assert!(late.iter().all(|late| (5 * MS..=20 * MS).contains(late)));
    }

    #[test]
    fn bursts_of_losses_have_their_share_and_their_length() {
        let mut lane = Lane::new(Profile { loss: Loss { share: 0.03, run: 8.0 }, ..Profile::WIDE_AREA }, 1);
        let fates: Vec<Fate> = (0..200_000_u32).map(|number| offer(&mut lane, number * 100 * US, 7)).collect();
        let runs: Vec<usize> =
            fates.chunk_by(|one, other| one == other).filter(|run| run[0] == Fate::Lost).map(<[_]>::len).collect();
        let lost = runs.iter().sum::<usize>();
        assert!((4_800..=7_200).contains(&lost), "{lost} are lost");
        let mean = lost as f64 / runs.len() as f64;
        assert!((7.0..=9.0).contains(&mean), "{mean} in a row");
        // A burst is over when the next packet comes a second later.
        let rare: Vec<Fate> = (30..100_030_u32).map(|number| offer(&mut lane, number * 1000 * MS, 7)).collect();
        let lost = |fates: &[Fate]| fates.iter().all(|fate| *fate == Fate::Lost);
        let [one, two] = [1, 2].map(|row| rare.windows(row).filter(|fates| lost(fates)).count());
        assert!((2_700..=3_300).contains(&one) && (50..=140).contains(&two), "{one} lost, {two} of them after one");
        lane.set_profile(Profile { loss: Loss { share: 1.0, run: 8.0 }, ..Profile::WIDE_AREA });
        assert!((200_000..201_000_u32).all(|number| offer(&mut lane, number * 1000 * MS, 7) == Fate::Lost));
        lane.set_profile(Profile { loss: Loss { share: 0.0, run: 8.0 }, ..Profile::WIDE_AREA });
        assert!((201_000..202_000_u32).all(|number| offer(&mut lane, number * 1000 * MS, 7) == Fate::Taken));
    }

    #[test]
    fn a_share_arrives_twice_and_batches_arrive_together() {
        let twice = arrivals(Profile { duplicated: 0.5, ..Profile::WIDE_AREA }, 1000);
        assert!((1_400..=1_600).contains(&twice.len()), "{}", twice.len());
        let batched = arrivals(Profile { batch: 10 * MS, ..Profile::WIDE_AREA }, 1000);
        assert!(batched.iter().all(|(at, _)| at.as_nanos() % (10 * MS).as_nanos() == 0));
        assert!(batched.is_sorted_by_key(|(_, number)| *number));
        assert_eq!(batched.chunk_by(|one, other| one.0 == other.0).map(<[_]>::len).max(), Some(10));
    }

    #[test]
    fn a_policer_lets_its_burst_pass_and_then_its_rate() {
        let policer = Some(Policer { rate: 5_000_000, burst: 100 * BYTES as u64 });
        let mut lane = Lane::new(Profile { policer, ..Profile::WIDE_AREA }, 1);
        let mut pass = |from: u32, packets: u32| {
            let fates = (from..from + packets).map(|number| offer(&mut lane, number * MS, 7));
            fates.filter(|fate| *fate == Fate::Taken).count()
        };
        // A packet each millisecond is 10 Mbit/s: twice its rate.
        assert_eq!(pass(0, 190), 190);
        assert_eq!(pass(1_000, 1_000), 499 + 100);
    }
}
