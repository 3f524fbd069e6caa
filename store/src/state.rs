//! The store's content in memory, and the pure decision what a group of transactions makes of it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::log::EventLog;
use super::{Commit, CommitError, Event, Revision, Txn, Versioned};

/// Every key with its value, and the log of the newest commits. Changed only by what is already on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    entries: BTreeMap<Arc<str>, Versioned<Arc<[u8]>>>,
    log: EventLog,
}

/// What a group of transactions will do, before any of it is done.
#[derive(Debug)]
pub(super) struct Staged {
    /// One answer for each transaction, in their order; it holds only if the group gets to disk.
    pub(super) answers: Vec<Result<Revision, CommitError>>,
    /// One for each transaction that changes something.
    pub(super) commits: Vec<Arc<Commit>>,
}

impl State {
    /// Puts together what was read from disk; `log` ends at the newest revision.
    pub(super) fn restored(entries: BTreeMap<Arc<str>, Versioned<Arc<[u8]>>>, log: EventLog) -> Self {
        Self { entries, log }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Versioned<Arc<[u8]>>> {
        self.entries.get(key)
    }

    pub(crate) fn list(&self, prefix: &str) -> Vec<(Arc<str>, Versioned<Arc<[u8]>>)> {
        self.entries
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, versioned)| (Arc::clone(key), versioned.clone()))
            .collect()
    }

    /// As [`Self::list`] was at `revision`; `None` when what came after it is no longer known.
    pub(super) fn list_at(&self, prefix: &str, revision: Revision) -> Option<Vec<(Arc<str>, Versioned<Arc<[u8]>>)>> {
        if revision < self.log.compacted() {
            return None;
        }
        let mut entries: BTreeMap<_, _> = self.list(prefix).into_iter().collect();
        for commit in self.log.since(revision) {
            for event in commit.events.iter().filter(|event| event.key.starts_with(prefix)) {
                match &event.before {
                    Some(before) => entries.insert(Arc::clone(&event.key), before.clone()),
                    None => entries.remove(&event.key),
                };
            }
        }
        Some(entries.into_iter().collect())
    }

    pub(super) fn revision(&self) -> Revision {
        self.log.newest()
    }

    pub(super) fn log(&self) -> &EventLog {
        &self.log
    }

    pub(super) fn log_mut(&mut self) -> &mut EventLog {
        &mut self.log
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&Arc<str>, &Versioned<Arc<[u8]>>)> {
        self.entries.iter()
    }

    /// Decides a group: each transaction sees the changes of those before it; one whose precondition fails changes
    /// nothing and leaves the others be.
    pub(super) fn stage<'a>(&self, group: impl Iterator<Item = &'a Txn>) -> Staged {
        let mut staging =
            Staging { state: self, changed: BTreeMap::new(), revision: self.revision(), commits: Vec::new() };
        let answers = group.map(|txn| staging.stage(txn)).collect();
        Staged { answers, commits: staging.commits }
    }

    /// The precondition of `txn` that does not hold.
    pub(super) fn conflict(&self, txn: &Txn) -> Option<CommitError> {
        txn.conflict(|key| self.get(key))
    }

    /// Takes over a commit that is on disk.
    pub(super) fn apply(&mut self, commit: &Arc<Commit>) {
        for event in &commit.events {
            match &event.after {
                Some(after) => self.entries.insert(Arc::clone(&event.key), after.clone()),
                None => self.entries.remove(&event.key),
            };
        }
        self.log.push(Arc::clone(commit));
    }
}

/// The state as it will be after the transactions staged so far.
struct Staging<'a> {
    state: &'a State,
    changed: BTreeMap<Arc<str>, Option<Versioned<Arc<[u8]>>>>,
    revision: Revision,
    commits: Vec<Arc<Commit>>,
}

impl Staging<'_> {
    fn stage(&mut self, txn: &Txn) -> Result<Revision, CommitError> {
        if let Some(conflict) = txn.conflict(|key| self.current(key)) {
            return Err(conflict);
        }
        let revision = self.revision.next();
        let events: Vec<Event> =
            txn.changes.iter().filter_map(|(key, value)| self.event(key, value.as_deref(), revision)).collect();
        if events.is_empty() {
            return Ok(self.revision);
        }
        for event in &events {
            self.changed.insert(Arc::clone(&event.key), event.after.clone());
        }
        self.revision = revision;
        self.commits.push(Arc::new(Commit { revision, events }));
        Ok(revision)
    }

    fn current(&self, key: &str) -> Option<&Versioned<Arc<[u8]>>> {
        match self.changed.get(key) {
            Some(changed) => changed.as_ref(),
            None => self.state.get(key),
        }
    }

    fn event(&self, key: &str, value: Option<&[u8]>, revision: Revision) -> Option<Event> {
        let before = self.current(key).cloned();
        let after = value.map(|value| Versioned {
            value: value.into(),
            created: before.as_ref().map_or(revision, |before| before.created),
            modified: revision,
        });
        // Deleting what is not there is no change.
        (after.is_some() || before.is_some()).then(|| Event { key: key.into(), after, before })
    }
}
