//! The policy at a past revision, for watches that resume there: only the current one is kept in memory.

use std::sync::Arc;

use super::object;
use crate::view::View;
use store::{Event, Revision, Store, Versioned, WatchEnd};

/// Roles and bindings.
const ROLES: [&str; 4] = ["/clusterroles/", "/clusterrolebindings/", "/roles/", "/rolebindings/"];
/// Which clusters the sets hold, and where they are bound. Sets come before clusters, which are then placed once.
const MEMBERS: [&str; 3] = ["/managedclustersets/", CLUSTERS, "/managedclustersetbindings/"];
const CLUSTERS: &str = "/managedclusters/";

type Entry = (Arc<str>, Versioned<Arc<[u8]>>);

/// Whether a change of this key may change what somebody sees.
pub(super) fn affects_policy(key: &str) -> bool {
    ROLES.iter().chain(&MEMBERS).any(|prefix| key.starts_with(prefix))
}

/// Who might do what at `revision`; `None` when that is as it is now. For whom sees everything, membership does not matter.
pub(super) fn view_at(store: &Store, revision: Revision, sees_all: bool) -> Result<Option<View>, WatchEnd> {
    let deciding = if sees_all { &[][..] } else { &MEMBERS[..] };
    let mut changed = false;
    for prefix in ROLES.iter().chain(deciding) {
        changed |= has_changed(store, prefix, revision)?;
    }
    if !changed {
        return Ok(None);
    }
    let mut view = View::default();
    for prefix in ROLES.iter().chain(&MEMBERS) {
        for (key, after) in store.list_at(prefix, revision)? {
            // What cannot be read gave nobody a right then, as it gives none now.
            drop(view.apply(&Event { key, after: Some(after), before: None }));
        }
    }
    Ok(Some(view))
}

fn has_changed(store: &Store, prefix: &str, revision: Revision) -> Result<bool, WatchEnd> {
    let (then, now) = (store.list_at(prefix, revision)?, store.list(prefix).0);
    let differs = |(old, new): (&Entry, &Entry)| {
        old.0 != new.0 || old.1.modified != new.1.modified && !(prefix == CLUSTERS && same_labels(&old.1, &new.1))
    };
    Ok(then.len() != now.len() || then.iter().zip(&now).any(differs))
}

/// Of a cluster its labels alone decide, and most of its changes are of its status.
fn same_labels(old: &Versioned<Arc<[u8]>>, new: &Versioned<Arc<[u8]>>) -> bool {
    match (object::read(old), object::read(new)) {
        (Some(old), Some(new)) => object::labels(&old) == object::labels(&new),
        _ => false,
    }
}
