//! The live proxied connections: each can be cut when the right it was opened with goes.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use certs::ClusterName;
use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

use crate::proxy::caller::Caller;

/// Every live connection, dialling ones included.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    live: DashMap<u64, Live>,
    next: AtomicU64,
    /// No more are served.
    shut: AtomicBool,
}

/// Why a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cut {
    #[error("the right to this connection was withdrawn")]
    Withdrawn,
    #[error("the hub is stopping; try again, which reaches the next one")]
    Stopping,
}

/// Told to a connection that is to end.
#[derive(Clone, Debug, Default)]
struct Cutter {
    token: CancellationToken,
    why: Arc<OnceLock<Cut>>,
}

#[derive(Debug)]
struct Live {
    caller: Caller,
    cluster: ClusterName,
    cutter: Cutter,
}

/// A connection's entry; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    connections: Arc<Connections>,
    id: u64,
    cutter: Cutter,
}

impl Connections {
    /// Adds a connection of `caller` to `cluster`.
    pub(crate) fn enter(self: &Arc<Self>, caller: Caller, cluster: ClusterName) -> Entry {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let cutter = Cutter::default();
        self.live.insert(id, Live { caller, cluster, cutter: cutter.clone() });
        if self.shut.load(Ordering::SeqCst) {
            cutter.cut(Cut::Stopping);
        }
        Entry { connections: self.clone(), id, cutter }
    }

    /// Cuts every connection, those that are still to come, too; says how many there were.
    pub(crate) fn shut(&self) -> usize {
        self.shut.store(true, Ordering::SeqCst);
        self.live.iter().map(|live| live.cutter.cut(Cut::Stopping)).count()
    }

    /// Cuts every connection whose right `keep` does not find any more; says how many.
    pub(crate) fn retain(&self, keep: impl Fn(&Caller, &ClusterName) -> bool) -> usize {
        let mut cut = 0;
        for live in &self.live {
            if !keep(&live.caller, &live.cluster) {
                live.cutter.cut(Cut::Withdrawn);
                cut += 1;
            }
        }
        cut
    }

    /// The number of the next connection.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Cuts every connection that came before that number, as the hub stops; says how many.
    pub(crate) fn cut_before(&self, number: u64) -> usize {
        let before = self.live.iter().filter(|live| *live.key() < number);
        before.map(|live| live.cutter.cut(Cut::Stopping)).count()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.live.len()
    }
}

impl Cutter {
    fn cut(&self, why: Cut) {
        // The first reason stands.
        let _ = self.why.set(why);
        self.token.cancel();
    }
}

impl Entry {
    /// Resolves when the connection must end now.
    pub(crate) async fn cut(&self) -> Cut {
        self.cutter.token.cancelled().await;
        // It is set before anybody is told.
        self.cutter.why.get().copied().unwrap_or(Cut::Stopping)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.live.remove(&self.id);
    }
}
