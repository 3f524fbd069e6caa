//! Frames of SPDY/3.1, as far as Kubernetes' streams use them.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The most that one frame may carry here; clients send 32 KiB at a time.
const LARGEST: usize = 1024 * 1024;
const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
/// The upper bit of a stream's id belongs to the frame.
const ID: u32 = 0x7fff_ffff;
const FIN: u8 = 1;

/// One frame. Header blocks are compressed as they are on the wire, because that depends on all blocks before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    SynStream {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    SynReply {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        block: Bytes,
    },
    WindowUpdate {
        stream: u32,
        delta: u32,
    },
    Data {
        stream: u32,
        fin: bool,
        bytes: Bytes,
    },
    /// SETTINGS, and what has no meaning here.
    Other {
        kind: u16,
        body: Bytes,
    },
}

/// A frame that cannot be understood; the connection ends by it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum BadFrame {
    #[error("a frame of SPDY version {0}; speak version 3")]
    Version(u16),
    #[error("a frame of {0} bytes; send at most {LARGEST}")]
    Large(usize),
    #[error("a frame of type {0} that is shorter than its fields; send it whole")]
    Short(u16),
}

impl Frame {
    /// The next frame; `None` when the stream ends before one.
    pub(super) async fn read(reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let mut head = [0; 8];
        if reader.read(&mut head[..1]).await? == 0 {
            return Ok(None);
        }
        reader.read_exact(&mut head[1..]).await?;
        let length = length(head).map_err(io::Error::other)?;
        let mut body = vec![0; length];
        reader.read_exact(&mut body).await?;
        Self::decode(head, body.into()).map(Some).map_err(io::Error::other)
    }

    /// The frame with that head and that body.
    fn decode(head: [u8; 8], mut body: Bytes) -> Result<Self, BadFrame> {
        let [a, b, c, d, flags, ..] = head;
        let fin = flags & FIN != 0;
        let first = u16::from_be_bytes([a, b]);
        if first & CONTROL == 0 {
            return Ok(Self::Data { stream: u32::from_be_bytes([a, b, c, d]), fin, bytes: body });
        }
        if first != CONTROL | VERSION {
            return Err(BadFrame::Version(first & !CONTROL));
        }
        let kind = u16::from_be_bytes([c, d]);
        let mut field = |mask: u32| body.try_get_u32().map(|value| value & mask).map_err(|_| BadFrame::Short(kind));
        Ok(match kind {
            1 => {
                let stream = field(ID)?;
                let _associated_to = field(ID)?;
                // Priority and credential slot.
                body.try_get_u16().map_err(|_| BadFrame::Short(kind))?;
                Self::SynStream { stream, fin, block: body }
            }
            2 => Self::SynReply { stream: field(ID)?, fin, block: body },
            3 => Self::Reset { stream: field(ID)?, status: field(u32::MAX)? },
            6 => Self::Ping(field(u32::MAX)?),
            7 => Self::GoAway { last: field(ID)?, status: field(u32::MAX)? },
            8 => Self::Headers { stream: field(ID)?, fin, block: body },
            9 => Self::WindowUpdate { stream: field(ID)?, delta: field(ID)? },
            kind => Self::Other { kind, body },
        })
    }

    /// Its bytes on the wire.
    pub(super) fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        let (kind, fin) = match self {
            Self::Data { stream, fin, bytes } => {
                return assemble(stream & ID, *fin, bytes);
            }
            Self::SynStream { stream, fin, block } => {
                body.put_u32(*stream);
                body.put_u32(0);
                body.put_u16(0);
                body.put_slice(block);
                (1, *fin)
            }
            Self::SynReply { stream, fin, block } => {
                body.put_u32(*stream);
                body.put_slice(block);
                (2, *fin)
            }
            Self::Reset { stream, status } => (3, pair(&mut body, *stream, *status)),
            Self::Ping(id) => {
                body.put_u32(*id);
                (6, false)
            }
            Self::GoAway { last, status } => (7, pair(&mut body, *last, *status)),
            Self::Headers { stream, fin, block } => {
                body.put_u32(*stream);
                body.put_slice(block);
                (8, *fin)
            }
            Self::WindowUpdate { stream, delta } => (9, pair(&mut body, *stream, *delta)),
            Self::Other { kind, body: other } => {
                body.put_slice(other);
                (*kind, false)
            }
        };
        assemble(u32::from(CONTROL | VERSION) << 16 | u32::from(kind), fin, &body)
    }
}

/// How many bytes follow that head.
fn length(head: [u8; 8]) -> Result<usize, BadFrame> {
    let length = head[5..].iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > LARGEST { Err(BadFrame::Large(length)) } else { Ok(length) }
}

fn assemble(first: u32, fin: bool, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + body.len());
    frame.put_u32(first);
    frame.put_uint(u64::from(fin) << 24 | body.len() as u64, 4);
    frame.put_slice(body);
    frame.freeze()
}

/// Writes two fields of a frame that cannot end its stream.
fn pair(body: &mut BytesMut, first: u32, second: u32) -> bool {
    body.put_u32(first);
    body.put_u32(second);
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from)
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let id = || 0..=ID;
        prop_oneof![
            (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, block)| Frame::SynStream { stream, fin, block }),
            (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, block)| Frame::SynReply { stream, fin, block }),
            (id(), any::<u32>()).prop_map(|(stream, status)| Frame::Reset { stream, status }),
            any::<u32>().prop_map(Frame::Ping),
            (id(), any::<u32>()).prop_map(|(last, status)| Frame::GoAway { last, status }),
            (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, block)| Frame::Headers { stream, fin, block }),
            (id(), id()).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
            (id(), any::<bool>(), bytes()).prop_map(|(stream, fin, bytes)| Frame::Data { stream, fin, bytes }),
            (10_u16.., bytes()).prop_map(|(kind, body)| Frame::Other { kind, body }),
        ]
    }

    async fn all(mut wire: &[u8]) -> io::Result<Vec<Frame>> {
        let mut frames = Vec::new();
        while let Some(frame) = Frame::read(&mut wire).await? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn wait<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_again(frames in prop::collection::vec(frame(), 0..5)) {
            let wire: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
            prop_assert_eq!(wait(all(&wire)).unwrap(), frames);
        }

        #[test]
        fn a_frame_that_is_cut_off_is_an_error(frame in frame(), cut in any::<prop::sample::Index>()) {
            let wire = frame.encode();
            let cut = 1 + cut.index(wire.len() - 1);
            prop_assert!(wait(all(&wire[..cut])).is_err());
        }

        #[test]
        fn no_bytes_are_too_strange(head in any::<[u8; 8]>(), body in bytes()) {
            // Some are frames and some are not; what is a frame is one that can be written.
            if let Ok(frame) = Frame::decode(head, body) {
                prop_assert!(frame.encode().len() >= 8);
            }
        }
    }

    #[test]
    fn frames_have_the_bytes_of_the_specification() {
        let ping = [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1];
        assert_eq!(Frame::Ping(1).encode(), ping.as_slice());
        let data = [0, 0, 0, 5, 1, 0, 0, 2, b'h', b'i'];
        assert_eq!(Frame::Data { stream: 5, fin: true, bytes: "hi".into() }.encode(), data.as_slice());
        assert_eq!(Frame::decode([0x80, 2, 0, 6, 0, 0, 0, 4], Bytes::new()), Err(BadFrame::Version(2)));
        assert_eq!(length([0, 0, 0, 1, 0, 0xff, 0xff, 0xff]), Err(BadFrame::Large(0xff_ffff)));
    }
}
