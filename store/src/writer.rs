//! The writer: one thread that takes what has queued up, commits it as one group, and only then publishes and answers.

use std::error::Error;
use std::sync::Arc;

use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch as latest};

use super::disk::Disk;
use super::state::State;
use super::{Commit, CommitError, News, Observer, Revision, Txn};

/// What callers ask of the writer.
pub(super) enum Request {
    Commit { txn: Txn, answer: oneshot::Sender<Result<Revision, CommitError>> },
    Compact { revision: Revision, answer: oneshot::Sender<Result<(), CommitError>> },
    LetGo { answer: oneshot::Sender<()> },
    Follow { news: News, answer: oneshot::Sender<()> },
}

/// Owns the disk and is the only one to change the state.
pub(super) struct Writer {
    /// `None` when another process has the file.
    disk: Option<Disk>,
    state: Arc<RwLock<State>>,
    publish: latest::Sender<Revision>,
    observer: Observer,
}

/// The transactions that go to disk together, and where to send their answers.
type Group = (Vec<Txn>, Vec<oneshot::Sender<Result<Revision, CommitError>>>);

/// Transactions in one group: bounds the memory of a group of large values, far above where a larger group pays.
const MAX_GROUP: usize = 256;

impl Writer {
    pub(super) fn new(
        disk: Disk,
        state: Arc<RwLock<State>>,
        publish: latest::Sender<Revision>,
        observer: Observer,
    ) -> Self {
        Self { disk: Some(disk), state, publish, observer }
    }

    /// Serves until every sender of the queue is gone.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut requests = Vec::with_capacity(MAX_GROUP);
        while queue.blocking_recv_many(&mut requests, MAX_GROUP) > 0 {
            let mut group = Group::default();
            for request in requests.drain(..) {
                match request {
                    Request::Commit { txn, answer } => {
                        group.0.push(txn);
                        group.1.push(answer);
                    }
                    Request::Compact { revision, answer } => {
                        self.commit(std::mem::take(&mut group));
                        // A caller that is gone wants no answer.
                        let _ = answer.send(self.compact(revision));
                    }
                    Request::LetGo { answer } => {
                        self.commit(std::mem::take(&mut group));
                        self.disk = None;
                        let _ = answer.send(());
                    }
                    Request::Follow { news, answer } => {
                        self.commit(std::mem::take(&mut group));
                        self.follow(news);
                        let _ = answer.send(());
                    }
                }
            }
            self.commit(group);
        }
    }

    /// Commits a group and answers it.
    ///
    /// When the disk refuses, every transaction of the group gets the error, and none is tried alone: what failed is
    /// the disk and not one of them, whose preconditions were all decided before.
    fn commit(&mut self, (txns, answers): Group) {
        let staged = self.state.read().stage(txns.iter());
        let written = if staged.commits.is_empty() { Ok(()) } else { self.write(&staged.commits) };
        for (answer, outcome) in answers.into_iter().zip(staged.answers) {
            let outcome = match &written {
                Ok(()) => outcome,
                // The transactions of the group saw each other's changes, so not even a conflict is certain now.
                Err(error) => Err(error.clone()),
            };
            // A caller that is gone wants no answer.
            let _ = answer.send(outcome);
        }
    }

    fn write(&mut self, commits: &[Arc<Commit>]) -> Result<(), CommitError> {
        let excess = self.state.read().log().excess(commits);
        self.put_on_disk(commits, excess)?;
        self.take_over(commits, excess);
        Ok(())
    }

    /// Takes over what the process has committed that has the file now.
    fn follow(&mut self, news: News) {
        if self.disk.is_some() {
            return;
        }
        let Some(commit) = self.state.read().learn(news) else { return };
        let commits = [Arc::new(commit)];
        let excess = self.state.read().log().excess(&commits);
        self.take_over(&commits, excess);
    }

    /// Has everybody see `commits`, and forgets the log up to `compacted`.
    fn take_over(&mut self, commits: &[Arc<Commit>], compacted: Revision) {
        {
            // Held until the observer has seen them: who reads a commit reads also what follows from it, such as rights.
            let mut state = self.state.write();
            state.log_mut().compact(compacted);
            for commit in commits {
                state.apply(commit);
                (self.observer)(commit);
            }
        }
        self.publish();
    }

    fn compact(&mut self, revision: Revision) -> Result<(), CommitError> {
        if self.state.read().log().until(revision).next().is_none() {
            return Ok(());
        }
        self.put_on_disk(&[], revision)?;
        self.state.write().log_mut().compact(revision);
        // Wakes the watchers that have fallen out of the log.
        self.publish();
        Ok(())
    }

    /// Puts `commits` on disk and forgets the log up to `compacted`, there alone: memory follows if that went well.
    fn put_on_disk(&mut self, commits: &[Arc<Commit>], compacted: Revision) -> Result<(), CommitError> {
        let state = self.state.read();
        let disk = self.disk.as_mut().ok_or(CommitError::Closed)?;
        disk.write(&state, commits, compacted).map_err(|error| {
            tracing::error!(error = &error as &dyn Error, "the registry cannot be written to disk");
            CommitError::Disk { source: Arc::new(error) }
        })
    }

    fn publish(&self) {
        self.publish.send_replace(self.state.read().revision());
    }
}
