//! One stream's client as it is heard: its packets, and what each means in the conversation.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::Body;

use crate::outcome::Outcome;

use super::{
    answers::{Code, Status},
    conversation::{Conversation, Offence, Said},
    packet::{DialRequest, Packet},
    packets::{PacketError, Packets},
};

/// Reads a client's packets as what they mean.
#[derive(Debug)]
pub(crate) struct Hearing<B> {
    packets: Packets<B>,
    conversation: Conversation,
    /// What was heard before somebody asked for it.
    ahead: Option<Result<Heard, Fault>>,
}

/// What the client says.
#[derive(Debug)]
pub(crate) enum Heard {
    Dial(DialRequest),
    CancelDial,
    Data(Bytes),
    Close(i64),
    /// It says no more.
    End,
}

/// Why the client can be heard no further.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Offence(#[from] Offence),
}

impl Fault {
    /// What metrics and audit events call it.
    pub(crate) fn outcome(self) -> Outcome {
        match self {
            Self::Packet(PacketError::Reset) => Outcome::ClientReset,
            Self::Packet(_) | Self::Offence(_) => Outcome::ClientProtocol,
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Hearing<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { packets: Packets::new(body), conversation: Conversation::default(), ahead: None }
    }

    /// The dial has been answered.
    pub(crate) fn opened(&mut self, connect_id: i64) {
        self.conversation.opened(connect_id);
    }

    /// The next that matters; bound the wait. Safe to cancel.
    pub(crate) async fn next(&mut self) -> Result<Heard, Fault> {
        std::future::poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Resolves when the client has said something more, which [`Self::next`] still returns. Safe to cancel.
    pub(crate) async fn listen(&mut self) {
        let heard = self.next().await;
        self.ahead = Some(heard);
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Heard, Fault>> {
        if let Some(heard) = self.ahead.take() {
            return Poll::Ready(heard);
        }
        loop {
            let Some(packet) = ready!(self.packets.poll_next(cx))? else { return Poll::Ready(Ok(Heard::End)) };
            let heard = match self.conversation.hear(packet)? {
                Said::Nothing => continue,
                Said::Dial(request) => Heard::Dial(request),
                Said::CancelDial => Heard::CancelDial,
                Said::Data(bytes) => Heard::Data(bytes),
                Said::Close(connect_id) => Heard::Close(connect_id),
            };
            return Poll::Ready(Ok(heard));
        }
    }
}

impl Fault {
    /// What the client is told in packets.
    pub(crate) fn answers(self) -> Vec<Packet> {
        match self {
            Self::Packet(_) => Vec::new(),
            Self::Offence(offence) => offence.answers(),
        }
    }

    /// How the call ends.
    pub(crate) fn status(self) -> Status {
        let code = match self {
            Self::Packet(PacketError::Compressed) => Code::Unimplemented,
            Self::Packet(PacketError::TooLong) => Code::ResourceExhausted,
            Self::Packet(_) | Self::Offence(_) => Code::InvalidArgument,
        };
        Status::of(code, &self)
    }
}
