//! How long to wait before a store is tried again: longer each time, and never all hubs at once.

use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(50);
const LONGEST: Duration = Duration::from_secs(3);

/// Waits that double up to three seconds, each shortened by chance to no less than half.
#[derive(Debug)]
pub struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Backoff {
    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let longest = self.0;
        self.0 = (longest * 2).min(LONGEST);
        rand::random_range(longest / 2..=longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_within_their_bounds() {
        let mut backoff = Backoff::default();
        let waits: Vec<Duration> = (0..20).map(|_| backoff.next_wait()).collect();
        assert!(waits[0] <= SHORTEST && waits[0] >= SHORTEST / 2);
        assert!(waits[19] <= LONGEST && waits[19] >= LONGEST / 2);
    }
}
