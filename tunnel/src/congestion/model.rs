//! What is known of one path, and the window that follows.

use std::{
    any::Any,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use quinn_proto::{RttEstimator, congestion::Controller};

use super::{
    bandwidth::Bandwidth,
    dips::Dips,
    headroom::{self, Headroom},
    jitter::Jitter,
    pass::Pass,
    round::Round,
};
use crate::liveness::LOOK;

/// Bytes in flight before anything is known of the path: 32 packets of 1200 bytes, as the large content networks do.
pub(super) const INITIAL_WINDOW: u64 = 32 * 1200;

/// Packets in flight below which ACKs, which the peer sends for every second packet, no longer clock the sender.
const MINIMUM_PACKETS: u64 = 4;

/// Packets for which a nudge makes room: quinn asks for more than the one that it sends.
const NUDGE: u64 = 3;

/// Packets of one probe (RFC 9002 section 6.2.4).
const PROBE: u8 = 2;

/// Bytes by which a packet may be less than the largest and count as one.
const FULL: u64 = 64;

/// Packets by which the window may exceed what was delivered in a round trip.
const OVERSHOOT: u64 = 320;

/// Packets in flight that need no proof: should every second of them be lost in two rounds, that is 700 gaps. Where the
/// round trip is shorter than the turns of the machine's scheduler, less would leave the path idle.
const UNPROVEN: u64 = 700;

/// Packets that may be lost in a round, and half of those in three.
const LOST: u64 = 320;

/// What quinn's pacer sends in a round trip, in windows.
const PACE: f64 = 1.25;

/// ACKs in a row that tell of a queue before it is believed, as in HyStart++ (RFC 9406).
const QUEUED_ACKS: u8 = 8;

/// The share of a round's packets that may be lost without being taken for congestion, besides what is lost whatever is sent.
pub(super) const LOSS_LIMIT: f64 = 0.1;

/// With so much more lost the bandwidth cannot be what it was.
const HEAVY_LOSS: f64 = 0.2;

/// The window of a dip, as a share of what the path holds.
const DIP: f64 = 0.5;

/// After a dip, the RTT as a share of what it was, if a deep queue was ours: batches and jitter alone make less difference.
const DRAINED: f64 = 0.4;

/// Longer than this without a full window, and what is known of the path is no longer believed.
const STALE: Duration = Duration::from_secs(10);

/// What is known of one path, and the window that follows.
#[derive(Clone)]
pub(super) struct Model {
    phase: Phase,
    window: u64,
    /// The window that would not have lost more than [`LOST`] packets in a round, and a sixteenth for each round since.
    bound: u64,
    /// Bytes lost in the last two rounds.
    lost: [u64; 2],
    /// Bytes delivered in one round trip of the last round.
    proven: u64,
    /// The window is less than the model wants, for want of proof.
    held: bool,
    /// Packets that quinn has sent as probes since the path was found to carry what there is.
    probes: u8,
    /// When the first of them was sent.
    probed: Instant,
    /// Of the ACKs that are being handled, the largest packet that was sent since then: what was sent before says nothing of the path
    /// as it is now. Zero where there is none.
    shown: u16,
    /// Largest UDP payload, in bytes.
    mtu: u64,
    bandwidth: Bandwidth,
    /// The least RTT of the empty path.
    min_rtt: Duration,
    /// How much longer it may be.
    jitter: Jitter,
    /// The mean RTT of start-up's last round.
    level: Duration,
    headroom: Headroom,
    round: Round,
    /// The lowest RTT in the last round; zero if that was disturbed.
    last_rtt: Duration,
    /// Of the ACKs that are being handled: bytes, and the RTT of the last packet.
    acked: u64,
    rtt: Duration,
    dips: Dips,
    /// The end of the last round in which the window was full.
    used: Instant,
    /// Bytes in flight, as far as they can be known here: a path-MTU probe is not told.
    flying: u64,
    /// When something was acknowledged last; at first, when the path began.
    acknowledged: Instant,
    /// Something was.
    answered: bool,
    pass: Arc<Pass>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    /// Doubling; how many rounds have brought no growth, and how many ACKs in a row have told of a queue.
    Startup {
        stalled: u8,
        queued: u8,
    },
    Cruise,
    /// The queue drains; the number of rounds so far, the lowest RTT in them, and the least that the bandwidth may be.
    Dip {
        rounds: u8,
        min_rtt: Duration,
        rate: f64,
    },
}

impl Phase {
    const STARTUP: Self = Self::Startup { stalled: 0, queued: 0 };
}

impl Model {
    /// Lets everything go: quinn holds up even the packet that closes a connection, and forgets it, while data waits for the window
    /// or the pacer. Neither is for a window as large.
    pub(super) fn close(&self) {
        self.pass.all.store(true, Ordering::Relaxed);
    }

    /// Lets the next packet go: behind a full window quinn's own probes alone go out, each after twice the time of the one before.
    ///
    /// The first two are quinn's: each packet puts the next one off, and they alone are small enough for a path that has become
    /// narrow. By them both ends of one learn so.
    pub(super) fn nudge(&self) {
        if self.probes > PROBE {
            self.insist();
        }
    }

    /// The same, whether or not quinn has sent its own.
    pub(super) fn insist(&self) {
        self.pass.next.store(true, Ordering::Relaxed);
    }

    /// When the peer acknowledged something last, if it has since the path began: to begin anew is no answer.
    pub(super) fn acknowledged(&self) -> Option<Instant> {
        self.answered.then_some(self.acknowledged)
    }

    /// Whether there has been next to no room for another packet, and nothing acknowledged, for `limit`.
    pub(super) fn is_stuck(&self, now: Instant, limit: Duration) -> bool {
        self.flying + NUDGE * self.mtu >= self.window && now.saturating_duration_since(self.acknowledged) >= limit
    }

    pub(super) fn new(now: Instant, mtu: u16, dip: Instant) -> Self {
        Self {
            phase: Phase::STARTUP,
            window: INITIAL_WINDOW,
            bound: u64::MAX,
            lost: [0; 2],
            proven: 0,
            held: false,
            probes: 0,
            probed: now,
            shown: 0,
            mtu: mtu.into(),
            bandwidth: Bandwidth::default(),
            min_rtt: Duration::MAX,
            jitter: Jitter::default(),
            level: Duration::MAX,
            headroom: Headroom::default(),
            round: Round::new(now),
            last_rtt: Duration::ZERO,
            acked: 0,
            rtt: Duration::MAX,
            dips: Dips::new(dip, now),
            used: now,
            flying: 0,
            acknowledged: now,
            answered: false,
            pass: Arc::default(),
        }
    }

    pub(super) fn acknowledge(&mut self, now: Instant, sent: Instant, bytes: u64) {
        self.round.on_ack(now, sent, bytes);
        if self.probes > 0 && sent >= self.probed {
            self.shown = self.shown.max(u16::try_from(bytes).unwrap_or(u16::MAX));
        }
        self.acked += bytes;
        self.rtt = self.rtt.min(now.saturating_duration_since(sent));
    }

    fn floor(&self) -> u64 {
        MINIMUM_PACKETS * self.mtu
    }

    /// What the empty path holds, in bytes.
    fn pipe(&self) -> u64 {
        self.bandwidth.over(self.empty_rtt())
    }

    /// The longest RTT of the empty path.
    fn empty_rtt(&self) -> Duration {
        self.min_rtt.saturating_add(self.jitter.time())
    }

    /// Forgets the path and begins again, with at most `window` in flight.
    fn restart(&mut self, now: Instant, window: u64) {
        self.phase = Phase::STARTUP;
        self.window = self.window.min(window.max(self.floor()));
        self.bandwidth = Bandwidth::default();
        self.headroom = Headroom::default();
        self.min_rtt = Duration::MAX;
        (self.last_rtt, self.level) = (Duration::ZERO, Duration::MAX);
        (self.jitter, self.proven) = (Jitter::default(), 0);
        self.used = now;
    }

    /// A path that was not in full use may have changed meanwhile: its old window would be a blind burst.
    fn expire(&mut self, now: Instant) {
        if now.saturating_duration_since(self.used) > STALE {
            self.restart(now, INITIAL_WINDOW);
        }
    }

    fn end_round(&mut self, now: Instant, round: &Round) {
        let rate = round.rate(now);
        let grown = self.bandwidth.add(rate, round.app_limited);
        self.jitter.add(round);
        self.update_bound(round);
        if round.app_limited {
            if matches!(self.phase, Phase::Dip { .. }) {
                self.enter_cruise();
            }
            return;
        }
        self.used = now;
        // A mean of ACKs that were held up, times the rate of those that came at last, would be more than there was.
        self.proven = ((rate * round.mean_rtt().as_secs_f64()) as u64).min(self.window);
        match self.phase {
            Phase::Startup { stalled, queued } => self.end_startup_round(round, grown, stalled, queued),
            Phase::Cruise => self.end_cruise_round(now, round),
            Phase::Dip { rounds, min_rtt, rate } => self.end_dip_round(round, rounds, min_rtt, rate),
        }
    }

    fn update_bound(&mut self, round: &Round) {
        let most = LOST * self.mtu;
        let together = round.lost + self.lost.iter().sum::<u64>();
        let excess = (round.lost as f64).max(together as f64 / 2.0) / most as f64;
        self.lost = [round.lost, self.lost[0]];
        if excess > 1.0 {
            self.bound = (self.window as f64 / excess) as u64;
        } else if !round.app_limited {
            self.bound = self.bound.saturating_add(self.bound / 16);
        }
    }

    /// A sender that waits for more to send is no longer clocked by its ACKs: what comes after the pause, the pacer sends faster than
    /// the path delivers.
    fn rest(&mut self) {
        let spared = LOST * self.mtu;
        // Of less than that the pacer cannot lose so much.
        if self.window as f64 * (1.0 - 1.0 / PACE) > spared as f64 {
            let held = self.pipe().max(self.proven);
            self.bound = self.bound.min((held as f64 / PACE) as u64 + spared);
            self.window = self.window.min(self.bound).max(self.floor());
        }
    }

    fn end_startup_round(&mut self, round: &Round, grown: bool, stalled: u8, queued: u8) {
        let stalled = if grown { 0 } else { stalled + 1 };
        let full = (queued == QUEUED_ACKS || !grown) && self.is_risen(round.mean_rtt());
        self.level = round.mean_rtt();
        if full && round.min_rtt > self.min_rtt.mul_f64(1.25) + headroom::MINIMUM_QUEUE {
            // What growth queues shows in the last packets of a round. All of them: the path has changed.
            self.enter_dip(self.bandwidth.rate());
        } else if full || stalled == 3 || self.is_lossy(round) {
            self.enter_cruise();
        } else {
            self.phase = Phase::Startup { stalled, queued: 0 };
        }
    }

    /// Within a round, start-up grows until a queue stands, and then no more until the end of the round tells the
    /// bandwidth; and a window that was held back grows by what proves itself.
    fn grow(&mut self, acked: u64, rtt: Duration) {
        if self.held && self.phase == Phase::Cruise {
            self.update_window(self.round.min_rtt);
        }
        let Phase::Startup { stalled, queued } = self.phase else { return };
        if queued == QUEUED_ACKS || self.is_lossy(&self.round) {
            return;
        }
        self.phase = Phase::Startup { stalled, queued: if self.is_risen(rtt) { queued + 1 } else { 0 } };
        self.window += acked;
        if self.bandwidth.is_known() {
            self.update_window(self.round.min_rtt);
        }
    }

    /// A packet with this RTT stood in a queue.
    fn is_queued(&self, rtt: Duration) -> bool {
        self.is_above(rtt, self.empty_rtt())
    }

    /// A packet with this RTT stood in a queue that was not there in the round before.
    fn is_risen(&self, rtt: Duration) -> bool {
        self.is_above(rtt, self.level)
    }

    fn is_above(&self, rtt: Duration, level: Duration) -> bool {
        rtt.saturating_sub(level) > (self.min_rtt / 8).max(headroom::MINIMUM_QUEUE)
    }

    fn is_lossy(&self, round: &Round) -> bool {
        round.loss() > LOSS_LIMIT + self.headroom.loss()
    }

    fn enter_cruise(&mut self) {
        self.phase = Phase::Cruise;
        self.last_rtt = Duration::ZERO;
    }

    fn end_cruise_round(&mut self, now: Instant, round: &Round) {
        let (rate, due) = (round.rate(now), self.dips.take(now, self.min_rtt));
        if due {
            self.headroom.rotate();
        }
        let unexplained = self.is_unexplained(round);
        self.last_rtt = round.min_rtt;
        if unexplained {
            return self.enter_dip(rate);
        }
        if due {
            return self.enter_dip(self.bandwidth.rate());
        }
        if round.loss() > HEAVY_LOSS + self.headroom.loss() {
            self.bandwidth.replace(rate);
        }
        if self.headroom.end_round(round, self.mtu) {
            if self.headroom.is_high() {
                self.jitter.rotate();
            }
            if self.bandwidth.has_grown() && !self.is_queued(round.min_rtt) {
                // Far from full: to grow by the headroom alone would take many cycles.
                self.level = round.mean_rtt();
                self.phase = Phase::STARTUP;
            }
            self.bandwidth.rotate();
        }
    }

    /// For two rounds the RTT is above what our own window explains: the path has changed, or the queue is not ours.
    fn is_unexplained(&self, round: &Round) -> bool {
        let filled = self.bandwidth.time(self.window).max(self.min_rtt);
        let explained = filled.mul_f64(1.25).saturating_add(headroom::MINIMUM_QUEUE);
        round.min_rtt.min(self.last_rtt) > explained
    }

    fn enter_dip(&mut self, rate: f64) {
        self.phase = Phase::Dip { rounds: 0, min_rtt: Duration::MAX, rate };
    }

    fn end_dip_round(&mut self, round: &Round, rounds: u8, min_rtt: Duration, rate: f64) {
        let min_rtt = min_rtt.min(round.min_rtt);
        if rounds == 0 {
            self.phase = Phase::Dip { rounds: 1, min_rtt, rate };
            return;
        }
        // A queue that went with our packets was ours, and the bandwidth was less than believed; also if the path is longer, too.
        if min_rtt < self.min_rtt.mul_f64(1.25) || min_rtt < self.last_rtt.mul_f64(DRAINED) {
            self.bandwidth.replace(rate);
        }
        self.min_rtt = min_rtt;
        let contested = self.dips.end(min_rtt);
        self.headroom.restart_cycle(contested);
        self.enter_cruise();
    }

    /// The window of this phase. In start-up, [`Self::on_ack`] makes it grow and this only bounds it.
    fn update_window(&mut self, rtt: Duration) {
        let proven = self.proven.max(self.round.delivered_in(rtt)) + OVERSHOOT * self.mtu;
        let proven = proven.max(UNPROVEN * self.mtu);
        let wanted = match self.phase {
            Phase::Startup { .. } => self.window,
            Phase::Cruise => self.pipe() + self.headroom.bytes(&self.bandwidth, self.empty_rtt(), rtt, self.mtu),
            Phase::Dip { rate, .. } => (rate * self.empty_rtt().as_secs_f64() * DIP) as u64,
        };
        self.held = wanted > proven;
        self.window = wanted.min(proven).min(self.bound).max(self.floor());
    }
}

impl Controller for Model {
    fn on_sent(&mut self, now: Instant, bytes: u64, _: u64) {
        let nudged = self.pass.next.swap(false, Ordering::Relaxed);
        // Where there is no room and nothing comes back, what goes out by itself is a probe.
        if !nudged && self.is_stuck(now, LOOK) {
            if self.probes == 0 {
                self.probed = now;
            }
            self.probes = self.probes.saturating_add(1);
        }
        self.flying += bytes;
        self.expire(now);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, _: bool, _: &RttEstimator) {
        self.acknowledge(now, sent, bytes);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, _: Option<u64>) {
        self.flying = in_flight;
        // What a path that is being validated brings is told by nothing else.
        (self.acknowledged, self.answered) = (now, true);
        let (acked, rtt) = (std::mem::take(&mut self.acked), std::mem::replace(&mut self.rtt, Duration::MAX));
        if acked == 0 {
            return;
        }
        // After an outage what was lost fills the window yet, and nudges go on; behind a path that has become narrow they do not.
        let narrow = (1..self.mtu - FULL).contains(&std::mem::take(&mut self.shown).into());
        if narrow || self.flying + NUDGE * self.mtu < self.window {
            self.probes = 0;
        }
        self.round.app_limited |= app_limited;
        if app_limited && (self.flying as f64) < self.window as f64 / PACE {
            self.rest();
        }
        self.min_rtt = self.min_rtt.min(rtt);
        if !app_limited {
            self.grow(acked, rtt);
        }
        if self.round.is_over(now) {
            let round = std::mem::replace(&mut self.round, Round::new(now));
            self.end_round(now, &round);
            if self.bandwidth.is_known() && !round.app_limited {
                self.update_window(round.min_rtt);
            }
        }
    }

    fn on_congestion_event(&mut self, now: Instant, _: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.round.lost += lost_bytes;
        self.flying = self.flying.saturating_sub(lost_bytes);
        if is_persistent_congestion {
            self.restart(now, self.floor());
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.mtu = new_mtu.into();
        self.window = self.window.max(self.floor());
    }

    fn window(&self) -> u64 {
        if self.pass.all.load(Ordering::Relaxed) {
            u64::MAX
        } else if self.pass.next.load(Ordering::Relaxed) {
            self.window.max(self.flying + NUDGE * self.mtu)
        } else {
            self.window
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        INITIAL_WINDOW
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
