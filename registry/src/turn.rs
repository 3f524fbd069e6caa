//! The turn to change rights: what a write hands out is decided on the very rights beside which it is stored.

use tokio::sync::MutexGuard;

use crate::store::{CommitError, Revision, Store, Txn};

/// Where each change of rights leaves its mark, so that hubs that share an etcd see each other's.
const MARK: &str = "/rights";

/// Held from the decision until it is stored: the writes of one hub come one after the other.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) store: &'a Store,
    pub(crate) _held: MutexGuard<'a, ()>,
}

/// The rights at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights(Option<Revision>);

impl Turn<'_> {
    /// The rights as they are. Who reads them first and then decides has decided on these or on newer ones.
    pub(crate) fn rights(&self) -> Rights {
        Rights(self.store.get(MARK).map(|mark| mark.modified))
    }
}

impl Rights {
    /// Has `txn` refused once the rights are others, and makes them others with it.
    pub(crate) fn hold(self, txn: Txn) -> Txn {
        let txn = match self.0 {
            Some(revision) => txn.expect(MARK, revision),
            None => txn.expect_absent(MARK),
        };
        txn.put(MARK, Vec::new())
    }

    /// Whether the rights were others when the transaction came.
    pub(crate) fn passed(error: &CommitError) -> bool {
        matches!(error, CommitError::Conflict { key, .. } if key == MARK)
    }
}

#[cfg(test)]
mod tests {
    use crate::registry::Registry;

    use super::*;

    #[tokio::test]
    async fn what_was_decided_on_passed_rights_is_not_stored() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path().join("registry.redb")).unwrap();
        for first in ["/a", "/b"] {
            let turn = registry.turn().await;
            let (own, of_another_hub) = (turn.rights(), turn.rights());
            registry.store().commit(of_another_hub.hold(Txn::new().put(first, Vec::new()))).await.unwrap();
            let refused = registry.store().commit(own.hold(Txn::new().put("/late", Vec::new()))).await.unwrap_err();
            assert!(Rights::passed(&refused), "{refused}");
            assert!(registry.store().get("/late").is_none());
            assert_ne!(turn.rights(), own);
        }
        let held = registry.store().commit(Txn::new().expect_absent("/a")).await.unwrap_err();
        assert!(!Rights::passed(&held), "that is another conflict");
    }
}
