//! The watch: a cursor into the store's event log. A slow watcher costs no memory, it only falls out of the log.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use thiserror::Error;
use tokio::sync::watch as latest;

use super::state::State;
use super::{Commit, Revision};

/// Tells commits in order, from [`super::Store::watch`].
#[derive(Clone)]
pub struct Watch {
    seen: Revision,
    state: Arc<RwLock<State>>,
    published: latest::Receiver<Revision>,
}

/// Why a watch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WatchEnd {
    /// The next commit is no longer in the log.
    #[error("the watch is too old: the log starts after revision {compacted}; list again and watch from there")]
    Compacted { compacted: Revision },
    #[error("the registry is closed; the process is stopping")]
    Closed,
}

impl Watch {
    pub(super) fn new(seen: Revision, state: Arc<RwLock<State>>, published: latest::Receiver<Revision>) -> Self {
        Self { seen, state, published }
    }

    /// The next commit; waits for one if there is none. Loses nothing when it is cancelled.
    ///
    /// A revision that is still to come is waited for.
    pub async fn next(&mut self) -> Result<Arc<Commit>, WatchEnd> {
        loop {
            // Marked before looking: a commit that comes in between ends the wait at once.
            self.published.borrow_and_update();
            if let Some(commit) = self.ready()? {
                return Ok(commit);
            }
            if self.published.changed().await.is_err() {
                // What the writer published last must still be told.
                return self.ready()?.ok_or(WatchEnd::Closed);
            }
        }
    }

    fn ready(&mut self) -> Result<Option<Arc<Commit>>, WatchEnd> {
        let state = self.state.read();
        let compacted = state.log().compacted();
        if self.seen < compacted {
            return Err(WatchEnd::Compacted { compacted });
        }
        let commit = state.log().following(self.seen);
        if let Some(commit) = &commit {
            self.seen = commit.revision;
        }
        Ok(commit)
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("seen", &self.seen).finish_non_exhaustive()
    }
}
