//! What a path loses whatever is sent: the least loss of a cycle in the last two periods.
//!
//! Radio links lose a fifth of the packets on bad days, and so does a queue into which too much is sent. What comes on top of the
//! least is more likely a queue's.

/// More than this is taken for a queue's in any case.
const MOST: f64 = 0.25;

/// Cycles whose least is what more is sent for: a path may begin to lose at any time.
const CYCLES: usize = 2;

/// Shares of the packets, at most [`MOST`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Loss {
    /// In the last cycles, the newest first.
    cycles: [f64; CYCLES],
    current: Option<f64>,
    previous: Option<f64>,
}

impl Loss {
    /// Takes the loss of one cycle.
    pub(super) fn add(&mut self, loss: f64) {
        self.cycles.rotate_right(1);
        self.cycles[0] = loss.min(MOST);
        self.current = Some(self.current.unwrap_or(MOST).min(loss));
    }

    /// Begins the next period, and forgets the last but one.
    pub(super) fn rotate(&mut self) {
        self.previous = self.current.take();
    }

    /// The least of the last cycles.
    pub(super) fn recent(&self) -> f64 {
        self.cycles.into_iter().fold(MOST, f64::min)
    }

    /// Zero while nothing is known.
    pub(super) fn least(&self) -> f64 {
        [self.current, self.previous].into_iter().flatten().reduce(f64::min).unwrap_or(0.0)
    }
}
