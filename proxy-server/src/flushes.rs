//! How often an HTTP connection has handed on all that was written: for what must not overtake it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Sleep, sleep};
use tunnel::PARTING;

/// The count of one connection. hyper flushes a connection when it has written everything that it holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flushes(Arc<Count>);

#[derive(Debug, Default)]
struct Count {
    flushes: AtomicU64,
    waiting: AtomicWaker,
}

impl Flushes {
    /// The connection was flushed.
    pub(crate) fn count(&self) {
        self.0.flushes.fetch_add(1, Ordering::Release);
        self.0.waiting.wake();
    }

    fn seen(&self) -> u64 {
        self.0.flushes.load(Ordering::Acquire)
    }

    /// Ready when it was flushed more than `before` times.
    fn poll_more(&self, before: u64, cx: &Context<'_>) -> Poll<()> {
        self.0.waiting.register(cx.waker());
        if self.seen() > before { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// An answer's body, whose break waits until what came before it was flushed: hyper throws away what it has not written when a
/// body fails.
#[derive(Debug)]
pub(crate) struct Held {
    body: Incoming,
    flushes: Flushes,
    /// How often it was flushed when the last bytes were given.
    given: u64,
    broken: Option<Broken>,
}

/// How long a break waits at an HTTP/2 connection that has flushed since the last bytes: with these, unless they had just been
/// handed on to it. It flushes again only for something new, an HTTP/1.1 connection at once.
const FLUSHED: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Broken {
    error: Option<hyper::Error>,
    flushes: u64,
    until: Pin<Box<Sleep>>,
}

impl Held {
    pub(crate) fn new(body: Incoming, flushes: Flushes) -> Self {
        Self { body, flushes, given: 0, broken: None }
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let held = self.get_mut();
        let broken = match &mut held.broken {
            Some(broken) => broken,
            None => match ready!(Pin::new(&mut held.body).poll_frame(cx)) {
                Some(Err(error)) => {
                    let flushes = held.flushes.seen();
                    let patience = if flushes > held.given { FLUSHED } else { PARTING };
                    held.broken.insert(Broken { error: Some(error), flushes, until: Box::pin(sleep(patience)) })
                }
                frame => {
                    held.given = held.flushes.seen();
                    return Poll::Ready(frame);
                }
            },
        };
        if held.flushes.poll_more(broken.flushes, cx).is_pending() {
            ready!(broken.until.as_mut().poll(cx));
        }
        Poll::Ready(broken.error.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
