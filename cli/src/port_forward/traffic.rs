//! What goes through a forwarded port, counted for who looks.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::quantity;

/// Counts of one forwarded port.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// Connections now.
    open: AtomicU64,
    /// Connections since the start.
    all: AtomicU64,
    pub(super) to_cluster: AtomicU64,
    pub(super) from_cluster: AtomicU64,
}

/// A connection, open until this is dropped.
#[derive(Debug)]
pub(super) struct Connection<'a>(&'a Traffic);

impl Traffic {
    pub(super) fn connection(&self) -> Connection<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        Connection(self)
    }

    /// `2 open, 14 in all, 1.2KiB sent, 3.4MiB received`
    pub(super) fn line(&self) -> String {
        let [open, all, sent, received] =
            [&self.open, &self.all, &self.to_cluster, &self.from_cluster].map(|count| count.load(Ordering::Relaxed));
        format!("{open} open, {all} in all, {} sent, {} received", quantity::bytes(sent), quantity::bytes(received))
    }
}

impl Drop for Connection<'_> {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_while_they_are_open_and_afterwards() {
        let traffic = Traffic::default();
        let (first, second) = (traffic.connection(), traffic.connection());
        traffic.from_cluster.fetch_add(2048, Ordering::Relaxed);
        drop(first);
        assert_eq!(traffic.line(), "1 open, 2 in all, 0B sent, 2.0KiB received");
        drop(second);
        assert!(traffic.line().starts_with("0 open, 2 in all"));
    }
}
