//! The control stream: framed messages both ways, for as long as the tunnel lives.

use std::marker::PhantomData;

use futures_util::StreamExt;
use prost::Message;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::{
    code::ResetReason,
    connection::Loss,
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
    receive: FramedRead<quinn::RecvStream, LengthDelimitedCodec>,
    messages: PhantomData<fn(O) -> I>,
}

impl<I: Message + Default, O: Message> Channel<I, O> {
    pub(crate) fn new(connection: quinn::Connection, send: quinn::SendStream, receive: quinn::RecvStream) -> Self {
        let receive = FramedRead::with_capacity(receive, wire::codec(), READ_AHEAD);
        Self { connection, send, receive, messages: PhantomData }
    }

    pub(crate) async fn send(&mut self, message: &O) -> Result<(), ControlError> {
        wire::send(&mut self.send, message).await.map_err(|error| match error {
            WireError::Lost(loss) => ControlError::Lost(loss),
            WireError::TooLong | WireError::Malformed(_) | WireError::Empty | WireError::Ended | WireError::Reset => {
                ControlError::Protocol(error)
            }
        })
    }

    /// The next message. Safe to cancel: a message half received is kept.
    pub(crate) async fn receive(&mut self) -> Result<I, ControlError> {
        let frame = match self.receive.next().await {
            Some(Ok(frame)) => frame,
            // The stream ends with its connection; the connection knows why.
            Some(Err(_)) if self.connection.close_reason().is_some() => return Err(self.lost()),
            Some(Err(error)) if error.kind() == std::io::ErrorKind::InvalidData => {
                return Err(ControlError::Protocol(WireError::TooLong));
            }
            Some(Err(_)) => return Err(ControlError::Protocol(WireError::Reset)),
            None => return Err(ControlError::Protocol(WireError::Ended)),
        };
        I::decode(frame).map_err(|error| ControlError::Protocol(WireError::Malformed(error)))
    }

    fn lost(&self) -> ControlError {
        ControlError::Lost(self.connection.close_reason().map_or(Loss::ClosedHere, Into::into))
    }
}

impl<I, O> Drop for Channel<I, O> {
    fn drop(&mut self) {
        // quinn would finish the stream as if the peer's control were complete; it is not. A closed stream needs no reset.
        let _ = self.send.reset(ResetReason::Abandoned.varint());
    }
}
