//! What a path loses whatever is sent: the least loss of a cycle in the last two periods.
//!
//! Radio links lose a fifth of the packets on bad days, and so does a queue into which too much is sent. What comes on top of the
//! least is more likely a queue's, unless a window that has become smaller loses as much.

/// More than this is taken for a queue's in any case.
const MOST: f64 = 0.25;

/// Cycles whose least is what more is sent for: a path may begin to lose at any time.
const CYCLES: usize = 2;

/// Where so much less was sent and almost as much is lost, it is not by what is sent.
const LESS: f64 = 0.75;

/// Shares of the packets, at most [`MOST`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    /// In the last cycles, the newest first.
    cycles: [f64; CYCLES],
    /// The least of this period and of the last; infinite while nothing is known.
    current: f64,
    previous: f64,
    /// Bytes sent in the cycle that the next ones are held against, and the share of them that was lost.
    suspect: (u64, f64),
}

impl Default for Loss {
    fn default() -> Self {
        Self { cycles: [0.0; CYCLES], current: f64::INFINITY, previous: f64::INFINITY, suspect: (0, 0.0) }
    }
}

impl Loss {
    /// Takes the loss of one cycle, in which so many bytes were sent.
    pub(super) fn add(&mut self, loss: f64, sent: u64) {
        self.cycles.rotate_right(1);
        self.cycles[0] = loss.min(MOST);
        self.current = self.current.min(self.cycles[0]);
        let (most, lost) = self.suspect;
        let less = (sent as f64) < most as f64 * LESS;
        if less && loss > lost * LESS {
            // A radio link has become worse: what it lost before is of the past.
            (self.current, self.previous) = (self.cycles[0].min(lost), f64::INFINITY);
        }
        if less || sent > most {
            self.suspect = (sent, loss);
        }
    }

    /// Begins the next period, and forgets the last but one.
    pub(super) fn rotate(&mut self) {
        self.previous = std::mem::replace(&mut self.current, f64::INFINITY);
    }

    /// The least of the last cycles.
    pub(super) fn recent(&self) -> f64 {
        self.cycles.into_iter().fold(MOST, f64::min)
    }

    /// Zero while nothing is known.
    pub(super) fn least(&self) -> f64 {
        let least = self.current.min(self.previous);
        if least.is_finite() { least } else { 0.0 }
    }
}
