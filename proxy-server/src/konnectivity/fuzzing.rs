//! The fuzz targets' doors to konnectivity's packets and to the authorities of its requests.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};

use super::{
    authority::Filter,
    hearing::{self, Hearing},
    hpack,
    packet::Packet,
};

/// Hears a client whose request's body is in these frames.
#[derive(Debug)]
pub struct Ear(Hearing<Frames>);

/// What the client says.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    Dial {
        protocol: String,
        address: String,
        random: i64,
    },
    CancelDial,
    Data(Bytes),
    Close(i64),
    End,
    /// It can be heard no further, and is told this in packets of gRPC.
    Fault(Vec<Bytes>),
}

#[derive(Debug)]
struct Frames(VecDeque<Bytes>);

impl Ear {
    pub fn new(frames: impl IntoIterator<Item = Bytes>) -> Self {
        Self(Hearing::new(Frames(frames.into_iter().collect())))
    }

    /// The dial has been answered.
    pub fn opened(&mut self, connect_id: i64) {
        self.0.opened(connect_id);
    }

    /// The next that matters; `None` would be a wait, which this body has none of.
    pub fn hear(&mut self) -> Option<Heard> {
        let Poll::Ready(heard) = self.0.poll_next(&mut Context::from_waker(Waker::noop())) else { return None };
        Some(match heard {
            Ok(hearing::Heard::Dial(request)) => {
                Heard::Dial { protocol: request.protocol, address: request.address, random: request.random }
            }
            Ok(hearing::Heard::CancelDial) => Heard::CancelDial,
            Ok(hearing::Heard::Data(bytes)) => Heard::Data(bytes),
            Ok(hearing::Heard::Close(connect_id)) => Heard::Close(connect_id),
            Ok(hearing::Heard::End) => Heard::End,
            Err(fault) => Heard::Fault(fault.answers().iter().map(Packet::framed).collect()),
        })
    }
}

/// Corrects the authorities in a block of fields.
pub fn correct_authorities(block: &mut [u8]) {
    hpack::correct_authorities(block);
}

/// What a connection's bytes become that arrive in these pieces, after the authorities of its requests are corrected.
pub fn with_authorities_corrected<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut filter, mut ready) = (Filter::new(), BytesMut::new());
    pieces.into_iter().for_each(|piece| filter.pass(piece, &mut ready));
    ready.to_vec()
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|frame| Ok(Frame::data(frame))))
    }
}
