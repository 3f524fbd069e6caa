//! How long a peer has not been heard of. QUIC's own time-out grows with the round-trip time that was seen last, to minutes
//! after a spike (RFC 9000 section 10.1: never below three probe time-outs), and is late by a pause of the process.

use std::time::{Duration, Instant};

use crate::connection::Connection;

/// A peer that has not been heard of for this long is gone. With the next look, after a second at most, it is within 15 s.
pub const SILENCE: Duration = Duration::from_secs(14);

/// From here on a peer that is there is asked for a sign of life with each look: the agent's keep-alive is overdue. QUIC's own
/// probes come at growing distances, and an outage could end between the last one and the end of patience.
pub const OVERDUE: Duration = Duration::from_secs(7);

/// The most that counts between two looks. While a process stands still it hears nobody, and what came meanwhile is yet to be
/// read.
const LOOK: Duration = Duration::from_secs(2);

/// Watches one connection.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    heard: u64,
    looked: Instant,
    lasts: Duration,
}

impl Silence {
    /// A peer that has just been heard of.
    pub fn new(now: Instant) -> Self {
        Self { heard: 0, looked: now, lasts: Duration::ZERO }
    }

    /// How long there has been silence as of `now`, by looks that are a second apart. `heard` is
    /// [`Connection::heard`].
    pub fn look(&mut self, heard: u64, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.looked).min(LOOK);
        self.looked = now;
        self.lasts = if heard == self.heard { self.lasts + passed } else { Duration::ZERO };
        self.heard = heard;
        self.lasts
    }
}

impl Connection {
    /// How often something was heard from the peer, of what only it can have sent.
    pub fn heard(&self) -> u64 {
        let frames = self.quic.stats().frame_rx;
        frames.acks + frames.ping + frames.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_peer_is_silent_from_the_last_look_that_heard_it() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        assert_eq!(silence.look(1, start + SECOND), Duration::ZERO);
        for second in 2..=15 {
            assert_eq!(silence.look(1, start + second * SECOND), (second - 1) * SECOND);
        }
        assert!(silence.look(1, start + 15 * SECOND) >= SILENCE);
        assert_eq!(silence.look(2, start + 16 * SECOND), Duration::ZERO);
    }

    #[test]
    fn a_pause_of_the_process_is_no_silence_of_the_peer() {
        let start = Instant::now();
        let mut silence = Silence::new(start);
        silence.look(1, start + SECOND);
        assert_eq!(silence.look(1, start + 60 * SECOND), LOOK);
        assert_eq!(silence.look(2, start + 61 * SECOND), Duration::ZERO);
    }
}
