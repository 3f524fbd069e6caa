//! The fuzz targets' doors to konnectivity's packets and to the authorities of its requests.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame};

use super::{authority::Filter, hpack, packet::Packet, protocol::Event, request_stream::RequestStream};

/// Reads a client's packets from these frames of a request's body.
#[derive(Debug)]
pub struct FuzzedStream(RequestStream<Frames>);

/// What the client asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum FuzzedEvent {
    Dial {
        protocol: String,
        address: String,
        random: i64,
    },
    CancelDial,
    Data(Bytes),
    Close(i64),
    End,
    /// No more can be read; the client is told this in packets of gRPC.
    Error(Vec<Bytes>),
}

#[derive(Debug)]
struct Frames(VecDeque<Bytes>);

impl FuzzedStream {
    pub fn new(frames: impl IntoIterator<Item = Bytes>) -> Self {
        Self(RequestStream::new(Frames(frames.into_iter().collect())))
    }

    /// The dial succeeded.
    pub fn opened(&mut self, connect_id: i64) {
        self.0.opened(connect_id);
    }

    /// The next event; `None` would be a wait, which this body has none of.
    pub fn poll_event(&mut self) -> Option<FuzzedEvent> {
        let Poll::Ready(next) = self.0.poll_next(&mut Context::from_waker(Waker::noop())) else { return None };
        Some(match next {
            Ok(Some(Event::Dial(request))) => {
                FuzzedEvent::Dial { protocol: request.protocol, address: request.address, random: request.random }
            }
            Ok(Some(Event::CancelDial)) => FuzzedEvent::CancelDial,
            Ok(Some(Event::Data(bytes))) => FuzzedEvent::Data(bytes),
            Ok(Some(Event::Close(connect_id))) => FuzzedEvent::Close(connect_id),
            Ok(None) => FuzzedEvent::End,
            Err(error) => FuzzedEvent::Error(error.responses().iter().map(Packet::framed).collect()),
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
