//! Rates: how often each may do something, and which lines of the log each may cause.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// So often, and at once as often as that (a token bucket).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) every: Duration,
    pub(crate) burst: u32,
}

/// How often each has done something of late.
#[derive(Debug)]
pub(crate) struct Rates<K: Eq + Hash> {
    rate: Rate,
    spent: Mutex<Spent<K>>,
}

/// When the bucket of each is full again: who is not here has a full one.
#[derive(Debug)]
struct Spent<K> {
    full_at: HashMap<K, Instant>,
    /// At how many those who have a full one again are looked for.
    sweep: usize,
}

/// Lines of the log that somebody else causes. What is left out is counted, and said with the next line.
#[derive(Debug)]
pub(crate) struct Lines<K: Eq + Hash> {
    rates: Rates<K>,
    left_out: AtomicU64,
}

/// Those whose buckets are kept before the first look for full ones.
const SWEEP: usize = 1024;

/// A line every second tells what goes on, and ten at once tell a burst; a hundred peers fill no disk with that.
const LINES: Rate = Rate { every: Duration::from_secs(1), burst: 10 };

impl<K: Clone + Eq + Hash> Rates<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, spent: Mutex::new(Spent { full_at: HashMap::new(), sweep: SWEEP }) }
    }

    /// Whether `who` may once more; else, how long it has to wait.
    pub(crate) fn spend(&self, who: &K) -> Result<(), Duration> {
        self.spend_at(who, Instant::now())
    }

    fn spend_at(&self, who: &K, now: Instant) -> Result<(), Duration> {
        let Rate { every, burst } = self.rate;
        let mut spent = self.spent.lock();
        let full_at = spent.full_at.get(who).copied().unwrap_or(now).max(now) + every;
        let late = full_at.saturating_duration_since(now).saturating_sub(every * burst);
        if !late.is_zero() {
            return Err(late);
        }
        if spent.full_at.len() >= spent.sweep {
            spent.full_at.retain(|_, full_at| *full_at > now);
            spent.sweep = SWEEP.max(2 * spent.full_at.len());
        }
        spent.full_at.insert(who.clone(), full_at);
        Ok(())
    }
}

impl<K: Clone + Eq + Hash> Default for Lines<K> {
    fn default() -> Self {
        Self::new(LINES)
    }
}

impl<K: Clone + Eq + Hash> Lines<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rates: Rates::new(rate), left_out: AtomicU64::new(0) }
    }

    /// Whether `who` may cause a line, and how many were left out since the last.
    pub(crate) fn next(&self, who: &K) -> Option<u64> {
        if self.rates.spend(who).is_ok() {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_allowed_then_the_rate_and_each_has_its_own() {
        let rates = Rates::new(Rate { every: Duration::from_secs(2), burst: 3 });
        let now = Instant::now();
        for _ in 0..3 {
            assert_eq!(rates.spend_at(&"a", now), Ok(()));
        }
        assert_eq!(rates.spend_at(&"a", now), Err(Duration::from_secs(2)));
        assert_eq!(rates.spend_at(&"b", now), Ok(()));
        assert_eq!(rates.spend_at(&"a", now + Duration::from_secs(2)), Ok(()));
        assert!(rates.spend_at(&"a", now + Duration::from_secs(3)).is_err());
        // A long rest gives no more than the burst.
        let later = now + Duration::from_secs(1000);
        assert_eq!([(); 4].map(|()| rates.spend_at(&"a", later).is_ok()), [true, true, true, false]);
    }

    #[test]
    fn who_has_rested_is_forgotten() {
        let rates = Rates::new(Rate { every: Duration::from_secs(1), burst: 1 });
        let now = Instant::now();
        for (after, who) in (0..100 * SWEEP).enumerate() {
            rates.spend_at(&who, now + Duration::from_millis(after as u64 * 10)).unwrap();
        }
        assert!(rates.spent.lock().full_at.len() <= SWEEP);
    }

    #[test]
    fn lines_that_were_left_out_are_counted_for_the_next() {
        let lines = Lines::default();
        let told = (0..LINES.burst + 5).filter(|_| lines.next(&"a").is_some()).count();
        assert_eq!(told, LINES.burst as usize);
        assert_eq!(lines.next(&"b"), Some(5));
    }
}
