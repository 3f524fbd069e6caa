//! The event log: the newest commits, from which watches are served. Bounded in number and in bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Revision, Versioned};

/// What one transaction changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    pub revision: Revision,
    /// Never empty; each key at most once, in the order of the keys.
    pub events: Vec<Event>,
}

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub key: Arc<str>,
    /// `None` when it was deleted.
    pub after: Option<Versioned<Arc<[u8]>>>,
    /// `None` when it was created.
    pub before: Option<Versioned<Arc<[u8]>>>,
}

/// The commits after `compacted`, without a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct EventLog {
    compacted: Revision,
    commits: VecDeque<Arc<Commit>>,
    bytes: usize,
}

/// How many commits a watcher may fall behind.
pub(super) const MAX_COMMITS: usize = 10_000;
/// Ten thousand commits of 2 KiB objects (before and after) are 40 MB; larger ones are remembered for a shorter time.
const MAX_BYTES: usize = 64 << 20;

impl EventLog {
    /// An empty log of a store that is at `compacted`.
    pub(super) fn after(compacted: Revision) -> Self {
        Self { compacted, ..Self::default() }
    }

    /// Watches cannot start before this revision.
    pub(super) fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(super) fn newest(&self) -> Revision {
        self.commits.back().map_or(self.compacted, |commit| commit.revision)
    }

    /// The commit that follows `revision`; `None` when `revision` is the newest, or compacted.
    pub(super) fn following(&self, revision: Revision) -> Option<Arc<Commit>> {
        let distance = revision.0.checked_sub(self.compacted.0)?;
        // Revisions grow by at least one, so no commit up to `revision` is further on. Mostly they grow by just one.
        let most = usize::try_from(distance).ok()?.min(self.commits.len());
        let index = match most.checked_sub(1).and_then(|last| self.commits.get(last)) {
            Some(last) if last.revision > revision => {
                self.commits.partition_point(|commit| commit.revision <= revision)
            }
            _ => most,
        };
        self.commits.get(index).map(Arc::clone)
    }

    /// The commits after `revision`, the newest first.
    pub(super) fn since(&self, revision: Revision) -> impl Iterator<Item = &Arc<Commit>> {
        self.commits.iter().rev().take_while(move |commit| commit.revision > revision)
    }

    /// Appends the commit that follows the newest one.
    pub(super) fn push(&mut self, commit: Arc<Commit>) {
        self.bytes += commit.bytes();
        self.commits.push_back(commit);
    }

    /// The revision up to which commits must be forgotten for `more` to fit in.
    pub(super) fn excess(&self, more: &[Arc<Commit>]) -> Revision {
        let mut count = self.commits.len() + more.len();
        let mut bytes = self.bytes + more.iter().map(|commit| commit.bytes()).sum::<usize>();
        let mut excess = self.compacted;
        for oldest in &self.commits {
            if count <= MAX_COMMITS && bytes <= MAX_BYTES {
                break;
            }
            count -= 1;
            bytes -= oldest.bytes();
            excess = oldest.revision;
        }
        excess
    }

    /// The commits up to `revision`.
    pub(super) fn until(&self, revision: Revision) -> impl Iterator<Item = &Arc<Commit>> {
        self.commits.iter().take_while(move |commit| commit.revision <= revision)
    }

    /// Forgets the commits up to `revision`.
    pub(super) fn compact(&mut self, revision: Revision) {
        let count = self.until(revision).count();
        for oldest in self.commits.drain(..count) {
            self.bytes -= oldest.bytes();
            self.compacted = oldest.revision;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Commit>> {
        self.commits.iter()
    }
}

impl Commit {
    fn bytes(&self) -> usize {
        let size = |value: &Option<Versioned<Arc<[u8]>>>| value.as_ref().map_or(0, |versioned| versioned.value.len());
        self.events.iter().map(|event| event.key.len() + size(&event.after) + size(&event.before)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(revision: u64, bytes: usize) -> Arc<Commit> {
        let after =
            Versioned { value: vec![0; bytes].into(), created: Revision(revision), modified: Revision(revision) };
        Arc::new(Commit {
            revision: Revision(revision),
            events: vec![Event { key: "k".into(), after: Some(after), before: None }],
        })
    }

    #[test]
    fn the_log_keeps_the_newest_commits_within_its_bounds() {
        let mut log = EventLog::default();
        for revision in 1..=MAX_COMMITS as u64 {
            log.push(commit(revision, 0));
        }
        assert_eq!(log.excess(&[]), Revision::ZERO);
        let more = [commit(MAX_COMMITS as u64 + 1, 0), commit(MAX_COMMITS as u64 + 2, 0)];
        assert_eq!(log.excess(&more), Revision(2));
        assert_eq!(log.until(Revision(2)).count(), 2);
        log.compact(Revision(2));
        assert_eq!(log.compacted(), Revision(2));
        assert_eq!(log.following(Revision(1)), None);
        assert_eq!(log.following(Revision(2)).unwrap().revision, Revision(3));
        assert_eq!(log.following(log.newest()), None);
    }

    #[test]
    fn what_follows_a_revision_is_found_also_when_revisions_skip_some() {
        let mut log = EventLog::after(Revision(5));
        let revisions = [7, 8, 12, 30, 31];
        for revision in revisions {
            log.push(commit(revision, 0));
        }
        assert_eq!(log.following(Revision(4)), None);
        for after in 5..40 {
            let expected = revisions.iter().copied().find(|revision| *revision > after).map(Revision);
            assert_eq!(log.following(Revision(after)).map(|commit| commit.revision), expected, "after {after}");
        }
        log.compact(Revision(10));
        assert_eq!(log.compacted(), Revision(8));
        assert_eq!(log.following(Revision(9)).unwrap().revision, Revision(12));
    }

    #[test]
    fn large_commits_are_remembered_for_a_shorter_time() {
        let mut log = EventLog::after(Revision(7));
        log.push(commit(8, MAX_BYTES / 2));
        log.push(commit(9, MAX_BYTES / 2 - 2));
        assert_eq!(log.excess(&[]), Revision(7));
        assert_eq!(log.excess(&[commit(10, 9)]), Revision(8));
        assert_eq!(log.excess(&[commit(10, 2 * MAX_BYTES)]), Revision(9));
    }

    #[test]
    fn compacting_stops_at_the_newest_commit() {
        let mut log = EventLog::default();
        log.push(commit(1, 1));
        log.push(commit(2, 1));
        log.compact(Revision(9));
        assert_eq!(log, EventLog::after(Revision(2)));
        assert_eq!(log.newest(), Revision(2));
    }
}
