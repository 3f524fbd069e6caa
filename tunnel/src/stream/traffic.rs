//! Counts of relayed bytes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Bytes relayed, readable while the relay runs. A parent adds up its children.
#[derive(Debug, Default)]
pub struct Traffic {
    into_tunnel: AtomicU64,
    out_of_tunnel: AtomicU64,
    parent: Option<Arc<Self>>,
}

impl Traffic {
    /// Counts into itself and into `parent`.
    pub fn child(parent: Arc<Self>) -> Self {
        Self { parent: Some(parent), ..Self::default() }
    }

    /// Bytes read here and sent into the tunnel.
    pub fn into_tunnel(&self) -> u64 {
        self.into_tunnel.load(Ordering::Relaxed)
    }

    /// Bytes received from the tunnel and written here.
    pub fn out_of_tunnel(&self) -> u64 {
        self.out_of_tunnel.load(Ordering::Relaxed)
    }

    /// Counts bytes that went into the tunnel past [`relay`](crate::relay()).
    pub fn add_into_tunnel(&self, bytes: u64) {
        self.into_tunnel.fetch_add(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.add_into_tunnel(bytes);
        }
    }

    /// Counts bytes that came out of the tunnel past [`relay`](crate::relay()).
    pub fn add_out_of_tunnel(&self, bytes: u64) {
        self.out_of_tunnel.fetch_add(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.add_out_of_tunnel(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_adds_up_its_children() {
        let parent = Arc::new(Traffic::default());
        for _ in 0..2 {
            let child = Traffic::child(parent.clone());
            child.add_into_tunnel(3);
            child.add_out_of_tunnel(4);
            assert_eq!((child.into_tunnel(), child.out_of_tunnel()), (3, 4));
        }
        assert_eq!((parent.into_tunnel(), parent.out_of_tunnel()), (6, 8));
    }
}
