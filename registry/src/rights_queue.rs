//! The queue of writes that change rights: what a write grants is decided on the very rights beside which it is stored.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{MutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use store::{CommitError, Revision, Store, Txn};

/// Where each change of rights leaves its mark, so that hubs that share an etcd see each other's.
const MARK: &str = "/rights";
/// How long a write waits for those before it.
const TURN_TIMEOUT: Duration = Duration::from_secs(5);
/// Writes of one user that are in the order at a time: others are behind so many, and no more.
const OF_ONE: usize = 8;
/// Writes of one user that wait to come into the order.
const WAITING_OF_ONE: usize = 512;

/// The writes of one hub that change rights, which come one after the other.
#[derive(Debug, Default)]
pub(crate) struct RightsQueue {
    order: tokio::sync::Mutex<()>,
    users: Mutex<HashMap<String, User>>,
}

/// Whose writes wait.
#[derive(Debug)]
struct User {
    places: Arc<Semaphore>,
    waiting: usize,
}

/// Held from the decision until it is stored.
#[derive(Debug)]
pub(crate) struct RightsTurn<'a> {
    store: &'a Store,
    _order: MutexGuard<'a, ()>,
    _place: OwnedSemaphorePermit,
    _wait: Waiting<'a>,
}

/// One of its user's writes.
#[derive(Debug)]
struct Waiting<'a> {
    turns: &'a RightsQueue,
    user: String,
}

/// The rights at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights(Option<Revision>);

impl RightsQueue {
    /// The next turn; `None` where it does not come in time, or too many writes of the user wait for theirs.
    pub(crate) async fn take<'a>(&'a self, store: &'a Store, user: &str) -> Option<RightsTurn<'a>> {
        let (wait, places) = self.wait(user)?;
        let turn = async {
            // Never closed.
            let place = places.acquire_owned().await.ok()?;
            Some((self.order.lock().await, place))
        };
        let (order, place) = timeout(TURN_TIMEOUT, turn).await.ok()??;
        Some(RightsTurn { store, _order: order, _place: place, _wait: wait })
    }

    fn wait(&self, user: &str) -> Option<(Waiting<'_>, Arc<Semaphore>)> {
        let mut users = self.users.lock();
        let own = users.entry(user.to_owned()).or_insert_with(User::new);
        if own.waiting >= WAITING_OF_ONE {
            return None;
        }
        own.waiting += 1;
        Some((Waiting { turns: self, user: user.to_owned() }, own.places.clone()))
    }
}

impl User {
    fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(OF_ONE)), waiting: 0 }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut users = self.turns.users.lock();
        if let Some(own) = users.get_mut(&self.user) {
            own.waiting -= 1;
            if own.waiting == 0 {
                users.remove(&self.user);
            }
        }
    }
}

/// Makes the rights others with `txn`, which takes some away: what was decided on them before is decided anew.
pub(crate) fn mark(txn: Txn) -> Txn {
    txn.put(MARK, Vec::new())
}

impl RightsTurn<'_> {
    /// The rights as they are. Who reads them first and then decides has decided on these or on newer ones.
    pub(crate) fn rights(&self) -> Rights {
        Rights(self.store.get(MARK).map(|mark| mark.modified))
    }
}

impl Rights {
    /// Has `txn` refused once the rights are others, and makes them others with it.
    pub(crate) fn guard(self, txn: Txn) -> Txn {
        let txn = match self.0 {
            Some(revision) => txn.expect(MARK, revision),
            None => txn.expect_absent(MARK),
        };
        mark(txn)
    }

    /// Whether the rights were others when the transaction came.
    pub(crate) fn passed(error: &CommitError) -> bool {
        matches!(error, CommitError::Conflict { key, .. } if key == MARK)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use crate::registry::Registry;

    use super::*;

    #[tokio::test]
    async fn what_was_decided_on_passed_rights_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path().join("registry.redb")).unwrap();
        for first in ["/a", "/b"] {
            let turn = registry.turn("alice").await.unwrap();
            let (own, of_another_hub) = (turn.rights(), turn.rights());
            registry.store().commit(of_another_hub.guard(Txn::new().put(first, Vec::new()))).await.unwrap();
            let refused = registry.store().commit(own.guard(Txn::new().put("/late", Vec::new()))).await.unwrap_err();
            assert!(Rights::passed(&refused), "{refused}");
            assert!(registry.store().get("/late").is_none());
            assert_ne!(turn.rights(), own);
        }
        let held = registry.store().commit(Txn::new().expect_absent("/a")).await.unwrap_err();
        assert!(!Rights::passed(&held), "that is another conflict");
    }

    #[tokio::test]
    async fn one_user_waits_with_so_many_writes_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path().join("registry.redb")).unwrap();
        let first = registry.turn("alice").await.unwrap();
        let order = Mutex::new(Vec::new());
        let turn = async |user: &str| {
            let turn = registry.turn(user).await;
            order.lock().push(user.to_owned());
            turn.is_some()
        };
        let many = join_all((1..WAITING_OF_ONE).map(|_| turn("alice")));
        let other = async {
            tokio::task::yield_now().await;
            assert!(registry.turn("alice").await.is_none(), "there is no end of her writes");
            let waiting = turn("bob");
            drop(first);
            waiting.await
        };
        let (many, other) = tokio::join!(many, other);
        assert!(other && many.into_iter().all(|came| came));
        let before = order.lock().iter().position(|user| user == "bob").unwrap();
        assert!(before <= OF_ONE, "bob had to wait for {before} of hers");
        assert!(registry.turns.users.lock().is_empty());
    }
}
