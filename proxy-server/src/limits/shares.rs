//! Shares: how much of something each may have at a time.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use parking_lot::Mutex;

/// What each has taken.
#[derive(Debug)]
pub(crate) struct Shares<K: Eq + Hash> {
    most: usize,
    taken: Mutex<HashMap<K, usize>>,
}

/// One of what somebody has; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share<K: Eq + Hash> {
    shares: Arc<Shares<K>>,
    of: K,
}

impl<K: Clone + Eq + Hash> Shares<K> {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// The most that each may have.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// One more for `of`, if there is one left.
    pub(crate) fn take(self: &Arc<Self>, of: &K) -> Option<Share<K>> {
        let mut taken = self.taken.lock();
        let count = taken.get(of).copied().unwrap_or_default();
        if count >= self.most {
            return None;
        }
        taken.insert(of.clone(), count + 1);
        Some(Share { shares: self.clone(), of: of.clone() })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut taken = self.shares.taken.lock();
        match taken.get_mut(&self.of) {
            Some(count) if *count > 1 => *count -= 1,
            // Who has nothing leaves nothing behind.
            Some(_) | None => drop(taken.remove(&self.of)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_share_and_who_gives_it_back_leaves_nothing_behind() {
        let shares = Shares::new(2);
        let (first, second) = (shares.take(&"a").unwrap(), shares.take(&"a").unwrap());
        assert!(shares.take(&"a").is_none());
        let other = shares.take(&"b").unwrap();
        drop(first);
        let third = shares.take(&"a").unwrap();
        drop((second, third, other));
        assert!(shares.taken.lock().is_empty());
    }
}
