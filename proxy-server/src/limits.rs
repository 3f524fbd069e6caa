//! Caps on connections, per cluster and per user: how many may be open, and how many of them may still be dialling.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;

/// The caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Connections to one cluster, dialling ones included.
    pub connections_per_cluster: usize,
    /// Dials to one cluster that have no answer yet.
    pub pending_per_cluster: usize,
    /// Connections of one user, dialling ones included.
    pub connections_per_user: usize,
    /// Dials of one user that have no answer yet.
    pub pending_per_user: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            // An agent allows 4096 streams in one tunnel (tunnel/src/transport.rs); leave it some room.
            connections_per_cluster: 4000,
            // A dial takes at most 10 s: a cluster that answers nothing holds no more than this.
            pending_per_cluster: 1024,
            connections_per_user: 8000,
            pending_per_user: 2048,
        }
    }
}

/// Counts against the caps.
#[derive(Debug)]
pub(crate) struct Limits {
    caps: Caps,
    clusters: DashMap<Arc<str>, Arc<Count>>,
    users: DashMap<Arc<str>, Arc<Count>>,
}

#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    pending: AtomicUsize,
}

/// The place of one connection; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    counts: [Arc<Count>; 2],
    dialling: bool,
}

/// A cap is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overload {
    pub(crate) of: Of,
    pub(crate) pending: bool,
    pub(crate) cap: usize,
}

/// Whose cap it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Cluster,
    User,
}

impl Limits {
    pub(crate) fn new(caps: Caps) -> Self {
        Self { caps, clusters: DashMap::new(), users: DashMap::new() }
    }

    /// A place for one more connection of `user` to `cluster`, dialling at first.
    pub(crate) fn admit(&self, cluster: &str, user: &str) -> Result<Permit, Overload> {
        let caps = &self.caps;
        let cluster = count(&self.clusters, cluster);
        let user = count(&self.users, user);
        // Each step is undone by dropping what was taken before it.
        let cluster = cluster.enter(Of::Cluster, caps.connections_per_cluster, caps.pending_per_cluster)?;
        match user.enter(Of::User, caps.connections_per_user, caps.pending_per_user) {
            Ok(user) => Ok(Permit { counts: [cluster, user], dialling: true }),
            Err(overload) => {
                cluster.leave(true);
                Err(overload)
            }
        }
    }
}

fn count(counts: &DashMap<Arc<str>, Arc<Count>>, name: &str) -> Arc<Count> {
    if let Some(count) = counts.get(name) {
        return count.clone();
    }
    counts.entry(name.into()).or_default().clone()
}

impl Count {
    fn enter(self: Arc<Self>, of: Of, open: usize, pending: usize) -> Result<Arc<Self>, Overload> {
        take(&self.open, open).map_err(|cap| Overload { of, pending: false, cap })?;
        if let Err(cap) = take(&self.pending, pending) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Overload { of, pending: true, cap });
        }
        Ok(self)
    }

    fn leave(&self, dialling: bool) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if dialling {
            self.pending.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn take(count: &AtomicUsize, cap: usize) -> Result<usize, usize> {
    let more = |count: usize| (count < cap).then_some(count + 1);
    count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).map_err(|_| cap)
}

impl Permit {
    /// The dial has its answer.
    pub(crate) fn dialled(&mut self) {
        if std::mem::take(&mut self.dialling) {
            for count in &self.counts {
                count.pending.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for count in &self.counts {
            count.leave(self.dialling);
        }
    }
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whose, flag) = match self.of {
            Of::Cluster => ("the cluster", "cluster"),
            Of::User => ("the user", "user"),
        };
        let (what, flag_what) =
            if self.pending { ("dials without an answer", "pending") } else { ("connections", "connections") };
        write!(
            f,
            "{whose} has {} {what}, its cap; close some, or raise --max-{flag_what}-per-{flag} at the hub",
            self.cap
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps =
        Caps { connections_per_cluster: 3, pending_per_cluster: 2, connections_per_user: 4, pending_per_user: 4 };

    #[test]
    fn a_cap_refuses_the_next_and_a_dropped_permit_makes_room() {
        let limits = Limits::new(CAPS);
        let mut first = limits.admit("c", "u").unwrap();
        let mut second = limits.admit("c", "u").unwrap();
        let pending = limits.admit("c", "u").unwrap_err();
        assert_eq!(pending, Overload { of: Of::Cluster, pending: true, cap: 2 });
        first.dialled();
        second.dialled();
        let third = limits.admit("c", "u").unwrap();
        let full = limits.admit("c", "u").unwrap_err();
        assert_eq!(full, Overload { of: Of::Cluster, pending: false, cap: 3 });
        drop(third);
        limits.admit("c", "u").unwrap();
    }

    #[test]
    fn a_users_cap_holds_over_all_clusters_and_costs_the_cluster_nothing() {
        let limits = Limits::new(CAPS);
        let _held: Vec<_> = ["a", "b", "c", "d"].map(|cluster| limits.admit(cluster, "u").unwrap()).into();
        for _ in 0..10 {
            assert_eq!(limits.admit("e", "u").unwrap_err().of, Of::User);
        }
        let _one = limits.admit("e", "v").unwrap();
        let _two = limits.admit("e", "v").unwrap();
    }
}
