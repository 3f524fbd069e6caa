//! A client's packets, read out of its request's body: gRPC's framing, and large DATA piece by piece.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::body::Body;
use prost::Message;

use super::packet::{PREFIX, Packet, PacketType};

/// Longest message. Go's client sends what its application writes at once as one message.
const LIMIT: usize = 8 * 1024 * 1024;

/// Longest message that is held until it is whole. A longer one is DATA, and passed on as it arrives.
const WHOLE: usize = 64 * 1024;

/// More than what stands before the bytes of a DATA packet.
const DATA_HEAD: usize = 32;

/// Reads packets from `body`. What is held for it is [`WHOLE`] at most.
#[derive(Debug)]
pub(crate) struct Packets<B> {
    body: B,
    /// What is left of the last frame.
    frame: Bytes,
    /// The beginning of something that is not whole.
    held: BytesMut,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Prefix,
    /// A message of this length.
    Whole(usize),
    /// The beginning of a long message of this length.
    DataHead(usize),
    /// So much of its bytes is to come.
    Data {
        connect_id: i64,
        left: usize,
    },
}

/// Why there is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PacketError {
    #[error("the message is no Packet; send konnectivity's client.proto")]
    Malformed,
    #[error("the message is compressed; send it without compression")]
    Compressed,
    #[error("the message is longer than 8 MiB; send less at once")]
    TooLong,
    #[error("a message of more than 64 KiB is not DATA whose bytes come last; send less at once")]
    LongAndOdd,
    #[error("the stream ended within a message; end it after one")]
    Truncated,
    /// Nobody is there to be answered.
    #[error("the client reset the stream")]
    Reset,
}

impl<B: Body<Data = Bytes> + Unpin> Packets<B> {
    pub(crate) fn new(body: B) -> Self {
        Self { body, frame: Bytes::new(), held: BytesMut::new(), state: State::Prefix }
    }

    /// The next packet, where a long one comes as several; `None` at the end.
    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Packet>, PacketError>> {
        loop {
            if let Some(packet) = self.advance()? {
                return Poll::Ready(Ok(Some(packet)));
            }
            if !self.frame.is_empty() {
                continue;
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                // Trailers mean nothing here.
                Some(Ok(frame)) => self.frame = frame.into_data().unwrap_or_default(),
                Some(Err(_)) => return Poll::Ready(Err(PacketError::Reset)),
                None if self.state == State::Prefix && self.held.is_empty() => return Poll::Ready(Ok(None)),
                None => return Poll::Ready(Err(PacketError::Truncated)),
            }
        }
    }

    /// One step with what has arrived; without a packet, either the frame is used up or another step is possible.
    fn advance(&mut self) -> Result<Option<Packet>, PacketError> {
        match self.state {
            State::Prefix => {
                if self.hold(PREFIX) {
                    self.state = next_state(&mut self.held)?;
                    // An empty message needs no more bytes.
                    return self.advance();
                }
            }
            State::Whole(length) => {
                if self.hold(length) {
                    self.state = State::Prefix;
                    let packet = Packet::decode(self.held.split().freeze());
                    return packet.map(Some).map_err(|_| PacketError::Malformed);
                }
            }
            State::DataHead(length) => {
                if self.hold(DATA_HEAD) {
                    let (head, connect_id) = data_head(&self.held, length).ok_or(PacketError::LongAndOdd)?;
                    self.held.advance(head);
                    let piece = self.held.split().freeze();
                    self.state = State::Data { connect_id, left: length - head - piece.len() };
                    return Ok(Some(Packet::data(connect_id, piece)));
                }
            }
            State::Data { connect_id, left } => {
                let piece = self.frame.split_to(left.min(self.frame.len()));
                let left = left - piece.len();
                self.state = if left == 0 { State::Prefix } else { State::Data { connect_id, left } };
                if !piece.is_empty() {
                    return Ok(Some(Packet::data(connect_id, piece)));
                }
            }
        }
        Ok(None)
    }

    /// Whether `count` bytes are held, after what has arrived was taken.
    fn hold(&mut self, count: usize) -> bool {
        let missing = count.saturating_sub(self.held.len()).min(self.frame.len());
        self.held.extend_from_slice(&self.frame.split_to(missing));
        self.held.len() >= count
    }
}

/// What follows a prefix, which is taken off.
fn next_state(prefix: &mut BytesMut) -> Result<State, PacketError> {
    let flag = prefix.get_u8();
    let length = usize::try_from(prefix.get_u32()).map_err(|_| PacketError::TooLong)?;
    match (flag, length) {
        (0, ..=WHOLE) => Ok(State::Whole(length)),
        (0, ..=LIMIT) => Ok(State::DataHead(length)),
        (0, _) => Err(PacketError::TooLong),
        (1, _) => Err(PacketError::Compressed),
        _ => Err(PacketError::Malformed),
    }
}

/// The length of what stands before the bytes of a DATA packet of `length`, and its connection. Everybody's generated code
/// writes fields in the order of their numbers, so that the bytes are the packet's end.
fn data_head(start: &[u8], length: usize) -> Option<(usize, i64)> {
    const KIND: u64 = 1 << 3;
    const DATA: u64 = 4 << 3 | 2;
    const CONNECT_ID: u64 = 1 << 3;
    const BYTES: u64 = 3 << 3 | 2;
    let mut rest = start;
    let next = |rest: &mut &[u8]| prost::encoding::decode_varint(rest).ok();
    let is_data = next(&mut rest)? == KIND && next(&mut rest)? == PacketType::Data as u64 && next(&mut rest)? == DATA;
    let data = next(&mut rest)?;
    let data_ends = ((start.len() - rest.len()) as u64).checked_add(data)?;
    let mut key = next(&mut rest)?;
    let mut connect_id = 0;
    if key == CONNECT_ID {
        connect_id = i64::from_ne_bytes(next(&mut rest)?.to_ne_bytes());
        key = next(&mut rest)?;
    }
    let is_bytes = key == BYTES;
    let bytes = next(&mut rest)?;
    let head = start.len() - rest.len();
    let bytes_end = (head as u64).checked_add(bytes)?;
    let fits = is_data && is_bytes && data_ends == length as u64 && bytes_end == data_ends;
    fits.then_some((head, connect_id))
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, convert::Infallible, task::Waker};

    use hyper::body::Frame;
    use proptest::prelude::*;

    use super::*;
    use crate::frontend::konnectivity::packet::{Data, Payload};

    /// A body of these frames.
    struct Frames(VecDeque<Bytes>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|frame| Ok(Frame::data(frame))))
        }
    }

    /// All packets of a body that comes in frames of `size`, and how it ended.
    fn read(body: &[u8], size: usize) -> (Vec<Packet>, Result<(), PacketError>) {
        let mut packets = Packets::new(Frames(body.chunks(size).map(Bytes::copy_from_slice).collect()));
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        loop {
            match packets.poll_next(&mut cx) {
                Poll::Ready(Ok(Some(packet))) => all.push(packet),
                Poll::Ready(Ok(None)) => return (all, Ok(())),
                Poll::Ready(Err(error)) => return (all, Err(error)),
                Poll::Pending => unreachable!("the body is always ready"),
            }
            assert!(packets.held.len() <= WHOLE);
        }
    }

    fn joined(packets: &[Packet]) -> Vec<u8> {
        let bytes = packets.iter().map(|packet| match &packet.payload {
            Some(Payload::Data(Data { connect_id: 7, data, .. })) => data.clone(),
            other => panic!("no DATA of 7: {other:?}"),
        });
        bytes.collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_long_message_is_passed_on_as_it_arrives() {
        let bytes: Vec<u8> = (0..4u32 << 20).map(|at| (at % 251) as u8).collect();
        let mut body = Packet::data(7, bytes.clone().into()).framed().to_vec();
        body.extend(Packet::data(7, "after".into()).framed());
        let (packets, end) = read(&body, 16 * 1024);
        assert_eq!(end, Ok(()));
        assert!(packets.len() > 200, "{}", packets.len());
        assert!(joined(&packets) == [&bytes[..], b"after"].concat());
    }

    #[test]
    fn what_cannot_be_read_is_told_apart() {
        let whole = Packet::dialled(1, 2).framed();
        let ends = |body: &[u8]| read(body, 7).1.unwrap_err();
        assert_eq!(ends(&whole[..whole.len() - 1]), PacketError::Truncated);
        assert_eq!(ends(b"\0\0"), PacketError::Truncated);
        assert_eq!(ends(b"\x01\0\0\0\0"), PacketError::Compressed);
        assert_eq!(ends(b"\x02\0\0\0\0"), PacketError::Malformed);
        assert_eq!(ends(b"\0\0\0\0\x02\x22\x7f"), PacketError::Malformed);
        assert_eq!(ends(b"\0\0\x80\0\x01"), PacketError::TooLong);
        let odd = [&b"\0\0\x01\0\x01"[..], &[b'x'; 100]].concat();
        assert_eq!(ends(&odd), PacketError::LongAndOdd);
        let data = Packet::data(7, vec![0; WHOLE].into()).framed();
        assert_eq!(ends(&data[..data.len() - 1]), PacketError::Truncated);
    }

    #[test]
    fn an_empty_message_is_a_packet() {
        assert_eq!(read(b"\0\0\0\0\0", 5), (vec![Packet::default()], Ok(())));
    }

    proptest! {
        #[test]
        fn however_the_frames_are_cut_the_bytes_are_the_same(
            lengths in prop::collection::vec(prop_oneof![0usize..200, WHOLE - 100..WHOLE + 100], 1..4),
            size in 1usize..20_000,
        ) {
            let messages = lengths.iter().map(|length| Packet::data(7, vec![0x5a; *length].into()).framed());
            let body = messages.collect::<Vec<_>>().concat();
            let (packets, end) = read(&body, size);
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(joined(&packets).len(), lengths.iter().sum::<usize>());
        }

        #[test]
        fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..300), size in 1usize..50) {
            let _ = read(&body, size);
            let _ = read(&[&b"\0\0\x01\x10\0\x08\x04\x22"[..], &body].concat(), size);
        }
    }
}
