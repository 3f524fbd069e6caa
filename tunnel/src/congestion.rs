//! The congestion controller of both ends: how many bytes a tunnel may have in flight.
//!
//! A model of the path in the manner of BBR (draft-ietf-ccwg-bbr) and Copa (NSDI 2018): the window is what the path was
//! seen to deliver in one undisturbed round trip, plus a small headroom that finds out whether there is more.
//!
//! ```text
//! window = bandwidth x (min RTT + jitter) + headroom
//! ```
//!
//! quinn takes only a window, and paces at 1.25 x window / smoothed RTT. A full pipe is clocked by its ACKs: what is
//! above what the empty path holds stands in the queue of the bottleneck, and the smoothed RTT grows with it, so the pacer
//! never holds back a window that the path delivers.
//!
//! * A path with jitter, with late packets or with ACKs in batches holds more than its min RTT tells, see [`jitter`].
//! * The headroom is the standing queue. Loss that comes and goes with it cuts it, and so does more than a tenth besides
//!   what is lost whatever is sent, see [`headroom`] and [`loss`]. Where a dip does not drain the queue others fill it,
//!   and the headroom is what keeps a share of the link beside them.
//! * Start-up doubles in each round trip until the bandwidth stops growing, a queue grows or more than that is lost.
//!   It begins again where the headroom found an eighth more bandwidth and no queue.
//! * Every [`DIP_INTERVAL`], on long paths each second or third, and when the RTT is not explained by the window or was high for all of start-up's last round,
//!   the window is half of what the path holds for two round trips: the queue drains and the min RTT is seen again.
//!
//! # Bounded loss
//!
//! quinn closes a connection in which one stream has more than about a thousand pieces behind a gap. A gap that is filled
//! leaves a piece of its own, so what counts is all that is lost while the oldest gap stands: a loss is noticed 128
//! packets or 1.75 round trips after it was sent, and made good one round trip later, unless that is lost, too.
//!
//! * The window exceeds what was delivered in a round trip by at most 320 packets. If the path holds no more, these are
//!   lost in each of the two rounds until the loss is known.
//! * A round that lost more than 320 packets, or three that lost more than 640, cut the window to what loses so much.
//! * What is not clocked by ACKs the pacer sends a quarter faster than the path delivers: after a pause the window is
//!   what loses 320 packets by that, on a path without a queue.

mod bandwidth;
mod dips;
mod headroom;
mod jitter;
mod loss;
mod model;
mod pass;
mod round;
#[cfg(test)]
mod simulation;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use quinn_proto::congestion::{Controller, ControllerFactory};

use self::model::Model;
use crate::liveness::{LOOK, PAUSE};

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
    /// When the peer acknowledged something last, if it has since the path began.
    pub(crate) acknowledged: Option<Instant>,
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
