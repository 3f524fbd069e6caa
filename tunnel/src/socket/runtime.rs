//! The runtime under quinn: tokio's, in which a connection asks for the memory of large batches once it sends large batches.
//!
//! quinn keeps the buffer of a connection's largest batch for the connection's life. Three datagrams of a handshake would
//! already make it one of ten, which is 13 KiB of the memory of an idle tunnel.

use std::{
    cell::Cell,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Instant,
};

use quinn::{AsyncTimer, AsyncUdpSocket, TokioRuntime};

/// Datagrams that a task of quinn's sends in one turn when it is busy. A handshake sends three, and ten are what a
/// connection may send first.
const BUSY: usize = 8;

/// The tokio runtime in which quinn is called.
#[derive(Debug)]
pub(crate) struct Runtime;

/// A task of quinn's: a connection, or an endpoint.
struct Task {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    busy: bool,
}

thread_local! {
    /// Whether the task that runs on this thread sends large batches.
    static BATCHES: Cell<bool> = const { Cell::new(true) };
    /// Datagrams that it has sent in this turn.
    static SENT: Cell<usize> = const { Cell::new(0) };
}

/// How many datagrams the connection that runs on this thread may hand over at a time, where its socket takes `most`.
pub(crate) fn segments(most: usize) -> usize {
    if BATCHES.get() { most } else { 1 }
}

/// The connection that runs on this thread has handed over a datagram or more.
pub(crate) fn sent() {
    SENT.set(SENT.get() + 1);
}

impl quinn::Runtime for Runtime {
    fn new_timer(&self, at: Instant) -> Pin<Box<dyn AsyncTimer>> {
        TokioRuntime.new_timer(at)
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        TokioRuntime.spawn(Box::pin(Task { future, busy: false }));
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> std::io::Result<Arc<dyn AsyncUdpSocket>> {
        TokioRuntime.wrap_udp_socket(socket)
    }

    fn now(&self) -> Instant {
        TokioRuntime.now()
    }
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.busy {
            BATCHES.set(true);
            return self.future.as_mut().poll(cx);
        }
        BATCHES.set(false);
        SENT.set(0);
        let polled = self.future.as_mut().poll(cx);
        BATCHES.set(true);
        self.busy = SENT.get() >= BUSY;
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Waker};

    use super::*;

    #[test]
    fn a_task_gets_large_batches_when_it_has_sent_much_in_one_turn() {
        let mut turns = [1, BUSY - 1, BUSY, 1, 1].into_iter();
        let mut allowed = Vec::new();
        let (told, seen) = std::sync::mpsc::channel();
        let future = poll_fn(move |_| {
            told.send(segments(10)).unwrap();
            (0..turns.next().unwrap()).for_each(|_| sent());
            Poll::Pending
        });
        let mut task = Task { future: Box::pin(future), busy: false };
        for _ in 0..5 {
            assert!(Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            allowed.push(seen.recv().unwrap());
        }
        assert_eq!(allowed, [1, 1, 1, 10, 10]);
        assert_eq!(segments(10), 10, "outside of a task, everything is allowed");
    }
}
