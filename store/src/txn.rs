//! The transaction: what must hold, and what to change if it does.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::CommitError;

/// The number of a commit: 0 is before the first, and each transaction that changes something has a larger one. In a file
/// it is larger by one; in etcd, whose numbers these are, by one or more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A value and the revisions that made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    pub value: T,
    /// When the key came into being; a key deleted and put again is created anew.
    pub created: Revision,
    /// When the value was last put: what [`Txn::expect`] compares.
    pub modified: Revision,
}

/// Preconditions and changes, applied together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Key, and the modification revision it must have; `None` for absent.
    pub(super) preconditions: Vec<(String, Option<Revision>)>,
    /// Key, and its new value; `None` deletes.
    pub(super) changes: BTreeMap<String, Option<Vec<u8>>>,
}

/// Longest key, in bytes: a Kubernetes path (group, resource, namespace, name) with room to spare.
const MAX_KEY: usize = 1024;
/// All keys and values of a transaction, in bytes: etcd's limit (`--max-request-bytes`), so that what is stored here also
/// fits there.
const MAX_BYTES: usize = 1_536 * 1024;
/// What etcd needs for each operation beside its key and value, with the prefix before every key.
const OPERATION_BYTES: usize = 192;
/// Preconditions or changes in one transaction: etcd's limit (`--max-txn-ops`), less one for the store's own marker.
const MAX_OPERATIONS: usize = 127;

impl Txn {
    pub fn new() -> Self {
        Self::default()
    }

    /// Requires that `key` was last put at `revision`.
    pub fn expect(mut self, key: impl Into<String>, revision: Revision) -> Self {
        self.preconditions.push((key.into(), Some(revision)));
        self
    }

    /// Requires that `key` does not exist.
    pub fn expect_absent(mut self, key: impl Into<String>) -> Self {
        self.preconditions.push((key.into(), None));
        self
    }

    /// Sets `key`. The last change of a key wins.
    pub fn put(mut self, key: impl Into<String>, value: Vec<u8>) -> Self {
        self.changes.insert(key.into(), Some(value));
        self
    }

    /// Removes `key`; does nothing if it does not exist.
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.changes.insert(key.into(), None);
        self
    }

    pub(super) fn check_size(&self) -> Result<(), CommitError> {
        let keys = self.preconditions.iter().map(|(key, _)| key).chain(self.changes.keys());
        for key in keys {
            within("a key", key.len(), MAX_KEY)?;
        }
        let preconditions = self.preconditions.iter().map(|(key, _)| key.len());
        let changes = self.changes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Vec::len));
        let bytes = preconditions.chain(changes).map(|bytes| bytes + OPERATION_BYTES).sum::<usize>();
        within("what a transaction writes", bytes, MAX_BYTES)?;
        within("the list of preconditions", self.preconditions.len(), MAX_OPERATIONS)?;
        within("the list of changes", self.changes.len(), MAX_OPERATIONS)
    }

    /// The first precondition that does not hold for what is `found` at the keys.
    pub(super) fn conflict<'a, T: 'a>(&self, found: impl Fn(&str) -> Option<&'a Versioned<T>>) -> Option<CommitError> {
        self.preconditions.iter().find_map(|(key, expected)| {
            let found = found(key).map(|versioned| versioned.modified);
            (found != *expected).then(|| CommitError::Conflict { key: key.clone(), expected: *expected, found })
        })
    }

    /// Whether both look at or change the same key.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let touches = |key: &String| {
            other.changes.contains_key(key) || other.preconditions.iter().any(|(precondition, _)| precondition == key)
        };
        self.changes.keys().chain(self.preconditions.iter().map(|(key, _)| key)).any(touches)
    }
}

impl Revision {
    /// The empty store.
    pub const ZERO: Self = Self(0);

    pub(super) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn within(what: &str, found: usize, limit: usize) -> Result<(), CommitError> {
    if found > limit {
        return Err(CommitError::TooLarge { what: what.to_owned(), found, limit });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_refused_before_it_is_too_large_for_etcd() {
        let rest = MAX_BYTES - 2 * OPERATION_BYTES - 1 - MAX_KEY;
        let fits = Txn::new().put("k", vec![0; rest]).expect_absent("k".repeat(MAX_KEY));
        assert!(fits.check_size().is_ok());
        for large in [
            Txn::new().put("k", vec![0; rest + 1]).expect_absent("k".repeat(MAX_KEY)),
            Txn::new().delete("k".repeat(MAX_KEY + 1)),
            Txn::new().expect("k".repeat(MAX_KEY + 1), Revision::ZERO),
            (0..=MAX_OPERATIONS).fold(Txn::new(), |txn, i| txn.delete(i.to_string())),
            (0..=MAX_OPERATIONS).fold(Txn::new(), |txn, i| txn.expect_absent(i.to_string())),
        ] {
            assert!(matches!(large.check_size(), Err(CommitError::TooLarge { .. })));
        }
    }
}
