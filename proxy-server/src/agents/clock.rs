//! Agents' clocks: one that differs from the hub's is told with both times.

use std::time::{Duration, SystemTime};

use certs::{shown_span, shown_time};

/// What no certificate minds.
const TOLERATED: Duration = Duration::from_secs(5 * 60);

/// What to say of an agent whose clock shows `said`, in Unix seconds; 0 when it does not say.
pub(crate) fn difference(said: u64) -> Option<String> {
    difference_at(said, SystemTime::now())
}

fn difference_at(said: u64, now: SystemTime) -> Option<String> {
    let there =
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(said)).filter(|_| (1..1 << 36).contains(&said))?;
    let (apart, side) = match there.duration_since(now) {
        Ok(ahead) => (ahead, "ahead"),
        Err(behind) => (behind.duration(), "behind"),
    };
    (apart > TOLERATED).then(|| {
        let (there, here) = (shown_time(there), shown_time(now));
        format!(
            "the agent's clock is {} {side}: {there}, and here it is {here}; set the one that is wrong",
            shown_span(apart)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_is_told_with_both_times() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
        for same in [0, 86_400, 86_400 - 300, 86_400 + 300, u64::MAX] {
            assert_eq!(difference_at(same, now), None);
        }
        let told = difference_at(3600, now).unwrap();
        assert!(told.contains("23 h behind: 1970-01-01T01:00:00Z, and here it is 1970-01-02T00:00:00Z"), "{told}");
        assert!(difference_at(90_000, now).unwrap().contains("60 min ahead"));
    }
}
