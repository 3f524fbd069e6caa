//! How one hub follows another, and how it stops, step by step: it serves until the last moment, or until another hub serves in its
//! place.

use std::{io, net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use registry::Presence;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tunnel::{CloseReason, Steering};

use super::{CUT_TIMEOUT, Hub, Phases};
use crate::{
    hub::feed,
    hub::layout::Layout,
    hub::ports::ENDING,
    hub::succession::{Flag, LOOK, RaisedFlag},
};

/// How long clients that came at the very end may take to be answered.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

impl Hub {
    /// What is to be done for as long as the hub before this one drains, and what the next one needs to know.
    pub(super) fn spawn_succession(&mut self, steering: Steering, tcp: Vec<(SocketAddr, u16)>) {
        let (tunnel, share) = (self.addresses.tunnel, steering.share());
        self.layout = Some(Layout { tcp, tunnel, share });
        let (registry, folder, before) = (self.registry.clone(), self.config.state.clone(), self.before.clone());
        let (tunnels, drain, end) = (self.proxy.tunnels.clone(), self.phases.drain.clone(), self.phases.end.clone());
        let revoked = self.api.rotation.revoked.clone();
        self.phases.others.spawn(async move {
            if let Some(before) = before {
                tokio::select! {
                    () = feed::publish(&registry, &tunnels, &revoked, &folder) => {}
                    () = end.cancelled() => return,
                }
                if let Err(error) = steering.settle() {
                    tracing::warn!(%error, "agents of the hub before this one find out by their keep-alive");
                }
                before.cancel();
            }
            tokio::select! {
                () = drain.cancelled() => steering.make_room(),
                () = end.cancelled() => {}
            }
            // The kernel steers for as long as the port is open.
            end.cancelled().await;
            drop(steering);
        });
    }

    /// The hub before this one may end.
    pub(super) fn tell_that_it_serves(&mut self) {
        if let Err(error) = Layout::take_away(&self.config.state) {
            tracing::warn!(%error, "the hub before this one does not hear that this one serves, and drains to its end");
        }
        self.successor = None;
    }

    /// The readiness is off by now.
    pub(super) async fn stop(mut self, abort: CancellationToken) {
        let Phases { drain, closed, .. } = self.phases.clone();
        let (deadline, before) = (Instant::now() + self.config.drain_timeout, self.proxy.connections.next());
        tracing::info!(connections = self.proxy.connections.count(), "stopping");
        // 1. Connections may end by themselves, up to the deadline. New ones, and agents, go to the next hub once it serves, and
        //    until then are served here.
        let drained = tokio::select! {
            () = self.drained(&abort) => true,
            () = sleep_until(deadline) => false,
            () = abort.cancelled() => false,
        };
        // 2. The rest is cut, but for who has come since; agents look for another hub; no client is accepted any more, and idle ones are let go.
        if !drained {
            let cut = self.proxy.connections.cut_before(before);
            tracing::warn!(cut, "cut the connections that were left");
        }
        // A hub that binds its ports beside this one's counts on where these are.
        match Flag::Closing.raise_within(&self.config.state, ENDING).await {
            Ok(closing) => closing.into_iter().for_each(RaisedFlag::keep_to_the_end),
            Err(error) => tracing::warn!(%error, "a hub that starts now may take this one's ports for open"),
        }
        drain.cancel();
        closed.cancel();
        self.finish(if drained { deadline } else { Instant::now() }.max(Instant::now() + LAST_ANSWERS), abort).await;
    }

    /// Resolves when nobody is connected. Where another hub waits, it gets the registry first, and serves then.
    async fn drained(&mut self, abort: &CancellationToken) {
        let folder = self.config.state.clone();
        let idle = async |hub: &Self| {
            while hub.proxy.connections.count() > 0 {
                sleep(LOOK).await;
            }
        };
        let mut failing = None;
        loop {
            let nobody = async {
                while self.proxy.connections.count() > 0 || Flag::Successor.stands(&folder) {
                    sleep(LOOK).await;
                }
            };
            tokio::select! {
                biased;
                () = Flag::Successor.raised(&folder) => {}
                () = nobody => return,
            }
            self.turn().await;
            if !Flag::Successor.stands(&folder) {
                continue;
            }
            let Err(error) = self.hand_over(abort).await else { break };
            // What is wanting may be back before the deadline: descriptors, room on the disk.
            let since = *failing.get_or_insert_with(|| {
                tracing::warn!(%error, "the next hub cannot listen beside this one yet, and waits for its end");
                Instant::now()
            });
            if self.proxy.connections.count() == 0 && since.elapsed() >= ENDING {
                return;
            }
            sleep(LOOK).await;
        }
        // Others may wait for the folder, too: that one serves is told by what it takes.
        Layout::taken(&folder).await;
        tracing::info!(connections = self.proxy.connections.count(), "another hub serves here now; draining");
        self.phases.drain.cancel();
        self.phases.leave.cancel();
        // Who was accepted here at the very end asks now; it was connected before the other hub served.
        tokio::join!(idle(self), sleep(LAST_ANSWERS));
    }

    /// Waits until the hub before this one has ended.
    async fn turn(&self) {
        // One at a time: a third process could not tell the sockets of the first from those of this one.
        Flag::Former.lowered(&self.config.state).await;
        if let Some(before) = &self.before {
            // Raised before, this one's sign would be taken for that of the other one.
            before.cancelled().await;
        }
    }

    /// Lets go of the state folder. Questions are answered from memory from now on, which follows the next hub's changes, and those
    /// that are to be made here are refused. An error where the next hub could not be told how to listen: nothing has changed then.
    async fn hand_over(&mut self, abort: &CancellationToken) -> io::Result<()> {
        let folder = &self.config.state;
        // The next hub takes this one for ended where the sign does not stand.
        let handed_over = Flag::Former.raise_within(folder, 10 * LOOK).await?.ok_or(io::ErrorKind::WouldBlock)?;
        if let Some(layout) = &self.layout {
            layout.write(folder)?;
        }
        self.phases.handover.cancel();
        self.handed_over = Some(handed_over);
        // The tunnels here live on: the next hub must not reset them.
        self.hints().clear();
        record(&self.presence).await;
        self.registry.release().await;
        let (registry, tunnels) = (self.registry.clone(), self.proxy.tunnels.clone());
        let following = feed::follow(registry, tunnels, folder.clone(), abort.clone());
        let end = self.phases.end.clone();
        self.phases.others.spawn(async move { end.run_until_cancelled(following).await });
        self.folder_lock = None;
        tracing::info!("another hub waits for the state folder, and has it now");
        Ok(())
    }

    /// Ends clients by `deadline`, and then everything else.
    async fn finish(self, deadline: Instant, abort: CancellationToken) {
        let (hints, audit) = (self.hints(), self.audit());
        let Self { config, registry, presence, proxy, listeners, workers, phases, handed_over, .. } = self;
        let Phases { leave, end, clients, others, .. } = phases;
        leave.cancel();
        clients.close();
        let ended = tokio::select! {
            ended = timeout_at(deadline, clients.wait()) => ended.is_ok(),
            () = abort.cancelled() => false,
        };
        if !ended {
            let cut = proxy.connections.shut();
            tracing::warn!(cut, "cut the connections that were left");
            let _ = timeout(CUT_TIMEOUT, clients.wait()).await;
        }
        // 3. This is the end for everything else, and agents hear of it.
        end.cancel();
        let closing = listeners
            .iter()
            .map(|listener| listener.close(CloseReason::HubStopping, "the hub is stopping", CUT_TIMEOUT));
        join_all(closing).await;
        if handed_over.is_none() {
            hints.clear();
        }
        others.close();
        if timeout(CUT_TIMEOUT, others.wait()).await.is_err() {
            tracing::warn!(tasks = others.len(), "some tasks did not end in time");
        }
        // 4. The registry finishes writing, who has left among it; what happens after a handover is the next hub's to write.
        if handed_over.is_none() {
            record(&presence).await;
        }
        registry.close().await;
        if handed_over.is_none() {
            for socket in &config.proxy_sockets {
                // Left behind, the next start would have to tell it from one in use.
                let _ = std::fs::remove_file(&socket.path);
            }
        }
        workers.stop().await;
        // 5. What was recorded is written.
        audit.close().await;
        tracing::info!("stopped");
    }
}

/// Has the registry know which agents are there, and which have left.
async fn record(presence: &Presence) {
    if !matches!(timeout(CUT_TIMEOUT, presence.write()).await, Ok(Ok(()))) {
        tracing::warn!("could not record in time which agents were there to the end");
    }
}
