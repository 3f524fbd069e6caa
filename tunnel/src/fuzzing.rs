//! Doors for the fuzz targets to the messages of the wire and their frames. Only with the feature `fuzzing`.

use bytes::BytesMut;
use prost::Message;
use tokio_util::codec::Decoder;

use crate::{
    wire,
    wire::message::{AgentMessage, Dial, DialReply, FromAgent, FromHub, FromJoin, JoinRequest},
};

/// The messages that either end decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Dial,
    DialReply,
    FromAgent,
    FromHub,
    JoinRequest,
    FromJoin,
}

impl Kind {
    pub const ALL: [Self; 6] =
        [Self::Dial, Self::DialReply, Self::FromAgent, Self::FromHub, Self::JoinRequest, Self::FromJoin];

    /// Decodes a message and encodes what was understood, as a frame.
    pub fn again(self, message: &[u8]) -> Option<Vec<u8>> {
        fn again<M: Message + Default>(message: &[u8]) -> Option<Vec<u8>> {
            Some(wire::frame(&M::decode(message).ok()?).to_vec())
        }
        match self {
            Self::Dial => again::<Dial>(message),
            Self::DialReply => again::<DialReply>(message),
            Self::FromAgent => again::<FromAgent>(message),
            Self::FromHub => again::<FromHub>(message),
            Self::JoinRequest => again::<JoinRequest>(message),
            Self::FromJoin => again::<FromJoin>(message),
        }
    }
}

/// What an agent says in a message of its control stream.
pub fn agent_message(message: &[u8]) -> Option<AgentMessage> {
    FromAgent::decode(message).ok()?.message
}

/// The frames of a control stream that arrives in these pieces, how much is held of the next, and whether it broke off.
pub fn frames<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, usize, bool) {
    let (mut codec, mut held, mut frames) = (wire::codec(), BytesMut::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match codec.decode(&mut held) {
                Ok(Some(frame)) => frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(_) => return (frames, held.len(), true),
            }
        }
    }
    (frames, held.len(), false)
}
