//! The request side of one stream: the client's packets, as events of the protocol.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Body;

use crate::outcome::Outcome;

use super::{
    packet::Packet,
    packets::{PacketError, Packets},
    protocol::{Event, Protocol, ProtocolViolation},
    responses::{Code, Status},
};

/// Reads a client's packets as events.
#[derive(Debug)]
pub(crate) struct RequestStream<B> {
    packets: Packets<B>,
    protocol: Protocol,
    /// Read by [`Self::peek`].
    peeked: Option<Result<Option<Event>, RequestError>>,
}

/// Why no more can be read from the client.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Violation(#[from] ProtocolViolation),
}

impl RequestError {
    /// What metrics and audit events call it.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Packet(PacketError::Reset) => Outcome::ClientReset,
            Self::Packet(_) | Self::Violation(_) => Outcome::ClientProtocol,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> RequestStream<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { packets: Packets::new(body), protocol: Protocol::default(), peeked: None }
    }

    /// The dial succeeded.
    pub(crate) fn opened(&mut self, connect_id: i64) {
        self.protocol.opened(connect_id);
    }

    /// The next event, `None` at the client's end; bound the wait. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, RequestError> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits for the next event, which [`Self::next`] still returns. Safe to cancel.
    pub(crate) async fn peek(&mut self) {
        let next = self.next().await;
        self.peeked = Some(next);
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, RequestError>> {
        if let Some(peeked) = self.peeked.take() {
            return Poll::Ready(peeked);
        }
        loop {
            let Some(packet) = ready!(self.packets.poll_next(cx))? else { return Poll::Ready(Ok(None)) };
            if let Some(event) = self.protocol.handle(packet)? {
                return Poll::Ready(Ok(Some(event)));
            }
        }
    }
}

impl RequestError {
    /// The packets that tell the client.
    pub(crate) fn responses(self) -> Vec<Packet> {
        match self {
            Self::Packet(_) => Vec::new(),
            Self::Violation(violation) => violation.responses(),
        }
    }

    /// How the call ends.
    pub(crate) fn status(self) -> Status {
        let code = match self {
            Self::Packet(PacketError::Compressed) => Code::Unimplemented,
            Self::Packet(PacketError::TooLong) => Code::ResourceExhausted,
            Self::Packet(_) | Self::Violation(_) => Code::InvalidArgument,
        };
        Status::of(code, &self)
    }
}
