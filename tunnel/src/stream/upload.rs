//! One direction of a relay: from a connection into the tunnel.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::{
    stream::SendHalf,
    stream::relay::{ROUNDS, RelayEnd, local},
    stream::thread_buffers,
    stream::traffic::Traffic,
};

#[derive(Debug)]
pub(crate) struct Upload<R> {
    send: SendHalf,
    reader: R,
    state: State,
    /// The connection has broken off for its writer: the reader has what is there now, and then this end.
    concluded: Option<RelayEnd>,
}

#[derive(Debug)]
enum State {
    Reading,
    /// What was read and the tunnel has not taken yet.
    Writing(Bytes),
    /// FIN is sent.
    Finishing,
    Ended,
    Broken(RelayEnd),
}

impl<R: AsyncRead + Unpin> Upload<R> {
    pub(crate) fn new(send: SendHalf, reader: R) -> Self {
        Self { send, reader, state: State::Reading, concluded: None }
    }

    /// The connection has broken off with `end`. What its reader has by now still goes to the peer.
    pub(crate) fn conclude(&mut self, end: RelayEnd) {
        self.concluded = Some(end);
    }

    /// Copies; ready when the peer has everything up to the reader's end, and from the moment on when it breaks off.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<Result<(), RelayEnd>> {
        let polled = self.poll_copy(cx, traffic);
        if let Poll::Ready(Err(end)) = polled {
            self.state = State::Broken(end);
        }
        polled
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<Result<(), RelayEnd>> {
        for _ in 0..ROUNDS {
            match &mut self.state {
                State::Reading => {
                    let room = ready!(self.send.poll_room(cx))?;
                    match (thread_buffers::poll_read(&mut self.reader, cx, room), self.concluded) {
                        (Poll::Ready(Ok(bytes)), _) if !bytes.is_empty() => self.state = State::Writing(bytes),
                        // After a break the kernel shows an end.
                        (_, Some(end)) => return Poll::Ready(Err(end)),
                        (Poll::Ready(Ok(_)), None) => {
                            self.send.finish();
                            self.state = State::Finishing;
                        }
                        (Poll::Ready(Err(error)), None) => return Poll::Ready(Err(local(&error))),
                        // A peer that stops reading must be noticed while the reader is silent, not at its next byte.
                        (Poll::Pending, None) => return self.send.poll_ended(cx).map_err(Into::into),
                    }
                }
                State::Writing(bytes) => {
                    let count = ready!(self.send.poll_write(cx, bytes))?;
                    traffic.add_into_tunnel(count as u64);
                    if bytes.is_empty() {
                        self.state = State::Reading;
                    }
                }
                State::Finishing => {
                    ready!(self.send.poll_ended(cx))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
                State::Broken(end) => return Poll::Ready(Err(*end)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    pub(crate) fn into_half(self) -> SendHalf {
        self.send
    }
}
