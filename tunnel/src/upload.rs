//! One direction of a relay: from a connection into the tunnel.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::AsyncRead;

use crate::{
    relay::{ROUNDS, RelayEnd, local},
    scratch,
    stream::SendHalf,
    traffic::Traffic,
};

#[derive(Debug)]
pub(crate) struct Upload<R> {
    send: SendHalf,
    reader: R,
    state: State,
}

#[derive(Debug)]
enum State {
    Reading,
    /// What was read and the tunnel has not taken yet.
    Writing(Bytes),
    /// FIN is sent.
    Finishing,
    Ended,
}

impl<R: AsyncRead + Unpin> Upload<R> {
    pub(crate) fn new(send: SendHalf, reader: R) -> Self {
        Self { send, reader, state: State::Reading }
    }

    /// Copies; ready when the peer has everything up to the reader's end.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<Result<(), RelayEnd>> {
        for _ in 0..ROUNDS {
            match &mut self.state {
                State::Reading => {
                    let room = ready!(self.send.poll_room(cx))?;
                    match scratch::poll_read(&mut self.reader, cx, room) {
                        Poll::Ready(Ok(bytes)) if bytes.is_empty() => {
                            self.send.finish();
                            self.state = State::Finishing;
                        }
                        Poll::Ready(Ok(bytes)) => self.state = State::Writing(bytes),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(local(&error))),
                        // A peer that stops reading must be noticed while the reader is silent, not at its next byte.
                        Poll::Pending => return self.send.poll_ended(cx).map_err(Into::into),
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
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    pub(crate) fn into_half(self) -> SendHalf {
        self.send
    }
}
