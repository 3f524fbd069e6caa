//! Liveness of a peer: how long it has not been heard of. QUIC's own time-out grows with the round-trip time that was seen last, to minutes
//! after a spike (RFC 9000 section 10.1: never below three probe time-outs), and is late by a pause of the process.

use std::time::{Duration, Instant};

use crate::{congestion::Flight, connection::Connection};

/// A peer that has not been heard of for this long is gone, unless the next look hears it: within 15 s of its last word.
pub const SILENCE_TIMEOUT: Duration = Duration::from_millis(14_700);

/// The same where nobody needs anything of it: how long before the look its last word came is known to [`REST`] only.
const SILENCE_TIMEOUT_IDLE: Duration = Duration::from_secs(14);

/// A peer that has acknowledged nothing for this long, and for a round trip, is gone although it is heard of, where streams are open.
/// An answer may be older than a word by what lies between two questions, and the next one takes a round trip: an outage that both
/// outlast must end nothing.
const UNANSWERED: Duration = Duration::from_millis(15_200);

/// The most that counts of a round trip: after a spike it is taken to be seconds for a while.
const ROUND_TRIP: Duration = Duration::from_millis(1_500);

/// From here on a peer of which nobody needs anything is asked for a sign of life: the agent's keep-alive is overdue.
pub const OVERDUE: Duration = Duration::from_secs(7);

/// The same where streams are open. What is open must outlive an outage of 13 s whenever it begins, and yet end within 15 s of its
/// peer: so there must have been a sign of life shortly before.
const OVERDUE_IN_USE: Duration = Duration::from_millis(700);

/// Between two looks at a peer that is in use, and shortly before the end.
pub const LOOK: Duration = Duration::from_millis(100);

/// Between two other looks. Each costs a microsecond or two, as what it reads is in no cache any more.
pub const REST: Duration = Duration::from_millis(900);

/// Between two questions to a peer that is silent. QUIC's own probes come at growing distances, and an outage could end between
/// the last one and the end of patience.
pub(crate) const PAUSE: Duration = Duration::from_millis(500);

/// Who is heard of and has not answered for so long may be behind a path that has become narrow: what it is asked with is as large as
/// all that is lost. quinn's own probes are small, but each question puts them off.
const NARROW: Duration = Duration::from_millis(500);

/// So long it is left to them, and so long to questions, by turns.
const PROBED: Duration = Duration::from_secs(2);

/// From here on the path is taken for another. The answers of a round trip that has become 2 s come meanwhile.
const STARVED: Duration = Duration::from_secs(1);

/// Who is heard of again after so long is answered, whatever else there is to send and no room for: it waits for a sign of life, too.
const LONG: Duration = Duration::from_secs(1);

/// From here on each look asks: the path may be back, and there is not much time.
const CLOSE: Duration = Duration::from_secs(12);

/// The most that counts between two looks. While a process stands still it hears nobody, and what came meanwhile is yet to be
/// read.
const COUNTED: Duration = Duration::from_secs(1);

/// Watches one connection.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    heard: u64,
    /// When the peer acknowledged something last.
    acknowledged: Instant,
    looked: Instant,
    asked: Instant,
    /// How long nothing was heard of the peer.
    silent: Duration,
    /// How long it has acknowledged nothing while streams are open. One that is heard of may hear nothing, and be gone before it says
    /// so; and what a broken one is sent would be kept for it for ever.
    unanswered: Duration,
    /// How much of that it was heard of, and this end had no room for more.
    starved: Duration,
}

/// What a look has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessCheck {
    /// The peer was heard of, or is not to be asked yet.
    Well,
    /// The peer is to be asked for a sign of life.
    Ask,
    /// The same, whether or not quinn has asked itself.
    Insist,
    /// The peer is heard of and answers nothing: the path may carry less than it did.
    Narrow,
    /// The peer is gone.
    Gone,
}

impl Liveness {
    /// A peer that has just been heard of.
    pub fn new(now: Instant) -> Self {
        let none = Duration::ZERO;
        Self { heard: 0, acknowledged: now, looked: now, asked: now, silent: none, unanswered: none, starved: none }
    }

    /// How long there has been silence.
    pub fn silent_for(&self) -> Duration {
        self.silent
    }

    /// When the peer was heard of last, as far as was looked.
    pub fn since(&self) -> Instant {
        self.looked.checked_sub(self.silent).unwrap_or(self.looked)
    }

    /// How long there has been silence, or, where streams are open, no answer.
    fn lapse(&self) -> Duration {
        self.silent.max(self.unanswered)
    }

    /// When to look next, at a peer that is in use or not.
    pub fn next_check(&self, in_use: bool) -> Instant {
        self.looked
            + if in_use || self.lapse() >= CLOSE {
                LOOK
            } else if self.lapse() >= OVERDUE {
                PAUSE
            } else {
                REST
            }
    }

    /// Looks. `heard` is [`Connection::received_frames`]; `flight` is what is under way in a tunnel that is in use.
    fn look(&mut self, heard: u64, flight: Option<Flight>, now: Instant) -> LivenessCheck {
        let passed = now.saturating_duration_since(self.looked).min(COUNTED);
        let was = *self;
        self.silent = if heard == self.heard { self.silent + passed } else { Duration::ZERO };
        let answered = flight.and_then(|flight| flight.acknowledged).unwrap_or(self.acknowledged);
        self.unanswered =
            if flight.is_some() && answered <= self.acknowledged { self.unanswered + passed } else { Duration::ZERO };
        self.acknowledged = answered;
        (self.heard, self.looked) = (heard, now);
        // Not at the first look: a process that was late has yet to read what came.
        let over = |was, is, limit| was >= limit && is > was;
        let silence = if flight.is_some() { SILENCE_TIMEOUT } else { SILENCE_TIMEOUT_IDLE };
        let unanswered = UNANSWERED + flight.map_or(Duration::ZERO, |flight| flight.rtt.min(ROUND_TRIP));
        if over(was.silent, self.silent, silence) || over(was.unanswered, self.unanswered, unanswered) {
            return LivenessCheck::Gone;
        }
        if flight.is_some() && was.silent >= LONG && self.silent.is_zero() {
            self.asked = now;
            return LivenessCheck::Insist;
        }
        // quinn acknowledges nothing while it has something to send and no room for it: two such ends hear each other and wait.
        let stuck = flight.is_some_and(|flight| flight.stuck);
        let hears = flight.is_some() && self.silent < PAUSE;
        self.starved = if self.unanswered.is_zero() { Duration::ZERO } else { self.starved };
        self.starved += if hears && stuck { passed } else { Duration::ZERO };
        if over(was.starved, self.starved, STARVED) {
            return LivenessCheck::Narrow;
        }
        let turn = self.starved.saturating_sub(NARROW).as_nanos() / PROBED.as_nanos();
        let probed = hears && self.starved >= NARROW && turn.is_multiple_of(2) && was.lapse() < CLOSE;
        let rested = was.lapse() >= CLOSE || now.saturating_duration_since(self.asked) >= PAUSE;
        if probed || !(rested || stuck && hears) {
            return LivenessCheck::Well;
        }
        let overdue = self.lapse() >= if flight.is_some() { OVERDUE_IN_USE } else { OVERDUE };
        if overdue || stuck {
            self.asked = now;
            return if was.lapse() >= CLOSE { LivenessCheck::Insist } else { LivenessCheck::Ask };
        }
        LivenessCheck::Well
    }
}

impl Connection {
    /// How often something was heard from the peer, of what only it can have sent.
    pub fn received_frames(&self) -> u64 {
        let frames = self.quic.stats().frame_rx;
        frames.acks + frames.ping + frames.stream
    }

    /// Looks after the peer, which is in use or not.
    pub(crate) fn look(&self, liveness: &mut Liveness, in_use: bool, now: Instant) -> LivenessCheck {
        let flight = || Flight::of(self.quic.congestion_state(), self.quic.rtt(), now);
        liveness.look(self.received_frames(), in_use.then(flight).flatten(), now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    const RTT: Duration = Duration::from_millis(20);

    fn flight(acknowledged: Instant, stuck: bool) -> Flight {
        Flight { acknowledged: Some(acknowledged), stuck, rtt: RTT }
    }

    /// Looks when it is due, from the last word on, until the peer is gone: how often it was asked, when first, and when it was gone.
    fn watch(in_use: bool) -> (u32, Duration, Duration) {
        let start = Instant::now();
        let (mut silence, mut asked, mut first) = (Liveness::new(start), 0, Duration::ZERO);
        loop {
            let now = silence.next_check(in_use);
            let flight = in_use.then_some(flight(start, false));
            match silence.look(0, flight, now) {
                LivenessCheck::Well | LivenessCheck::Narrow => {}
                LivenessCheck::Ask | LivenessCheck::Insist => {
                    first = if asked == 0 { now - start } else { first };
                    asked += 1;
                }
                LivenessCheck::Gone => return (asked, first, now - start),
            }
        }
    }

    #[test]
    fn a_peer_is_asked_and_then_gone_within_15_seconds_of_its_last_word() {
        let (asked, first, gone) = watch(true);
        assert!(
            first == OVERDUE_IN_USE && gone >= SILENCE_TIMEOUT && gone + LOOK <= 15 * SECOND,
            "{first:?}, {gone:?}"
        );
        assert!((40..60).contains(&asked), "{asked}");
        let (asked, first, gone) = watch(false);
        assert!((OVERDUE..OVERDUE + REST).contains(&first), "{first:?}");
        assert!(gone >= SILENCE_TIMEOUT_IDLE && gone + REST <= 15 * SECOND, "{gone:?}");
        assert!((25..40).contains(&asked), "{asked}");
    }

    #[test]
    fn a_peer_that_is_heard_of_is_asked_where_this_end_is_stuck() {
        let start = Instant::now();
        let mut silence = Liveness::new(start);
        let mut look =
            |millis, stuck| silence.look(millis, Some(flight(start, stuck)), start + Duration::from_millis(millis));
        assert_eq!(look(100, false), LivenessCheck::Well);
        assert_eq!(look(200, true), LivenessCheck::Ask);
        assert_eq!(look(300, true), LivenessCheck::Ask);
        assert_eq!(look(400, false), LivenessCheck::Well);
    }

    #[test]
    fn a_peer_that_is_heard_of_and_answers_nothing_is_gone_whenever_it_falls_silent() {
        // At what tenth of a second, where it is heard of until `silent`, and answers until `deaf`.
        let gone = |deaf: u64, silent: u64| {
            let (start, at) = (Instant::now(), |tenth| Duration::from_millis(100 * tenth));
            let mut silence = Liveness::new(start);
            (1..).find(|tenth| {
                let flight = flight(start + at(deaf.min(*tenth)), false);
                silence.look(silent.min(*tenth), Some(flight), start + at(*tenth)) == LivenessCheck::Gone
            })
        };
        let silences = [20, 25, 100, 1000];
        assert_eq!(silences.map(|silent| gone(20, silent)), [Some(168), Some(173), Some(174), Some(174)]);
    }

    #[test]
    fn a_path_that_is_begun_anew_is_no_answer() {
        let start = Instant::now();
        let mut silence = Liveness::new(start);
        let mut begun = None;
        let gone = (1..300_u64).find(|tenth| {
            let acknowledged = if begun.is_none() { Some(start) } else { None };
            let flight = Flight { acknowledged, stuck: true, rtt: RTT };
            let look = silence.look(*tenth, Some(flight), start + Duration::from_millis(100 * tenth));
            if look == LivenessCheck::Narrow {
                begun = Some(*tenth);
            }
            look == LivenessCheck::Gone
        });
        assert!(begun.is_some() && gone == Some(154), "{begun:?}, {gone:?}");
    }

    #[test]
    fn a_peer_that_is_heard_of_again_is_answered_at_once() {
        let start = Instant::now();
        let mut silence = Liveness::new(start);
        let mut look = |heard, tenth: u64| {
            let now = start + Duration::from_millis(100 * tenth);
            silence.look(heard, Some(flight(now, false)), now)
        };
        assert!((1..=130).all(|tenth| look(0, tenth) != LivenessCheck::Gone));
        assert_eq!(
            [(1, 131), (1, 132), (2, 133)].map(|(heard, tenth)| look(heard, tenth)),
            [LivenessCheck::Insist, LivenessCheck::Well, LivenessCheck::Well]
        );
    }

    #[test]
    fn a_pause_of_the_process_is_no_silence_of_the_peer() {
        let start = Instant::now();
        let mut silence = Liveness::new(start);
        let mut look = |heard, after| {
            let seen = silence.look(heard, None, start + after * SECOND);
            (seen, silence.silent_for())
        };
        look(1, 1);
        assert_eq!(look(1, 60), (LivenessCheck::Well, COUNTED));
        assert_eq!(look(2, 61), (LivenessCheck::Well, Duration::ZERO));
    }

    proptest! {
        /// Looks are late by up to `late`. The peer has words of its own, but for the outage; each question but those in the outage is
        /// answered after the round trip, and what is under way as it begins is lost. (The peer of a real tunnel asks as well.)
        #[test]
        fn an_outage_of_13_seconds_is_outlived_whenever_it_begins(
            begins in 0..5_000_u64, late in 0..150_u64, rtt in 0..250_u64, talks: bool, stuck: bool, seed: u64,
        ) {
            let at = |millis: u64| Duration::from_millis(millis);
            let start = Instant::now();
            let (from, to) = (start + at(begins), start + at(begins) + 13 * SECOND);
            let (mut silence, mut heard, mut answer, mut dice) = (Liveness::new(start), 0, None, seed);
            let mut acknowledged = start;
            loop {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let now = silence.next_check(true) + at((dice >> 33) % (late + 1));
                let away = now > from && now < to + at(rtt / 2);
                if answer.is_some_and(|due| due > from && due < to + at(rtt)) {
                    answer = None;
                }
                if answer.is_some_and(|due| due <= now) {
                    (heard, acknowledged, answer) = (heard + 1, now, None);
                }
                heard += u64::from(talks && !away);
                let flight = Flight { acknowledged: Some(acknowledged), stuck: stuck && now > from && now < to + SECOND, rtt: at(rtt) };
                match silence.look(heard, Some(flight), now) {
                    LivenessCheck::Well | LivenessCheck::Narrow => {}
                    LivenessCheck::Ask | LivenessCheck::Insist if now < from || now > to => answer = answer.or_else(|| Some(now + at(rtt))),
                    LivenessCheck::Ask | LivenessCheck::Insist => {}
                    LivenessCheck::Gone => return Err(TestCaseError::fail(format!("gone at {:?}", now - start))),
                }
                if now > to + 2 * SECOND {
                    break;
                }
            }
        }
    }
}
