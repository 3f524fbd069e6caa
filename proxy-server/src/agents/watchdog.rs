//! The watchdog of the tunnels: it ends those whose agent is silent, and those that a later start of the agent has replaced.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tunnel::{LOOK, LivenessCheck, REST};

use crate::agents::tunnels::{LiveTunnel, Tunnels};

/// How long an agent that seems to be gone may take for a sign of life: three round trips, for one that is lost, and this.
const SIGN: Duration = Duration::from_millis(300);

/// However long the round trips were.
const LONGEST_SIGN: Duration = Duration::from_secs(5);

/// Watches for as long as it is polled. Most tunnels rest, and are looked at once a second.
pub(crate) async fn watch(tunnels: Arc<Tunnels>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut doubted, mut busy, mut all) = (FuturesUnordered::new(), Vec::new(), Instant::now());
    loop {
        tokio::select! {
            _ = looks.tick() => {
                let now = Instant::now();
                if now + LOOK / 2 >= all {
                    (all, busy) = (now + REST, Vec::new());
                    tunnels.for_each(|live| {
                        look(live, now);
                        if live.next_check() + LOOK / 2 < all {
                            busy.push(Arc::downgrade(live));
                        }
                    });
                } else {
                    busy.iter().filter_map(Weak::upgrade).for_each(|live| look(&live, now));
                }
            }
            members = tunnels.doubted() => doubted.extend(members.into_iter().map(probe)),
            Some(()) = doubted.next() => {}
        }
    }
}

fn look(live: &LiveTunnel, now: Instant) {
    match live.check_liveness(now) {
        LivenessCheck::Well => {}
        LivenessCheck::Ask => live.tunnel.nudge(),
        LivenessCheck::Insist => live.tunnel.insist(),
        LivenessCheck::Narrow => live.tunnel.begin_anew(),
        LivenessCheck::Gone => live.close_silent("the agent has not been heard of for 15 s"),
    }
}

/// Ends the tunnel unless its agent gives a sign of life: replicas may share an identity, and hints may be forged.
async fn probe(live: Arc<LiveTunnel>) {
    let before = live.tunnel.received_frames();
    live.tunnel.nudge();
    sleep((3 * live.tunnel.rtt() + SIGN).min(LONGEST_SIGN)).await;
    if live.tunnel.received_frames() == before {
        live.close_silent("the agent does not answer any more, and seems to have ended");
    }
}
