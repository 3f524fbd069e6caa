//! Which hub each address leads to: two addresses of one hub need one tunnel, and the other address stands by.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::CancellationToken;

/// The hubs that have a tunnel, by the id of their process.
#[derive(Debug, Default)]
pub(crate) struct Reached(Mutex<HashMap<String, CancellationToken>>);

/// The place of the one tunnel to a hub. Dropped, it is free again, which who stands by is told.
#[derive(Debug)]
pub(crate) struct Sole {
    reached: Arc<Reached>,
    server_id: String,
}

impl Reached {
    /// The place of the tunnel to this hub, or, where there is one by another address, what is cancelled at its end.
    pub(crate) fn take(self: &Arc<Self>, server_id: &str) -> Result<Sole, CancellationToken> {
        let mut places = self.places();
        if let Some(taken) = places.get(server_id) {
            return Err(taken.clone());
        }
        places.insert(server_id.to_owned(), CancellationToken::new());
        Ok(Sole { reached: self.clone(), server_id: server_id.to_owned() })
    }

    fn places(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        if let Some(freed) = self.reached.places().remove(&self.server_id) {
            freed.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hub_has_one_place_and_who_stands_by_hears_when_it_is_free() {
        let reached = Arc::new(Reached::default());
        let first = reached.take("a").unwrap();
        let other = reached.take("b").unwrap();
        let freed = reached.take("a").unwrap_err();
        drop(other);
        assert!(!freed.is_cancelled());
        drop(first);
        assert!(freed.is_cancelled());
        reached.take("a").unwrap();
    }
}
