//! The joins under way: how many of one source and in all there may be, and that a key waits once.

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
pub(crate) struct Waits(Mutex<Ways>);

#[derive(Debug, Default)]
struct Ways {
    all: usize,
    by_source: HashMap<IpAddr, usize>,
    by_key: HashMap<KeyFingerprint, CancellationToken>,
}

/// One join's place; it is free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    waits: Arc<Waits>,
    source: IpAddr,
}

/// A key's one wait, until the next with the same key begins or it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    waits: Arc<Waits>,
    key: KeyFingerprint,
    passed_on: CancellationToken,
}

/// Why a join has no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WaitsFull {
    #[error("too many joins are under way; try again later")]
    All,
    #[error("too many joins from this address are under way; try again later")]
    Source,
    /// The registry's caps.
    #[error("too many agents wait; try again later")]
    Agents,
}

impl WaitsFull {
    /// What metrics and audit events call it.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::All => Outcome::JoinsFull,
            Self::Source => Outcome::JoinsOfSourceFull,
            Self::Agents => Outcome::WaitingAgentsFull,
        }
    }
}

impl Waits {
    /// A place for a join from `source`.
    pub(crate) fn enter(self: &Arc<Self>, source: IpAddr) -> Result<Place, WaitsFull> {
        let source = registry::source(source);
        let mut ways = self.0.lock();
        if ways.all >= ALL {
            return Err(WaitsFull::All);
        }
        let of_source = ways.by_source.entry(source).or_default();
        if *of_source >= OF_ONE_SOURCE {
            return Err(WaitsFull::Source);
        }
        *of_source += 1;
        ways.all += 1;
        Ok(Place { waits: self.clone(), source })
    }

    /// Begins the one wait of `key`; the one before it ends.
    pub(crate) fn take_turn(self: &Arc<Self>, key: KeyFingerprint) -> Turn {
        let passed_on = CancellationToken::new();
        if let Some(earlier) = self.0.lock().by_key.insert(key, passed_on.clone()) {
            earlier.cancel();
        }
        Turn { waits: self.clone(), key, passed_on }
    }
}

impl Turn {
    /// Resolves when another join with this key has begun to wait.
    pub(crate) async fn passed_on(&self) {
        self.passed_on.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut ways = self.waits.0.lock();
        ways.all -= 1;
        if let Entry::Occupied(mut of_source) = ways.by_source.entry(self.source) {
            *of_source.get_mut() -= 1;
            if *of_source.get() == 0 {
                of_source.remove();
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut ways = self.waits.0.lock();
        // One that was passed on is another's by now.
        if !self.passed_on.is_cancelled() {
            ways.by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_leaves_room_for_others_and_what_ends_makes_room() {
        let waits = Arc::new(Waits::default());
        let source = |n: u8| IpAddr::from([192, 0, 2, n]);
        let mut places: Vec<_> = (0..OF_ONE_SOURCE).map(|_| waits.enter(source(1)).unwrap()).collect();
        assert_eq!(waits.enter(source(1)).unwrap_err(), WaitsFull::Source);
        assert!(waits.enter(source(2)).is_ok());
        places.pop();
        assert!(waits.enter(source(1)).is_ok());
        drop(places);
        assert!(waits.0.lock().by_source.is_empty() && waits.0.lock().all == 0);
    }

    #[test]
    fn a_key_waits_once() {
        let waits = Arc::new(Waits::default());
        let key = format!("sha256:{:064x}", 1).parse().unwrap();
        let (first, second) = (waits.take_turn(key), waits.take_turn(key));
        assert!(first.passed_on.is_cancelled() && !second.passed_on.is_cancelled());
        drop(first);
        assert_eq!(waits.0.lock().by_key.len(), 1);
        drop(second);
        assert!(waits.0.lock().by_key.is_empty());
    }
}
