//! When to dial a hub again: exponential back-off with full jitter, bounded by how long the outage lasts. Pure: time and
//! randomness are passed in.

use std::time::Duration;

/// Upper bound of the first delay.
const BASE: Duration = Duration::from_millis(100);

/// A tunnel that lived this long worked. One that ended sooner counts as another failure: a hub that admits agents and
/// loses them at once must not be dialled in a tight loop.
const STABLE: Duration = Duration::from_secs(10);

/// Between two attempts at a hub that has said no: somebody here has to do something first.
const REFUSED: Duration = Duration::from_secs(20);

/// The same where an administrator of the hub decides, after whose word the agent is to be back within 5 s.
const UNDECIDED: Duration = Duration::from_secs(4);

/// What the length of an outage makes of the pace.
struct Phase {
    /// Upper bound of a delay.
    cap: Duration,
    /// How long the hub may say nothing in one attempt.
    attempt: Duration,
}

/// Most outages are restarts or cut links, whose end should be noticed within a second. A hub that says nothing is asked at 0, 0.3,
/// 0.9, 1.5 and 2.1 s (`tunnel::connect`), and given up for half a second at most. Less patience would be work for nothing where a hub
/// has many agents to let in: it does so in the order in which they have asked, for 2 s.
const RESTART: Phase = Phase { cap: Duration::from_millis(500), attempt: Duration::from_millis(2500) };

/// After two minutes it is neither. The attempt leaves room for a slow network, or a hub that all its agents want at
/// once.
const OUTAGE: Phase = Phase { cap: Duration::from_secs(10), attempt: Duration::from_secs(10) };

/// After ten minutes somebody must do something that takes longer than half a minute.
const LONG_OUTAGE: Phase = Phase { cap: Duration::from_secs(30), attempt: Duration::from_secs(10) };

/// The pace at which one hub address is dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    failures: u32,
    /// The hub has said something in the last attempt.
    heard: bool,
}

impl Backoff {
    /// How long to wait after a failure, when the hub has been away for `outage`. `random` is uniform in `0.0..1.0`.
    ///
    /// Full jitter, uniform from 0 to the bound, spreads the agents that lost their hub at the same moment best
    /// (Amazon's "Exponential Backoff And Jitter").
    pub(crate) fn failed(&mut self, outage: Duration, random: f64) -> Duration {
        let bound = BASE.saturating_mul(1 << self.failures.min(20)).min(phase(outage).cap);
        self.failures = self.failures.saturating_add(1);
        bound.mul_f64(random.clamp(0.0, 1.0))
    }

    /// How long to wait after the hub has refused this agent: never less than half of the bound.
    pub(crate) fn refused(&mut self, decided_at_the_hub: bool, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let bound = if decided_at_the_hub { UNDECIDED } else { REFUSED };
        bound.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
    }

    /// An attempt failed in which the hub has said something or nothing; returns whether it is back by that, which ends the outage:
    /// one that lets in a fleet may have no time for each at once.
    pub(crate) fn heard(&mut self, something: bool) -> bool {
        let back = something && !self.heard;
        if back {
            self.failures = 0;
        }
        self.heard = something;
        back
    }

    /// A tunnel has ended after `life`; returns whether it counts as having worked, which ends the outage.
    pub(crate) fn ended(&mut self, life: Duration) -> bool {
        let worked = life >= STABLE;
        if worked {
            *self = Self::default();
        }
        worked
    }
}

/// How long to wait when a hub that has no room has said when all before this agent will have had their turn. A third of that, about:
/// rather too early, which costs a question, than too late, which leaves a hub idle that was faster than it thought.
pub(crate) fn told(wait: Duration, random: f64) -> Duration {
    wait.mul_f64((0.5 + random.clamp(0.0, 1.0)) / 3.0)
}

/// How long a hub may say nothing in an attempt, when it has been away for `outage`.
pub(crate) fn attempt_limit(outage: Duration) -> Duration {
    phase(outage).attempt
}

fn phase(outage: Duration) -> Phase {
    match outage.as_secs() {
        0..120 => RESTART,
        120..600 => OUTAGE,
        _ => LONG_OUTAGE,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALMOST_ONE: f64 = 0.999_999;

    #[test]
    fn bounds_double_up_to_the_cap_of_the_first_minutes() {
        let mut backoff = Backoff::default();
        let bounds: Vec<_> = (0..6).map(|_| backoff.failed(Duration::ZERO, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 500, 500, 500]);
    }

    #[test]
    fn the_cap_grows_with_the_outage() {
        let mut backoff = Backoff { failures: 30, ..Backoff::default() };
        for (outage, cap) in [(119, 500), (120, 10_000), (599, 10_000), (600, 30_000), (86_400, 30_000)] {
            assert_eq!(backoff.failed(Duration::from_secs(outage), 1.0), Duration::from_millis(cap), "{outage}");
        }
    }

    #[test]
    fn only_a_tunnel_that_lived_starts_over() {
        let mut backoff = Backoff { failures: 5, heard: true };
        assert!(!backoff.ended(STABLE - Duration::from_millis(1)));
        assert_eq!(backoff, Backoff { failures: 5, heard: true });
        assert!(backoff.ended(STABLE));
        assert_eq!(backoff, Backoff::default());
    }

    #[test]
    fn a_hub_that_speaks_after_its_silence_is_asked_again_soon_and_no_faster_after_that() {
        let mut backoff = Backoff { failures: 30, heard: false };
        assert!(!backoff.heard(false));
        assert!(backoff.heard(true));
        assert_eq!(backoff.failed(Duration::ZERO, 1.0), BASE);
        assert!(!backoff.heard(true), "one that fails each time is no news");
        assert_eq!(backoff.failed(Duration::ZERO, 1.0), 2 * BASE);
        assert!(!backoff.heard(false) && backoff.heard(true));
    }

    #[test]
    fn a_hub_that_is_back_hears_of_the_agent_within_a_second() {
        // Of an attempt it hears until 2.1 s; the next one begins when this one was given up and the delay is over.
        let longest = attempt_limit(Duration::ZERO) - Duration::from_millis(2100) + RESTART.cap;
        assert!(longest < Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn a_delay_is_between_zero_and_the_cap(failures: u32, outage in 0_u64..100_000, random in 0.0..1.0_f64) {
            let outage = Duration::from_secs(outage);
            let delay = Backoff { failures, heard: false }.failed(outage, random);
            prop_assert!(delay <= phase(outage).cap);
        }

        #[test]
        fn who_was_told_when_to_come_comes_in_a_third_of_that_about(wait in 0_u64..100_000, random: f64) {
            let wait = Duration::from_millis(wait);
            let delay = told(wait, random);
            prop_assert!(delay >= wait / 6 && delay <= wait / 2 + Duration::from_nanos(1));
        }

        #[test]
        fn more_failures_never_shorten_the_bound(failures in 0_u32..100, outage in 0_u64..1000) {
            let outage = Duration::from_secs(outage);
            let bound = |failures| Backoff { failures, heard: false }.failed(outage, ALMOST_ONE);
            prop_assert!(bound(failures) <= bound(failures + 1));
        }

        #[test]
        fn a_refused_agent_waits_at_least_half_of_its_bound(failures: u32, random in 0.0..1.0_f64) {
            let delay = Backoff { failures, heard: false }.refused(false, random);
            prop_assert!(delay >= Duration::from_secs(10) && delay <= REFUSED);
            let delay = Backoff { failures, heard: false }.refused(true, random);
            prop_assert!(delay >= Duration::from_secs(2) && delay <= UNDECIDED);
        }
    }
}
