//! How often an HTTP/1.1 connection has handed on all that was written: for what must not overtake it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
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

    /// Ready when it was flushed more than `before` times.
    fn poll_more(&self, before: u64, cx: &Context<'_>) -> Poll<()> {
        self.0.waiting.register(cx.waker());
        if self.0.flushes.load(Ordering::Acquire) > before { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// An answer's body, whose break waits until what came before it was flushed: hyper throws away what it has not written when a
/// body fails.
#[derive(Debug)]
pub(crate) struct Held {
    body: Incoming,
    flushes: Flushes,
    broken: Option<Broken>,
}

#[derive(Debug)]
struct Broken {
    error: Option<hyper::Error>,
    flushes: u64,
    until: Pin<Box<Sleep>>,
}

impl Held {
    pub(crate) fn new(body: Incoming, flushes: Flushes) -> Self {
        Self { body, flushes, broken: None }
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
                    let flushes = held.flushes.0.flushes.load(Ordering::Acquire);
                    held.broken.insert(Broken { error: Some(error), flushes, until: Box::pin(sleep(PARTING)) })
                }
                frame => return Poll::Ready(frame),
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
