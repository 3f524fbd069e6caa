//! A direction that breaks off behind its last byte: what was sent arrives first, and then that it broke.
//!
//! RESET_STREAM takes from the receiver what is under way and what it has not read yet (RFC 9000 section 3.2). So a sender
//! says on the control stream how far it came ([`Break`]), and resets only when the receiver reads no further, or takes too
//! long.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Waker},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio_util::task::TaskTracker;

use crate::{wire::code::ResetReason, wire::message::Break};

/// How long what came before a break may take to be delivered. Whoever takes nothing for so long loses the rest.
pub const PARTING: Duration = Duration::from_secs(5);

/// No break was told. No stream comes so far.
const WHOLE: u64 = u64::MAX;

/// What the sender of a stream has told of its break. The receiver and the control stream share it.
#[derive(Debug)]
pub(crate) struct Ending {
    offset: AtomicU64,
    code: AtomicU64,
    receiver: AtomicWaker,
}

impl Ending {
    pub(crate) fn new() -> Self {
        Self { offset: WHOLE.into(), code: 0.into(), receiver: AtomicWaker::new() }
    }

    /// The sender's word. A second one says nothing.
    pub(crate) fn tell(&self, told: &Break) {
        if self.offset.load(Ordering::Relaxed) == WHOLE {
            self.code.store(told.code, Ordering::Relaxed);
            self.offset.store(told.offset, Ordering::Release);
            self.receiver.wake();
        }
    }

    /// Why the direction broke off, for a receiver that has come to `offset`.
    pub(crate) fn reached(&self, offset: u64) -> Option<ResetReason> {
        let end = self.offset.load(Ordering::Acquire);
        (end <= offset).then(|| ResetReason::from_code(self.code.load(Ordering::Relaxed)))
    }

    /// Has `cx` woken when the sender tells of a break: look once more at [`Self::reached`] then, and now.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        self.receiver.register(cx.waker());
    }
}

/// The sender's half of a stream that has broken off, for as long as its last bytes are under way.
struct Parting {
    stream: quinn::SendStream,
    reason: ResetReason,
}

impl Drop for Parting {
    fn drop(&mut self) {
        // Already closed is as good.
        let _ = self.stream.reset(self.reason.varint());
    }
}

/// Those of one tunnel.
#[derive(Debug)]
pub(crate) struct Partings {
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
}

impl Partings {
    pub(crate) fn new() -> Self {
        Self { tasks: TaskTracker::new(), runtime: tokio::runtime::Handle::current() }
    }

    /// Resets `stream` when its receiver reads no further, or after [`PARTING`]. The end of the tunnel ends it, too.
    pub(crate) fn add(&self, stream: quinn::SendStream, reason: ResetReason) {
        let parting = Parting { stream, reason };
        let parted = async move {
            // Late or lost, it is reset.
            let _ = tokio::time::timeout(PARTING, parting.stream.stopped()).await;
            drop(parting);
        };
        self.tasks.spawn_on(parted, &self.runtime);
    }
}

/// Whether the receiver of `stream` reads no further already.
pub(crate) fn is_stopped(stream: &quinn::SendStream) -> bool {
    std::pin::pin!(stream.stopped()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_break_is_where_it_was_told_first() {
        let ending = Ending::new();
        assert_eq!(ending.reached(u64::MAX - 1), None);
        ending.tell(&Break { stream: 0, offset: 7, code: ResetReason::ConnectionReset.code() });
        ending.tell(&Break { stream: 0, offset: 3, code: ResetReason::Cut.code() });
        assert_eq!(ending.reached(6), None);
        assert_eq!(ending.reached(7), Some(ResetReason::ConnectionReset));
    }
}
