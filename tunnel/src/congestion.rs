//! The congestion controller of both ends: how many bytes a tunnel may have in flight.
//!
//! A model of the path in the manner of BBR (draft-ietf-ccwg-bbr) and Copa (NSDI 2018): the window is what the path was
//! seen to deliver in one undisturbed round trip, plus a small headroom that finds out whether there is more.
//!
//! ```text
//! window = bandwidth x (min RTT + jitter + what is lost, in RTTs) + headroom
//! ```
//!
//! quinn takes only a window, and paces at 1.25 x window / smoothed RTT. A full pipe is clocked by its ACKs: what is
//! above what the empty path holds stands in the queue of the bottleneck, and the smoothed RTT grows with it, so the pacer
//! never holds back a window that the path delivers. The headroom is therefore the standing queue, and the only thing
//! that this controller decides.
//!
//! * A path with jitter, with late packets or with ACKs in batches holds more than its min RTT tells, see [`jitter`].
//! * Loss alone means nothing up to a tenth above what is lost whatever is sent, see [`loss`]; loss that comes and goes
//!   with the headroom cuts it, see [`headroom`].
//! * Start-up doubles in each round trip until the bandwidth stops growing, a queue grows or more is lost.
//!   It begins again where the headroom found an eighth more bandwidth and no queue.
//! * Every [`DIP_INTERVAL`], and when the RTT is not explained by the window or was high for all of start-up's last round,
//!   the window is below what the path holds for two round trips: the queue drains and the min RTT is seen again.
//!
//! # Bounded loss
//!
//! quinn closes a connection in which one stream has more than 1024 gaps. A lost packet makes at most one gap, which
//! stands until the loss is noticed, one round trip and 128 packets later, and made good, another one later: what is lost in
//! two round trips must stay below 1024 packets, with room for what is lost twice.
//!
//! * The window exceeds what was delivered in a round trip by at most 320 packets. If the path holds no more, these are
//!   lost in each of the two rounds until the loss is known: 2 x 320 = 640.
//! * Without a queue the pacer's 1.25 loses up to a fifth of a window that ACKs do not clock yet, and at 5 % a window of
//!   8000 packets loses 400. A round that lost more than 320 packets cuts the window to what loses 320, so that at worst
//!   the losses of the round that was too large, below 640, meet 320 of the next one: 960.

mod bandwidth;
mod headroom;
mod jitter;
mod loss;
mod model;
mod round;
#[cfg(test)]
mod simulation;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use quinn_proto::congestion::{Controller, ControllerFactory};

use self::model::Model;
use crate::silence::{LOOK, PAUSE};

/// Time between two looks at the min RTT.
const DIP_INTERVAL: Duration = Duration::from_secs(10);

/// Builds a [`Model`] for each path.
#[derive(Debug)]
pub(crate) struct ModelFactory {
    /// When dips are due: at this time and each [`DIP_INTERVAL`] before and after.
    dip: Instant,
}

impl ModelFactory {
    /// Dips are due when the wall clock shows a multiple of [`DIP_INTERVAL`], so that all tunnels over one link, whose
    /// hosts keep time, drain its queue together: one alone would see the queue of the others instead of an empty path.
    pub(crate) fn new() -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let since = Duration::from_nanos((time.as_nanos() % DIP_INTERVAL.as_nanos()) as u64);
        let now = Instant::now();
        Self { dip: now.checked_sub(since).unwrap_or(now) }
    }
}

/// Holds up nothing of a connection any more that is about to be closed, given a clone of its controller.
pub(crate) fn close(controller: Box<dyn Controller>) {
    if let Ok(model) = controller.into_any().downcast::<Model>() {
        model.close();
    }
}

/// Has the next packet of a connection go out whatever is in flight, after quinn's own probes; given a clone of its controller.
pub(crate) fn nudge(controller: Box<dyn Controller>) {
    if let Ok(model) = controller.into_any().downcast::<Model>() {
        model.nudge();
    }
}

/// The same at once.
pub(crate) fn insist(controller: Box<dyn Controller>) {
    if let Ok(model) = controller.into_any().downcast::<Model>() {
        model.insist();
    }
}

/// What a connection has under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight {
    /// When the peer acknowledged something last.
    pub(crate) acknowledged: Instant,
    /// There is no room for another packet, and nothing has been acknowledged for two round trips.
    pub(crate) stuck: bool,
    pub(crate) rtt: Duration,
}

impl Flight {
    /// That of a connection, given a clone of its controller.
    pub(crate) fn of(controller: Box<dyn Controller>, rtt: Duration, now: Instant) -> Option<Self> {
        let model = controller.into_any().downcast::<Model>().ok()?;
        let stuck = model.is_stuck(now, (2 * rtt).clamp(LOOK, PAUSE));
        Some(Self { acknowledged: model.acknowledged(), stuck, rtt })
    }
}

impl ControllerFactory for ModelFactory {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        Box::new(Model::new(now, mtu, self.dip))
    }
}
