//! The control stream: framed messages both ways, for as long as the tunnel lives.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    io,
    marker::PhantomData,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use prost::Message;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::{
    code::ResetReason,
    connection::Loss,
    message::Notes,
    windows::Windows,
    wire::{self, WireError},
};

/// Room for what is read ahead, which grows with what comes. tokio-util's 8 KiB would be a quarter of an idle tunnel.
const READ_AHEAD: usize = 64;

/// Why the control stream ended, which ends the tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("the tunnel is lost")]
    Lost(#[source] Loss),
    #[error("the peer broke the protocol on the control stream")]
    Protocol(#[source] WireError),
}

/// One end of a control stream that receives `I` and sends `O`.
#[derive(Debug)]
pub(crate) struct Channel<I, O> {
    connection: quinn::Connection,
    send: quinn::SendStream,
    /// What of the last message is not sent yet.
    outgoing: Bytes,
    receive: FramedRead<quinn::RecvStream, LengthDelimitedCodec>,
    messages: PhantomData<fn(O) -> I>,
}

impl<I: Message + Default, O: Message> Channel<I, O> {
    pub(crate) fn new(connection: quinn::Connection, send: quinn::SendStream, receive: quinn::RecvStream) -> Self {
        // A window that waits behind the data of other streams would come late. A stream just opened is not closed.
        let _ = send.set_priority(1);
        let receive = FramedRead::with_capacity(receive, wire::codec(), READ_AHEAD);
        Self { connection, send, outgoing: Bytes::new(), receive, messages: PhantomData }
    }

    /// Sends one message. When cancelled, the rest of it is sent with the next call of this or of [`Self::receive`].
    pub(crate) async fn send(&mut self, message: &O) -> Result<(), ControlError> {
        poll_fn(|cx| self.poll_flush(cx)).await?;
        self.outgoing = wire::frame(message);
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// The next message. Safe to cancel: a message half received is kept.
    pub(crate) async fn receive(&mut self) -> Result<I, ControlError> {
        let frame = self.receive.next().await;
        self.decode(frame)
    }

    fn decode(&self, frame: Option<io::Result<BytesMut>>) -> Result<I, ControlError> {
        let frame = match frame {
            Some(Ok(frame)) => frame,
            // The stream ends with its connection; the connection knows why.
            Some(Err(_)) if self.connection.close_reason().is_some() => return Err(self.lost()),
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(ControlError::Protocol(WireError::TooLong));
            }
            Some(Err(_)) => return Err(ControlError::Protocol(WireError::Reset)),
            None => return Err(ControlError::Protocol(WireError::Ended)),
        };
        I::decode(frame).map_err(|error| ControlError::Protocol(WireError::Malformed(error)))
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

    fn lost(&self) -> ControlError {
        ControlError::Lost(self.connection.close_reason().map_or(Loss::ClosedHere, Into::into))
    }
}

impl<I: Message + Default, O: Message + From<Notes>> Channel<I, O> {
    /// [`Self::receive`], and sends meanwhile what the streams of `windows` have to say. Safe to cancel: a message half sent is
    /// kept, too.
    pub(crate) async fn receive_and_note(&mut self, windows: &Windows) -> Result<I, ControlError> {
        let frame = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_note(windows, cx) {
                return Poll::Ready(Err(error));
            }
            self.receive.poll_next_unpin(cx).map(Ok)
        });
        let frame = frame.await?;
        self.decode(frame)
    }

    fn poll_note(&mut self, windows: &Windows, cx: &mut Context<'_>) -> Poll<Result<Infallible, ControlError>> {
        loop {
            ready!(self.poll_flush(cx))?;
            self.outgoing = wire::frame(&O::from(ready!(windows.poll_notes(cx))));
        }
    }
}

impl<I, O> Drop for Channel<I, O> {
    fn drop(&mut self) {
        // quinn would finish the stream as if the peer's control were complete; it is not. A closed stream needs no reset.
        let _ = self.send.reset(ResetReason::Abandoned.varint());
    }
}
