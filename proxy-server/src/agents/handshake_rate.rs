//! The measured rate of handshakes: how long the queue may be, and when a peer that finds no room in it should come again.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What is measured over: enough to be smooth, and soon there.
const TURNS: usize = 128;

/// What is taken for the time between two turns before it is known. A core is not faster: who comes too soon is told again, who
/// comes too late leaves the hub idle.
const FIRST_GUESS: Duration = Duration::from_millis(1);

/// Nobody is sent away for longer.
pub(crate) const LONGEST: Duration = Duration::from_secs(60);

/// How a queue moves.
#[derive(Debug, Default)]
pub(crate) struct HandshakeRate {
    /// The newest turns of those who had to wait.
    turns: VecDeque<Instant>,
    /// The shortest time between two turns that was measured since somebody waits.
    shortest: Option<Duration>,
}

/// Who was sent away is expected in one of these.
const SLOT: Duration = Duration::from_millis(100);

/// How many slots one who was sent away may be late, and is still expected.
const LATE: usize = 20;

/// Who was sent away, by the slot in which it is expected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Away {
    /// When the first slot began.
    from: Option<Instant>,
    expected: VecDeque<u32>,
}

impl HandshakeRate {
    /// Somebody has had its turn, and others wait.
    pub(crate) fn turn(&mut self, now: Instant) {
        if self.turns.len() == TURNS {
            self.turns.pop_front();
        }
        self.turns.push_back(now);
        if let Some(interval) = self.measured() {
            self.shortest = Some(self.shortest.map_or(interval, |shortest| shortest.min(interval)));
        }
    }

    /// Nobody waits: what was measured is not how fast it could be.
    pub(crate) fn rests(&mut self) {
        self.turns.clear();
        self.shortest = None;
    }

    /// The time between two turns, of the newest.
    fn measured(&self) -> Option<Duration> {
        let (first, last) = (self.turns.front()?, self.turns.back()?);
        (self.turns.len() == TURNS).then(|| (*last - *first) / (TURNS as u32 - 1))
    }

    /// How many get their turn in `time`.
    pub(crate) fn within(&self, time: Duration) -> usize {
        let interval = self.measured().unwrap_or(FIRST_GUESS).max(Duration::from_micros(1));
        usize::try_from(time.as_micros() / interval.as_micros()).unwrap_or(usize::MAX)
    }

    /// When to come for whom there is no room behind `waiting` others and those that are `away`, where each `nth` turn is one of
    /// theirs: when they all have had their turn, by the shortest interval that was measured, as a hub that was held up for a moment
    /// must not be idle for long after it.
    pub(crate) fn later(
        &self,
        waiting: usize,
        nth: usize,
        away: &mut Away,
        longest: Duration,
        now: Instant,
    ) -> Duration {
        let times = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let interval = self.shortest.unwrap_or(FIRST_GUESS).saturating_mul(times(nth));
        let before = waiting.saturating_add(away.count(now));
        let wait = interval.saturating_mul(times(before)).min(longest);
        away.sent(wait, now);
        wait
    }
}

impl Away {
    /// Somebody has come: one of those that are expected by now, if there are any.
    pub(crate) fn came(&mut self, now: Instant) {
        self.forget(now);
        let due = self.slot(now) + 1;
        if let Some(expected) = self.expected.iter_mut().take(due).find(|expected| **expected > 0) {
            *expected -= 1;
        }
    }

    /// Somebody comes in a third of `wait`, about (`proxy-agent/src/hub/backoff.rs`).
    fn sent(&mut self, wait: Duration, now: Instant) {
        self.from.get_or_insert(now);
        let slot = self.slot(now + wait / 3);
        if self.expected.len() <= slot {
            self.expected.resize(slot + 1, 0);
        }
        self.expected[slot] = self.expected[slot].saturating_add(1);
    }

    /// How many are away.
    fn count(&mut self, now: Instant) -> usize {
        self.forget(now);
        self.expected.iter().fold(0, |count, expected| count.saturating_add(*expected as usize))
    }

    /// Who is too late does not come.
    fn forget(&mut self, now: Instant) {
        let past = self.slot(now).saturating_sub(LATE).min(self.expected.len());
        self.expected.drain(..past);
        self.from = self.from.map(|from| from + SLOT * past as u32).filter(|_| !self.expected.is_empty());
    }

    /// The place of a moment's slot among those that are known.
    fn slot(&self, at: Instant) -> usize {
        let passed = self.from.map_or(Duration::ZERO, |from| at.saturating_duration_since(from));
        usize::try_from(passed.as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(4);

    /// One that has measured `interval`, and when.
    fn measured(interval: Duration) -> (HandshakeRate, Instant) {
        let (mut pace, mut now) = (HandshakeRate::default(), Instant::now());
        for _ in 0..2 * TURNS {
            now += interval;
            pace.turn(now);
        }
        (pace, now)
    }

    #[test]
    fn what_fits_into_a_time_is_guessed_first_and_measured_then() {
        assert_eq!(HandshakeRate::default().within(Duration::from_secs(2)), 2000);
        let (mut pace, _) = measured(INTERVAL);
        assert_eq!(pace.within(Duration::from_secs(2)), 500);
        pace.rests();
        assert_eq!(pace.within(Duration::from_secs(2)), 2000);
        assert!(measured(Duration::ZERO).0.within(Duration::from_secs(2)) > 1_000_000);
    }

    #[test]
    fn everybody_is_given_a_turn_of_its_own_behind_those_who_wait() {
        let (pace, now) = measured(INTERVAL);
        let mut others = Away::default();
        let mut later = |waiting, now| pace.later(waiting, 1, &mut others, LONGEST, now).as_micros();
        let told: Vec<_> = (0..4).map(|_| later(500, now)).collect();
        assert_eq!(told, [2_000_000, 2_004_000, 2_008_000, 2_012_000]);
        // Time passes, and the next one is behind them all the same.
        let after = now + Duration::from_secs(1);
        assert_eq!(later(100, after), 416_000);
        // A turn that nobody has taken is nobody's.
        let after = now + Duration::from_secs(9);
        assert_eq!(later(100, after), 400_000);
        // Of three sources each has every third turn.
        let mut of_source = Away::default();
        let told: Vec<_> = (0..2).map(|_| pace.later(10, 3, &mut of_source, LONGEST, now).as_micros()).collect();
        assert_eq!(told, [120_000, 132_000]);
    }

    #[test]
    fn who_was_sent_away_and_comes_again_is_away_no_more() {
        let (pace, now) = measured(INTERVAL);
        let mut away = Away::default();
        for _ in 0..1000 {
            pace.later(500, 1, &mut away, LONGEST, now);
        }
        let count = |away: &mut Away, seconds: f64| {
            let at = now + Duration::from_secs_f64(seconds);
            away.came(at);
            away.count(at)
        };
        // The first ones are expected after two thirds of a second, and nobody before.
        assert_eq!([0.0, 0.5, 0.7, 0.8].map(|seconds| count(&mut away, seconds)), [1000, 1000, 999, 998]);
        // The last ones after two seconds; who has not come two seconds later does not come.
        assert_eq!([2.5, 4.5].map(|seconds| count(&mut away, seconds)), [997, 0]);
    }

    #[test]
    fn a_moment_in_which_nothing_moved_sends_nobody_away_for_longer() {
        let (mut pace, now) = measured(INTERVAL);
        let stalled = now + Duration::from_secs(3);
        pace.turn(stalled);
        assert!(pace.within(Duration::from_secs(2)) < 100);
        assert_eq!(pace.later(500, 1, &mut Away::default(), LONGEST, stalled), Duration::from_secs(2));
    }

    #[test]
    fn nobody_is_sent_away_for_long() {
        let (pace, now) = measured(Duration::from_secs(1));
        let mut away = Away::default();
        assert_eq!((0..1000).map(|_| pace.later(0, 1, &mut away, LONGEST, now)).max(), Some(LONGEST));
        assert_eq!(pace.later(usize::MAX, usize::MAX, &mut Away::default(), LONGEST, now), LONGEST);
    }
}
