//! The watch of revocations: what was opened and is allowed no more is cut.

use std::time::Duration;

use jiff::Timestamp;
use registry::{Change, Registry};
use tokio::sync::broadcast::error::RecvError;

use crate::{agents::Agents, proxy::Proxy};

/// How soon connections are cut that were opened with a token that has ended since.
const LOOK_FOR_ENDS: Duration = Duration::from_secs(10);

/// Looks again at the tunnels and connections that a change of the registry concerns. (An agent's coming and going is a
/// change too: looking at all of them would make a restart with many agents costly.)
pub(crate) async fn watch(registry: &Registry, proxy: &Proxy, agents: &Agents) {
    let mut changes = registry.changes();
    let mut looks = tokio::time::interval(LOOK_FOR_ENDS);
    loop {
        let change = tokio::select! {
            change = changes.recv() => change,
            _ = looks.tick() => {
                let now = Timestamp::now();
                let cut = proxy.recheck(|caller, _| caller.has_ended(now));
                if cut > 0 {
                    tracing::info!(connections = cut, "cut what was opened with tokens that have ended");
                }
                continue;
            }
        };
        let (cut, closed) = match change {
            Ok(Change::Cluster(name)) => (proxy.recheck(|_, cluster| *cluster == name), agents.recheck(&name)),
            Ok(Change::User(name)) => (proxy.recheck(|caller, _| caller.is_user(&name)), 0),
            Ok(Change::Set(_) | Change::Rights(_)) => (proxy.recheck(|_, _| true), 0),
            // Nobody is connected by a join token.
            Ok(Change::Token(_)) => continue,
            Err(RecvError::Lagged(_)) => (proxy.recheck(|_, _| true), agents.recheck_all()),
            Err(RecvError::Closed) => return,
        };
        if cut + closed > 0 {
            tracing::info!(connections = cut, tunnels = closed, "cut what the registry allows no more");
        }
    }
}
