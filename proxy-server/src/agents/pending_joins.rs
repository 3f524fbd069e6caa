//! Pending joins: their limits, in all and for each source, and that each key waits once.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use certs::KeyFingerprint;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::outcome::Outcome;

/// Joins under way at a time: each holds a connection.
const ALL: usize = 4096;

/// Of these, of one source: as many agents as may wait from there, and as many again that are refused at this moment.
const OF_ONE_SOURCE: usize = 128;

/// The joins under way.
#[derive(Debug, Default)]
pub(crate) struct PendingJoins(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
    by_key: HashMap<KeyFingerprint, CancellationToken>,
}

/// One join's place; it is free again when dropped.
#[derive(Debug)]
pub(crate) struct JoinSlot {
    joins: Arc<PendingJoins>,
    source: IpAddr,
}

/// A key's one wait, until the next with the same key begins or it is dropped.
#[derive(Debug)]
pub(crate) struct KeyGuard {
    joins: Arc<PendingJoins>,
    key: KeyFingerprint,
    passed_on: CancellationToken,
}

/// Why a join has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PendingJoinsFull {
    #[error("too many joins are under way; try again later")]
    All,
    #[error("too many joins from this address are under way; try again later")]
    Source,
    /// The registry's caps.
    #[error("too many agents wait; try again later")]
    Agents,
}

impl PendingJoinsFull {
    /// What metrics and audit events call it.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::All => Outcome::JoinsFull,
            Self::Source => Outcome::JoinsOfSourceFull,
            Self::Agents => Outcome::WaitingAgentsFull,
        }
    }
}

impl PendingJoins {
    /// A place for a join from `source`.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Result<JoinSlot, PendingJoinsFull> {
        let source = registry::source(source);
        let mut counts = self.0.lock();
        if counts.all >= ALL {
            return Err(PendingJoinsFull::All);
        }
        let of_source = counts.by_source.entry(source).or_default();
        if *of_source >= OF_ONE_SOURCE {
            return Err(PendingJoinsFull::Source);
        }
        *of_source += 1;
        counts.all += 1;
        Ok(JoinSlot { joins: self.clone(), source })
    }

    /// Begins the one wait of `key`; the one before it ends.
    pub(crate) fn take_turn(self: &Arc<Self>, key: KeyFingerprint) -> KeyGuard {
        let passed_on = CancellationToken::new();
        if let Some(earlier) = self.0.lock().by_key.insert(key, passed_on.clone()) {
            earlier.cancel();
        }
        KeyGuard { joins: self.clone(), key, passed_on }
    }
}

impl KeyGuard {
    /// Resolves when another join with this key has begun to wait.
    pub(crate) async fn passed_on(&self) {
        self.passed_on.cancelled().await;
    }
}

impl Drop for JoinSlot {
    fn drop(&mut self) {
        let mut counts = self.joins.0.lock();
        counts.all -= 1;
        if let Entry::Occupied(mut of_source) = counts.by_source.entry(self.source) {
            *of_source.get_mut() -= 1;
            if *of_source.get() == 0 {
                of_source.remove();
            }
        }
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        let mut counts = self.joins.0.lock();
        // One that was passed on is another's by now.
        if !self.passed_on.is_cancelled() {
            counts.by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_leaves_room_for_others_and_what_ends_makes_room() {
        let joins = Arc::new(PendingJoins::default());
        let source = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut places: Vec<_> = (0..OF_ONE_SOURCE).map(|_| joins.enter(source(1)).unwrap()).collect();
        assert_eq!(joins.enter(source(1)).unwrap_err(), PendingJoinsFull::Source);
        assert!(joins.enter(source(2)).is_ok());
        places.pop();
        assert!(joins.enter(source(1)).is_ok());
        drop(places);
        assert!(joins.0.lock().by_source.is_empty() && joins.0.lock().all == 0);
    }

    #[test]
    fn a_key_waits_once() {
        let joins = Arc::new(PendingJoins::default());
        let key = format!("sha256:{:064x}", 1).parse().unwrap();
        let (first, second) = (joins.take_turn(key), joins.take_turn(key));
        assert!(first.passed_on.is_cancelled() && !second.passed_on.is_cancelled());
        drop(first);
        assert_eq!(joins.0.lock().by_key.len(), 1);
        drop(second);
        assert!(joins.0.lock().by_key.is_empty());
    }
}
