//! What a run of faults showed, beside the bounds.

use std::time::{Duration, Instant};

use crate::cell::Marks;
use crate::history::History;
use crate::log::{Ending, Log, Outcome, Said, Way};

/// An open stream whose other end is gone has an error within this.
const GONE: Duration = Duration::from_secs(15);
/// A dial's deadline.
const DEADLINE: Duration = Duration::from_secs(10);
/// The first success after a fault has ended; the round trip is short here.
const BACK: Duration = Duration::from_secs(1);
/// What had hung is told so long after all was well again.
const SETTLED: Duration = Duration::from_secs(2);
/// What the hub says is true within this.
const TRUE: Duration = Duration::from_secs(15);
/// What clients that look now and then, and a machine with many cells, add.
const SLACK: Duration = Duration::from_millis(500);

/// How long the last word of an end that is gone may be under way while the round trip is long.
const UNDER_WAY: Duration = Duration::from_secs(4);

fn under_way(history: &History) -> Duration {
    if history.has_spiked() { UNDER_WAY } else { Duration::ZERO }
}

/// What one run showed. Times are the slowest.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) name: String,
    /// How often the cell was run until this.
    pub(crate) runs: usize,
    /// From the end of the other end of a stream to its error.
    pub(crate) error: Option<Duration>,
    pub(crate) dial: Duration,
    /// Of dials that were not served.
    pub(crate) refused: Option<Duration>,
    pub(crate) success: Option<Duration>,
    /// Until every stream that had outlived the faults moved.
    pub(crate) moved: Option<Duration>,
    pub(crate) false_ends: usize,
    pub(crate) wrong: usize,
    pub(crate) whole: usize,
    /// Dials that ended without a word on what to do.
    pub(crate) mute: usize,
    pub(crate) true_away: Option<Duration>,
    pub(crate) true_again: Option<Duration>,
    pub(crate) stuck: usize,
    /// What broke a bound.
    pub(crate) broken: Vec<String>,
}

impl Verdict {
    /// Of a cell whose faults could not be done.
    pub(crate) fn not_run(error: &anyhow::Error) -> Self {
        let mut verdict = Self::empty(format!("{error}"));
        verdict.breaks(format!("it could not be run: {error:#}"));
        verdict
    }

    fn empty(name: String) -> Self {
        Self {
            name,
            runs: 1,
            error: None,
            dial: Duration::ZERO,
            refused: None,
            success: None,
            moved: None,
            false_ends: 0,
            wrong: 0,
            whole: 0,
            mute: 0,
            true_away: None,
            true_again: None,
            stuck: 0,
            broken: Vec::new(),
        }
    }

    pub(crate) fn of(name: String, start: Instant, marks: Marks, history: &History, log: &Log) -> Self {
        let lines = log.lines();
        let mut verdict = Self {
            success: marks.success.map(|at| at - marks.begun),
            moved: marks.moved.map(|at| at - marks.begun),
            true_again: marks.true_again.map(|at| at - marks.begun),
            ..Self::empty(name)
        };
        for end in &lines.ends {
            verdict.see_end(end.way, [end.asked, end.begun], end.ended, &end.ending, start, history);
        }
        for dial in &lines.dials {
            let waited = dial.took().saturating_sub(history.without_hub(dial.begun, dial.ended));
            // Who asks through a URL or a local port hears of a dial with what the target says, or with the stream's end: behind one
            // bound there is the other.
            let bound = match (dial.way, &dial.outcome) {
                (Way::Gateway | Way::Forward, Outcome::Served) => Duration::MAX,
                (Way::Gateway | Way::Forward, _) => DEADLINE + 2 * SLACK + GONE + UNDER_WAY + 2 * SLACK,
                _ => {
                    verdict.dial = verdict.dial.max(waited);
                    DEADLINE + 2 * SLACK
                }
            };
            if waited > bound {
                verdict.breaks(format!("a dial by {} took {waited:.1?}: {:?}", dial.way, dial.outcome));
            }
            if dial.outcome != Outcome::Served && bound < DEADLINE + GONE {
                verdict.refused = verdict.refused.max(Some(waited));
            }
            if let Outcome::Mute(why) = &dial.outcome
                && !history.lacked_hub(dial.begun - SLACK, dial.ended)
            {
                verdict.mute += 1;
                verdict.breaks(format!("{:.1?} a dial by {} was told nothing: {why}", dial.begun - start, dial.way));
            }
        }
        for live in lines.live.values().filter(|live| live.moved < marks.begun && live.begun < marks.begun) {
            verdict.stuck += 1;
            verdict.breaks(format!("a stream by {} hangs since {:.1?}", live.way, live.moved - start));
        }
        verdict.see_truth(&lines.said, history);
        verdict.judge(marks, history);
        verdict
    }

    fn see_end(
        &mut self,
        way: Way,
        lived_from: [Instant; 2],
        ended: Instant,
        ending: &Ending,
        start: Instant,
        history: &History,
    ) {
        let at = ended.saturating_duration_since(start);
        match ending {
            Ending::Wrong(what) => {
                self.wrong += 1;
                return self.breaks(format!("{at:.1?} wrong bytes by {way}: {what}"));
            }
            // The kernel ends the connections of a process that was killed as if all had been said; only TLS tells.
            Ending::Whole if way != Way::Tls && way != Way::Gateway && history.lacked_hub(ended - GONE, ended) => {}
            Ending::Whole => {
                self.whole += 1;
                self.breaks(format!("{at:.1?} a broken stream by {way} ended as if it were whole"));
            }
            Ending::Broken(_) => {}
        }
        match history.gone(lived_from, ended) {
            None => {
                self.false_ends += 1;
                self.breaks(format!("{at:.1?} a stream by {way} ended for no reason: {ending:?}"));
            }
            Some(gone) => {
                let lag = ended.saturating_duration_since(gone).saturating_sub(history.without_hub(gone, ended));
                self.error = self.error.max(Some(lag));
                if lag > GONE + under_way(history) + 2 * SLACK {
                    self.breaks(format!("{at:.1?} a stream by {way} ended {lag:.1?} after its other end"));
                }
            }
        }
    }

    /// How long after the beginning of an outage the hub still said that the cluster was there.
    fn see_truth(&mut self, said: &[Said], history: &History) {
        for outage in history.outages() {
            let within = |said: &&Said| said.available && said.at >= outage.from && said.answered < outage.to;
            if let Some(Said { at, .. }) = said.iter().rfind(within) {
                let late = (*at - outage.from).saturating_sub(history.without_hub(outage.from, *at));
                self.true_away = self.true_away.max(Some(late));
                if late > TRUE + under_way(history) + 2 * SLACK {
                    self.breaks(format!("{late:.1?} after it was gone the cluster was still said to be there"));
                }
            }
        }
    }

    fn judge(&mut self, marks: Marks, history: &History) {
        match self.success {
            None => self.breaks(String::from("no dial was served after the faults")),
            Some(late) if late > BACK + SLACK => self.breaks(format!("the first success came after {late:.1?}")),
            Some(_) => {}
        }
        if !marks.every_way {
            self.breaks(String::from("not every way was open again"));
        }
        match self.true_again {
            None => self.breaks(String::from("what the hub said did not come true again")),
            Some(late) if late > TRUE => self.breaks(format!("what the hub said came true after {late:.1?}")),
            Some(_) => {}
        }
        // An agent that is back is a reason to ask after what it had; how long an answer may take hangs on the round trips.
        let settled = if history.has_spiked() { GONE } else { self.success.unwrap_or_default() + SETTLED };
        if let Some(late) = self.moved.filter(|late| *late > settled + 2 * SLACK) {
            self.breaks(format!("streams hung for {late:.1?} after the faults"));
        }
    }

    fn breaks(&mut self, what: String) {
        self.broken.push(what);
    }

    /// Whether something was lost for no reason: no machine is so slow that it may.
    pub(crate) fn is_lost(&self) -> bool {
        self.false_ends + self.wrong + self.whole + self.stuck > 0
    }

    /// Whether bounds were broken by who was late only.
    pub(crate) fn is_only_late(&self) -> bool {
        !self.held() && !self.is_lost()
    }

    pub(crate) fn held(&self) -> bool {
        self.broken.is_empty()
    }
}
