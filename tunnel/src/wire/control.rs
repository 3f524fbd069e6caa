//! The control stream: framed messages both ways, for as long as the tunnel lives.
//!
//! A task of its own drives it, so that nothing its user waits for, a store or another message, holds up the flow control of
//! the tunnel's streams. What the user has not taken or the peer has not read waits in two short queues; neither waits for
//! the other, and a peer for which one overflows is at fault.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use futures_util::{StreamExt, task::AtomicWaker};
use parking_lot::Mutex;
use prost::Message;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    connection::ConnectionLost,
    stream::windows::Windows,
    wire::code::ResetReason,
    wire::message::Notes,
    wire::{self, Frames, WireError},
};

/// Messages that wait for the user, or for a peer that does not read: many times what a tunnel needs at once.
const QUEUE: usize = 64;

/// Why the control stream ended, which ends the tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the tunnel is lost")]
    Lost(#[source] ConnectionLost),
    #[error("the peer broke the protocol on the control stream")]
    Protocol(#[source] WireError),
    /// One of the queues is full.
    #[error("the control stream is stuck: {QUEUE} messages wait")]
    Stuck,
}

/// What goes over the control stream as one frame: a message, notes or both.
pub(crate) trait Envelope: Message + Default + 'static {
    type Content: Send + 'static;

    fn of(message: Option<Self::Content>, notes: Notes) -> Self;
    fn open(self) -> (Option<Self::Content>, Notes);
}

/// One end of a control stream that receives `I` and sends `O`.
pub(crate) struct Control<I: Envelope, O: Envelope> {
    connection: quinn::Connection,
    queues: Arc<Queues<I, O>>,
    _driver: AbortOnDropHandle<()>,
}

struct Queues<I: Envelope, O: Envelope> {
    waiting: Mutex<Waiting<I, O>>,
    /// The driver, when it has nothing to send.
    driver: AtomicWaker,
}

struct Waiting<I: Envelope, O: Envelope> {
    received: VecDeque<I::Content>,
    to_send: VecDeque<O::Content>,
    /// The driver has ended, for this reason until it was told.
    end: Option<Option<ControlError>>,
    user: Option<Waker>,
}

/// What drives the stream.
struct Driver<I: Envelope, O: Envelope> {
    connection: quinn::Connection,
    windows: Arc<Windows>,
    queues: Arc<Queues<I, O>>,
    send: quinn::SendStream,
    /// What of the last message is not sent yet.
    outgoing: Bytes,
    receive: Frames,
}

impl<I: Envelope, O: Envelope> fmt::Debug for Control<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl<I: Envelope, O: Envelope> Control<I, O> {
    /// Takes the stream over in the runtime in which this is called. What its streams have to say in `windows` is sent and received with the messages.
    pub(crate) fn new(
        connection: quinn::Connection,
        windows: Arc<Windows>,
        send: quinn::SendStream,
        receive: quinn::RecvStream,
    ) -> Self {
        // A window that waits behind the data of other streams would come late. A stream just opened is not closed.
        let _ = send.set_priority(1);
        let waiting = Waiting { received: VecDeque::new(), to_send: VecDeque::new(), end: None, user: None };
        let queues = Arc::new(Queues { waiting: Mutex::new(waiting), driver: AtomicWaker::new() });
        let receive = wire::frames(receive);
        let driver = Driver {
            connection: connection.clone(),
            windows,
            queues: queues.clone(),
            send,
            outgoing: Bytes::new(),
            receive,
        };
        let driver = AbortOnDropHandle::new(Handle::current().spawn(driver.drive()));
        Self { connection, queues, _driver: driver }
    }

    /// Has one message sent, behind those before it. An error where the tunnel is lost, or the peer reads nothing.
    pub(crate) fn send(&self, message: O::Content) -> Result<(), ControlError> {
        let mut waiting = self.queues.waiting.lock();
        // Why is for who receives.
        if waiting.end.is_some() {
            return Err(lost(&self.connection));
        }
        if waiting.to_send.len() >= QUEUE {
            return Err(ControlError::Stuck);
        }
        waiting.to_send.push_back(message);
        drop(waiting);
        self.queues.driver.wake();
        Ok(())
    }

    /// The next message. Safe to cancel.
    pub(crate) async fn receive(&mut self) -> Result<I::Content, ControlError> {
        poll_fn(|cx| {
            let mut waiting = self.queues.waiting.lock();
            if let Some(message) = waiting.received.pop_front() {
                return Poll::Ready(Ok(message));
            }
            if let Some(end) = &mut waiting.end {
                return Poll::Ready(Err(end.take().unwrap_or_else(|| lost(&self.connection))));
            }
            waiting.user = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl<I: Envelope, O: Envelope> Driver<I, O> {
    async fn drive(mut self) {
        let end = loop {
            // Whoever sends windows without an end has the thread no longer than others.
            tokio::task::consume_budget().await;
            match self.exchange().await {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        let mut waiting = self.queues.waiting.lock();
        waiting.end = Some(Some(end));
        wake(waiting.user.take());
    }

    /// Sends what there is to send until a message has come.
    async fn exchange(&mut self) -> Result<(), ControlError> {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                return Poll::Ready(Err(error));
            }
            self.receive.poll_next_unpin(cx).map(Ok)
        });
        let frame = frame.await?;
        let received: I = wire::decode(frame, &self.connection).map_err(|error| match error {
            WireError::Lost(loss) => ControlError::Lost(loss),
            error @ (WireError::TooLong
            | WireError::Malformed(_)
            | WireError::Empty
            | WireError::Ended
            | WireError::Reset) => ControlError::Protocol(error),
        })?;
        let (message, notes) = received.open();
        self.windows.heard(&notes);
        let Some(message) = message else { return Ok(()) };
        let mut waiting = self.queues.waiting.lock();
        if waiting.received.len() >= QUEUE {
            return Err(ControlError::Stuck);
        }
        waiting.received.push_back(message);
        wake(waiting.user.take());
        Ok(())
    }

    /// Never ready but with an error.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ControlError>> {
        loop {
            ready!(self.poll_flush(cx))?;
            self.queues.driver.register(cx.waker());
            let message = self.queues.waiting.lock().to_send.pop_front();
            let (message, notes) = match (message, self.windows.poll_notes(cx)) {
                (message, Poll::Ready(notes)) => (message, notes),
                (message @ Some(_), Poll::Pending) => (message, Notes::default()),
                (None, Poll::Pending) => return Poll::Pending,
            };
            self.outgoing = wire::frame(&O::of(message, notes));
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ControlError>> {
        while !self.outgoing.is_empty() {
            let written = pin!(self.send.write_chunks(std::slice::from_mut(&mut self.outgoing))).poll(cx);
            ready!(written).map_err(|error| match error {
                quinn::WriteError::ConnectionLost(error) => ControlError::Lost(error.into()),
                quinn::WriteError::Stopped(_)
                | quinn::WriteError::ClosedStream
                | quinn::WriteError::ZeroRttRejected => ControlError::Protocol(WireError::Reset),
            })?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: Envelope, O: Envelope> Drop for Driver<I, O> {
    fn drop(&mut self) {
        // quinn would finish the stream as if the peer's control were complete; it is not. A closed stream needs no reset.
        let _ = self.send.reset(ResetReason::Abandoned.varint());
    }
}

fn lost(connection: &quinn::Connection) -> ControlError {
    ControlError::Lost(connection.close_reason().map_or(ConnectionLost::ClosedHere, Into::into))
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
