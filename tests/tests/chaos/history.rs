//! What was true of a site and when: of what had ended, and who could have known of whom.

use std::time::{Duration, Instant};

/// What holds from one moment on, between the hub and one agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// The agent runs and is not frozen.
    pub(crate) agent: bool,
    /// A hub runs and is not frozen.
    pub(crate) hub: bool,
    /// Both ways lead through.
    pub(crate) link: bool,
    /// The round trip is so long that it counts as silence.
    pub(crate) spike: bool,
}

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) from: Instant,
    pub(crate) to: Instant,
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    states: Vec<(Instant, State)>,
    ends: Vec<End>,
}

/// The end of a process with what it carried.
#[derive(Clone, Copy, Debug)]
struct End {
    /// From here on others may have begun with the next one.
    replaced: Instant,
    at: Instant,
    /// Until when it may have carried more, which ended as well.
    over: Instant,
    hub: bool,
}

/// Outages so close together are one: no sign of life need have got through between.
const TOGETHER: Duration = Duration::from_secs(2);

/// A tunnel may be given up from this much silence on. (14.7 s, of which 0.8 may have passed since the
/// last word; the rest is for a machine with many cells.)
const MAY_END: Duration = Duration::from_millis(13_400);

/// How long after the end of a process that was asked to end what it carried has ended.
const AT_ONCE: Duration = Duration::from_secs(3);

/// What a long round trip adds to silence, before and after.
const SPIKE: Duration = Duration::from_secs(9);

impl State {
    fn reaches(self) -> bool {
        self.agent && self.hub && self.link
    }
}

impl Stretch {
    fn length(self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }

    fn overlap(self, from: Instant, to: Instant) -> Duration {
        self.to.min(to).saturating_duration_since(self.from.max(from))
    }
}

impl History {
    pub(crate) fn note(&mut self, state: State) {
        if self.states.last().is_none_or(|(_, last)| *last != state) {
            self.states.push((Instant::now(), state));
        }
    }

    pub(crate) fn agent_ended(&mut self, at: Instant) {
        self.agent_drained(at, at);
    }

    /// An agent that served until its end, which was between these.
    pub(crate) fn agent_drained(&mut self, at: Instant, over: Instant) {
        self.ends.push(End { replaced: over, at, over, hub: false });
    }

    /// A hub that ended at once, or after what came had gone to the next one since `replaced`.
    pub(crate) fn hub_ended(&mut self, replaced: Instant, at: Instant) {
        self.ends.push(End { replaced, at, over: at, hub: true });
    }

    /// When a process ended last.
    pub(crate) fn last_end(&self) -> Option<Instant> {
        self.ends.iter().map(|end| end.at).max()
    }

    /// When a state held.
    fn stretches(&self, holds: impl Fn(State) -> bool) -> Vec<Stretch> {
        let ends = self.states.iter().skip(1).map(|(at, _)| *at).chain([Instant::now()]);
        let mut found: Vec<Stretch> = Vec::new();
        for ((from, state), to) in self.states.iter().zip(ends) {
            match found.last_mut() {
                _ if !holds(*state) => {}
                Some(last) if last.to == *from => last.to = to,
                _ => found.push(Stretch { from: *from, to }),
            }
        }
        found
    }

    /// When nothing got from one end to the other and back.
    pub(crate) fn outages(&self) -> Vec<Stretch> {
        self.stretches(|state| !state.reaches())
    }

    /// Whether the round trip was ever long.
    pub(crate) fn has_spiked(&self) -> bool {
        self.states.iter().any(|(_, state)| state.spike)
    }

    /// How long no hub ran between two moments.
    pub(crate) fn without_hub(&self, from: Instant, to: Instant) -> Duration {
        self.stretches(|state| !state.hub).into_iter().map(|stretch| stretch.overlap(from, to)).sum()
    }

    /// Whether a hub ended between two moments, or none ran.
    pub(crate) fn lacked_hub(&self, from: Instant, to: Instant) -> bool {
        let ended = self.ends.iter().any(|end| end.hub && end.at >= from && end.at <= to);
        ended || self.without_hub(from, to) > Duration::ZERO
    }

    /// Since when the other end of a stream whose dial began at `asked` and was answered at `begun` was gone, if it was at `ended`: one
    /// of its processes had ended, or there had been silence for long enough.
    pub(crate) fn gone(&self, [asked, begun]: [Instant; 2], ended: Instant) -> Option<Instant> {
        // Which of two hubs served what began while both did is told by its end.
        let was_its = |end: &&End| asked <= end.replaced || ended <= end.at + AT_ONCE;
        let since = |from: Instant, to: Instant| {
            self.ends.iter().filter(|end| end.over >= from && end.at <= to).filter(was_its).map(|end| end.at).min()
        };
        let after = since(begun, ended).max(self.silent(ended));
        // A dial may have waited for the next process, or been answered by one that had ended when the answer came.
        after.or_else(|| since(asked, begun)).map(|gone| gone.max(begun))
    }

    /// Since when there had been silence at a moment, if for so long that it may have been taken for the end.
    fn silent(&self, at: Instant) -> Option<Instant> {
        let mut together: Vec<Stretch> = Vec::new();
        let outages: Vec<Stretch> = self.outages().into_iter().filter(|outage| outage.from <= at).collect();
        for outage in &outages {
            match together.last_mut() {
                Some(last) if outage.from.saturating_duration_since(last.to) < TOGETHER => last.to = outage.to,
                _ => together.push(*outage),
            }
        }
        let outage = together.last()?;
        let spikes = self.stretches(|state| state.spike);
        let near = |spike: &Stretch| spike.overlap(outage.from - SPIKE, outage.to + SPIKE) > Duration::ZERO;
        let spiked = if spikes.iter().any(near) { SPIKE } else { Duration::ZERO };
        // What happened in the outage is told a round trip later, or when a frozen process goes on.
        let lasted = Stretch { to: outage.to.min(at), ..*outage }.length() + spiked;
        (lasted >= MAY_END).then(|| outages.last().map_or(outage.from, |last| last.from))
    }
}
