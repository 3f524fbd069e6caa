//! Caps on connections, per cluster and per user: how many may be open, and how many of them may still be dialling.

pub(crate) mod bodies;
pub(crate) mod descriptors;
pub(crate) mod lobby;
pub(crate) mod rates;
pub(crate) mod shares;
pub(crate) mod source;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use clap::Args;
use dashmap::DashMap;
use process::settings::value;

use crate::proxy::caller::Caller;

/// The caps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Caps {
    /// Connections to one cluster at a time
    // Dialling ones included. An agent allows 4096 streams in one tunnel (tunnel/src/transport.rs); leave it some room.
    #[arg(long = "max-connections-per-cluster", value_name = "N", default_value = "4000", value_parser = value::count)]
    pub connections_per_cluster: usize,
    /// Unanswered dials to one cluster at a time
    // A dial takes at most 10 s: a cluster that answers nothing holds no more than this.
    #[arg(long = "max-pending-per-cluster", value_name = "N", default_value = "1024", value_parser = value::count)]
    pub pending_per_cluster: usize,
    /// Connections of one user at a time
    // As many clusters as that can a user fill its part of.
    #[arg(long = "max-connections-per-user", value_name = "N", default_value = "8000", value_parser = value::count)]
    pub connections_per_user: usize,
    /// Unanswered dials of one user at a time
    #[arg(long = "max-pending-per-user", value_name = "N", default_value = "2048", value_parser = value::count)]
    pub pending_per_user: usize,
    /// Connections of one user to one cluster at a time
    // A quarter of the cluster's: one user, or three, leave room for others.
    #[arg(long = "max-connections-per-user-per-cluster", value_name = "N", default_value = "1000", value_parser = value::count)]
    pub connections_per_user_per_cluster: usize,
    /// Unanswered dials of one user to one cluster at a time
    // Half: a client with hundreds of connections makes them at once, and who dials what does not answer leaves as much.
    #[arg(long = "max-pending-per-user-per-cluster", value_name = "N", default_value = "512", value_parser = value::count)]
    pub pending_per_user_per_cluster: usize,
}

/// Counts against the caps.
#[derive(Debug)]
pub(crate) struct Limits {
    caps: Caps,
    clusters: DashMap<Arc<str>, Arc<Count>>,
    users: DashMap<Arc<str>, Arc<Count>>,
    /// By cluster, then user.
    pairs: DashMap<(Arc<str>, Arc<str>), Arc<Count>>,
    /// How many pairs there may be before those without a connection are looked for.
    sweep: AtomicUsize,
}

/// Pairs that are kept before the first look for those without a connection.
const SWEEP: usize = 1024;

#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    pending: AtomicUsize,
}

/// The place of one connection; gives it back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    /// Of the cluster, of the user, and of the two together.
    counts: Vec<Arc<Count>>,
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
    UserInCluster,
}

impl Limits {
    pub(crate) fn new(caps: Caps) -> Self {
        let (clusters, users, pairs) = (DashMap::new(), DashMap::new(), DashMap::new());
        Self { caps, clusters, users, pairs, sweep: AtomicUsize::new(SWEEP) }
    }

    /// A place for one more connection of `caller` to `cluster`, dialling at first.
    ///
    /// Whoever comes by the hub's Unix socket may fill a cluster: that is one API server with all its users.
    pub(crate) fn admit(&self, cluster: &str, caller: &Caller) -> Result<Permit, Overload> {
        let (caps, user) = (&self.caps, caller.name());
        // What was taken is given back when it is dropped.
        let mut permit = Permit { counts: Vec::with_capacity(3), dialling: true };
        let (open, pending) = (caps.connections_per_cluster, caps.pending_per_cluster);
        permit.counts.push(count(&self.clusters, cluster).enter(Of::Cluster, open, pending)?);
        let (open, pending) = (caps.connections_per_user, caps.pending_per_user);
        permit.counts.push(count(&self.users, &user).enter(Of::User, open, pending)?);
        if let Caller::User(_) = caller {
            let (open, pending) = (caps.connections_per_user_per_cluster, caps.pending_per_user_per_cluster);
            permit.counts.push(self.pair(cluster, &user).enter(Of::UserInCluster, open, pending)?);
        }
        Ok(permit)
    }

    /// The count of a user's connections to a cluster. There could be as many as users times clusters: those without a connection
    /// do not stay.
    fn pair(&self, cluster: &str, user: &str) -> Arc<Count> {
        if self.pairs.len() >= self.sweep.load(Ordering::Relaxed) {
            self.pairs.retain(|_, count| Arc::strong_count(count) > 1);
            self.sweep.store(SWEEP.max(2 * self.pairs.len()), Ordering::Relaxed);
        }
        self.pairs.entry((cluster.into(), user.into())).or_default().clone()
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
        let (whose, place, flag) = match self.of {
            Of::Cluster => ("the cluster", "", "cluster"),
            Of::User => ("the user", "", "user"),
            Of::UserInCluster => ("the user", " to this cluster", "user-per-cluster"),
        };
        let (what, flag_what) =
            if self.pending { ("dials without an answer", "pending") } else { ("connections", "connections") };
        write!(
            f,
            "{whose} has {} {what}{place}, its cap; close some, or raise --max-{flag_what}-per-{flag} at the hub",
            self.cap
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps {
        connections_per_cluster: 3,
        pending_per_cluster: 2,
        connections_per_user: 4,
        pending_per_user: 4,
        connections_per_user_per_cluster: 3,
        pending_per_user_per_cluster: 2,
    };

    fn user(name: &str) -> Caller {
        let user = serde_json::json!({"name": name, "tokens": [], "createdAt": "2026-01-01T00:00:00Z"});
        let pin = format!("sha256:{:064x}", 1).parse().unwrap();
        Caller::User(registry::Login::by_certificate(Arc::new(serde_json::from_value(user).unwrap()), pin))
    }

    #[test]
    fn a_cap_refuses_the_next_and_a_dropped_permit_makes_room() {
        let limits = Limits::new(CAPS);
        let user = user("u");
        let mut first = limits.admit("c", &user).unwrap();
        let mut second = limits.admit("c", &user).unwrap();
        let pending = limits.admit("c", &user).unwrap_err();
        assert_eq!(pending, Overload { of: Of::Cluster, pending: true, cap: 2 });
        first.dialled();
        second.dialled();
        let third = limits.admit("c", &user).unwrap();
        let full = limits.admit("c", &user).unwrap_err();
        assert_eq!(full, Overload { of: Of::Cluster, pending: false, cap: 3 });
        drop(third);
        limits.admit("c", &user).unwrap();
    }

    #[test]
    fn a_users_cap_holds_over_all_clusters_and_costs_the_cluster_nothing() {
        let limits = Limits::new(CAPS);
        let _held: Vec<_> = ["a", "b", "c", "d"].map(|cluster| limits.admit(cluster, &user("u")).unwrap()).into();
        for _ in 0..10 {
            assert_eq!(limits.admit("e", &user("u")).unwrap_err().of, Of::User);
        }
        let _one = limits.admit("e", &user("v")).unwrap();
        let _two = limits.admit("e", &user("v")).unwrap();
    }

    #[test]
    fn one_user_leaves_room_in_a_cluster_for_others_and_a_socket_is_everybody() {
        let caps = Caps { connections_per_user_per_cluster: 1, ..CAPS };
        let limits = Limits::new(caps);
        let held = limits.admit("a", &user("u")).unwrap();
        for _ in 0..10 {
            assert_eq!(limits.admit("a", &user("u")).unwrap_err().of, Of::UserInCluster);
        }
        let elsewhere = limits.admit("b", &user("u")).unwrap();
        let mut other = limits.admit("a", &user("v")).unwrap();
        other.dialled();
        drop(held);
        let socket = limits.admit("a", &Caller::Socket { uid: 0 }).unwrap();
        drop((elsewhere, other));
        let _second = limits.admit("a", &Caller::Socket { uid: 0 }).unwrap();
        drop(socket);
    }

    #[test]
    fn users_without_a_connection_are_forgotten() {
        let limits = Limits::new(CAPS);
        for number in 0..4 * SWEEP {
            limits.admit(&format!("c{number}"), &user("u")).unwrap();
        }
        assert!(limits.pairs.len() <= SWEEP);
    }
}
