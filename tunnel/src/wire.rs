//! Framing: one Protocol Buffers message behind a 4-byte big-endian length, at most [`MESSAGE_LIMIT`] bytes.

pub(crate) mod code;
pub(crate) mod control;
pub(crate) mod export;
pub(crate) mod message;

use std::io;

use bytes::{Bytes, BytesMut};
use prost::Message;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use crate::connection::ConnectionLost;

/// Longest message, in bytes. The longest legitimate one carries a certificate chain, about 4 KiB.
pub const MESSAGE_LIMIT: usize = 64 * 1024;

/// Room for what is read ahead, which grows with what comes. tokio-util's 8 KiB would be a quarter of an idle tunnel.
const READ_AHEAD: usize = 64;

/// A stream that carries messages and nothing else.
pub(crate) type Frames = FramedRead<quinn::RecvStream, LengthDelimitedCodec>;

/// Why a message could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the peer's message is longer than {MESSAGE_LIMIT} bytes")]
    TooLong,
    #[error("the peer's message cannot be decoded")]
    Malformed(#[source] prost::DecodeError),
    #[error("the peer's message says nothing that this version knows")]
    Empty,
    #[error("the stream ended before the message did")]
    Ended,
    #[error("the peer reset the stream")]
    Reset,
    #[error("the tunnel is lost")]
    Lost(#[source] ConnectionLost),
}

/// Reads messages from `stream` to its end.
pub(crate) fn frames(stream: quinn::RecvStream) -> Frames {
    FramedRead::with_capacity(stream, codec(), READ_AHEAD)
}

pub(crate) fn codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_length(4).max_frame_length(MESSAGE_LIMIT).new_codec()
}

/// What has come of [`frames`] on a stream of `connection`.
pub(crate) fn decode<M: Message + Default>(
    frame: Option<io::Result<BytesMut>>,
    connection: &quinn::Connection,
) -> Result<M, WireError> {
    match (frame, connection.close_reason()) {
        (Some(Ok(frame)), _) => M::decode(frame).map_err(WireError::Malformed),
        // The stream ends with its connection; the connection knows why.
        (Some(Err(_)), Some(lost)) => Err(WireError::Lost(lost.into())),
        (Some(Err(error)), None) if error.kind() == io::ErrorKind::InvalidData => Err(WireError::TooLong),
        (Some(Err(_)), None) => Err(WireError::Reset),
        (None, _) => Err(WireError::Ended),
    }
}

/// `message` with its length in front.
pub(crate) fn frame(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(4 + length);
    frame.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    message.encode_raw(&mut frame);
    frame.freeze()
}

/// Sends one message on `stream`.
pub(crate) async fn send(stream: &mut quinn::SendStream, message: &impl Message) -> Result<(), WireError> {
    stream.write_chunk(frame(message)).await.map_err(|error| match error {
        quinn::WriteError::ConnectionLost(error) => WireError::Lost(error.into()),
        quinn::WriteError::Stopped(_) | quinn::WriteError::ClosedStream | quinn::WriteError::ZeroRttRejected => {
            WireError::Reset
        }
    })
}

/// Receives exactly one message from `stream` and not a byte more: what follows it is payload.
/// (A buffering reader, as on the control stream, would swallow the payload's first bytes.)
pub(crate) async fn receive<M: Message + Default>(stream: &mut quinn::RecvStream) -> Result<M, WireError> {
    let mut length = [0; 4];
    read_exact(stream, &mut length).await?;
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MESSAGE_LIMIT {
        return Err(WireError::TooLong);
    }
    let mut message = vec![0; length];
    read_exact(stream, &mut message).await?;
    M::decode(message.as_slice()).map_err(WireError::Malformed)
}

async fn read_exact(stream: &mut quinn::RecvStream, buffer: &mut [u8]) -> Result<(), WireError> {
    stream.read_exact(buffer).await.map_err(|error| match error {
        quinn::ReadExactError::FinishedEarly(_) => WireError::Ended,
        quinn::ReadExactError::ReadError(error) => read_error(error),
    })
}

fn read_error(error: quinn::ReadError) -> WireError {
    match error {
        quinn::ReadError::ConnectionLost(error) => WireError::Lost(error.into()),
        quinn::ReadError::Reset(_)
        | quinn::ReadError::ClosedStream
        | quinn::ReadError::IllegalOrderedRead
        | quinn::ReadError::ZeroRttRejected => WireError::Reset,
    }
}
