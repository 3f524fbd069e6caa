//! The live proxied connections: each can be cut when the right it was opened with goes.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use certs::ClusterName;
use dashmap::DashMap;
use tokio_util::sync::CancellationToken;

use crate::caller::Caller;

/// Every live connection, dialling ones included.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    live: DashMap<u64, Live>,
    next: AtomicU64,
    /// No more are served.
    shut: AtomicBool,
}

#[derive(Debug)]
struct Live {
    caller: Caller,
    cluster: ClusterName,
    cut: CancellationToken,
}

/// A connection's entry; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    connections: Arc<Connections>,
    id: u64,
    cut: CancellationToken,
}

impl Connections {
    /// Adds a connection of `caller` to `cluster`.
    pub(crate) fn enter(self: &Arc<Self>, caller: Caller, cluster: ClusterName) -> Entry {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let cut = CancellationToken::new();
        self.live.insert(id, Live { caller, cluster, cut: cut.clone() });
        if self.shut.load(Ordering::SeqCst) {
            cut.cancel();
        }
        Entry { connections: self.clone(), id, cut }
    }

    /// Cuts every connection, those that are still to come, too; says how many there were.
    pub(crate) fn shut(&self) -> usize {
        self.shut.store(true, Ordering::SeqCst);
        self.retain(|_, _| false)
    }

    /// Cuts every connection that `keep` does not want to keep; says how many.
    pub(crate) fn retain(&self, keep: impl Fn(&Caller, &ClusterName) -> bool) -> usize {
        let mut cut = 0;
        for live in &self.live {
            if !keep(&live.caller, &live.cluster) {
                live.cut.cancel();
                cut += 1;
            }
        }
        cut
    }

    /// The number of the next connection.
    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Cuts every connection that came before that number; says how many.
    pub(crate) fn cut_before(&self, number: u64) -> usize {
        let before = self.live.iter().filter(|live| *live.key() < number);
        before.map(|live| live.cut.cancel()).count()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.live.len()
    }
}

impl Entry {
    /// Cancelled when the connection must end now.
    pub(crate) fn cut(&self) -> &CancellationToken {
        &self.cut
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.connections.live.remove(&self.id);
    }
}
