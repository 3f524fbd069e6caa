//! The watchdog of the tunnels: it ends those whose agent is silent, and those that a later start of the agent has replaced.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::{MissedTickBehavior, interval, sleep};
use tunnel::{LOOK, Look, REST};

use crate::tunnels::{Member, Tunnels};

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
                    tunnels.for_each(|member| {
                        look(member, now);
                        if member.next_look() + LOOK / 2 < all {
                            busy.push(Arc::downgrade(member));
                        }
                    });
                } else {
                    busy.iter().filter_map(Weak::upgrade).for_each(|member| look(&member, now));
                }
            }
            members = tunnels.doubted() => doubted.extend(members.into_iter().map(ask)),
            Some(()) = doubted.next() => {}
        }
    }
}

fn look(member: &Member, now: Instant) {
    match member.look(now) {
        Look::Well => {}
        Look::Ask => member.tunnel.nudge(),
        Look::Insist => member.tunnel.insist(),
        Look::Narrow => member.tunnel.begin_anew(),
        Look::Gone => member.close_silent("the agent has not been heard of for 15 s"),
    }
}

/// Ends the tunnel unless its agent gives a sign of life: replicas may share an identity, and hints may be forged.
async fn ask(member: Arc<Member>) {
    let before = member.tunnel.heard();
    member.tunnel.nudge();
    sleep((3 * member.tunnel.rtt() + SIGN).min(LONGEST_SIGN)).await;
    if member.tunnel.heard() == before {
        member.close_silent("the agent does not answer any more, and seems to have ended");
    }
}
