//! What goes whether or not there is room for it, of all clones of a model.

use std::sync::atomic::AtomicBool;

#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Everything: the connection is being closed.
    pub(super) all: AtomicBool,
    /// The next packet: the peer is asked for a sign of life.
    pub(super) next: AtomicBool,
}
