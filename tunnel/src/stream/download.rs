//! One direction of a relay: out of the tunnel to a connection.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use crate::{
    stream::ReceiveHalf,
    stream::relay::{ROUNDS, RelayEnd, local},
    stream::thread_buffers::{self, CHUNKS},
    stream::traffic::Traffic,
    stream::write_pacing::WritePacing,
};

#[derive(Debug)]
pub(crate) struct Download<W> {
    receive: ReceiveHalf,
    writer: W,
    state: State,
    rest: WritePacing,
}

#[derive(Debug)]
enum State {
    Reading,
    /// What the writer has not taken yet, which is nothing but when it is slow.
    Writing(Box<[Bytes]>),
    Flushing,
    ShuttingDown,
    Ended,
    Broken(RelayEnd),
}

impl<W: AsyncWrite + Unpin> Download<W> {
    pub(crate) fn new(receive: ReceiveHalf, writer: W) -> Self {
        Self { receive, writer, state: State::Reading, rest: WritePacing::default() }
    }

    /// Copies; ready when the writer has everything up to the stream's end, and from the moment on when it breaks off.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<Result<(), RelayEnd>> {
        let polled = self.poll_to_end(cx, traffic);
        if let Poll::Ready(Err(end)) = polled {
            self.state = State::Broken(end);
        }
        polled
    }

    fn poll_to_end(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<Result<(), RelayEnd>> {
        for _ in 0..ROUNDS {
            match &mut self.state {
                State::Reading => {
                    ready!(self.rest.poll(cx));
                    let before = traffic.out_of_tunnel();
                    self.state = ready!(self.poll_copy(cx, traffic))?;
                    self.rest.after_write(traffic, before);
                }
                State::Writing(chunks) => {
                    let Self { receive, writer, .. } = self;
                    let written = poll_write(writer, cx, chunks, |count| passed_on(receive, traffic, count));
                    ready!(written).map_err(|error| local(&error))?;
                    self.state = State::Flushing;
                }
                State::Flushing => {
                    ready!(Pin::new(&mut self.writer).poll_flush(cx)).map_err(|error| local(&error))?;
                    self.state = State::Reading;
                }
                State::ShuttingDown => {
                    ready!(Pin::new(&mut self.writer).poll_shutdown(cx)).map_err(|error| local(&error))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
                State::Broken(end) => return Poll::Ready(Err(*end)),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Reads what has arrived and writes it at once; keeps only what the writer does not take.
    fn poll_copy(&mut self, cx: &mut Context<'_>, traffic: &Traffic) -> Poll<Result<State, RelayEnd>> {
        let Self { receive, writer, .. } = self;
        let mut slots = thread_buffers::chunks();
        let read = receive.poll_read(cx, &mut slots);
        let next = match read {
            Poll::Ready(Ok(0)) => Poll::Ready(Ok(State::ShuttingDown)),
            Poll::Ready(Ok(count)) => {
                let chunks = &mut slots[..count];
                let written = poll_write(writer, cx, chunks, |count| passed_on(receive, traffic, count));
                let rest = chunks.iter_mut().map(mem::take).filter(|chunk| !chunk.is_empty());
                Poll::Ready(match written {
                    Poll::Ready(Ok(())) => Ok(State::Flushing),
                    Poll::Ready(Err(error)) => {
                        rest.for_each(drop);
                        Err(local(&error))
                    }
                    Poll::Pending => Ok(State::Writing(rest.collect())),
                })
            }
            Poll::Ready(Err(broken)) => Poll::Ready(Err(broken.into())),
            Poll::Pending => Poll::Pending,
        };
        thread_buffers::give_back(slots);
        next
    }

    pub(crate) fn into_half(self) -> ReceiveHalf {
        self.receive
    }
}

fn passed_on(receive: &mut ReceiveHalf, traffic: &Traffic, count: usize) {
    receive.passed_on(count);
    traffic.add_out_of_tunnel(count as u64);
}

/// Writes all of `chunks`, several with one call, and leaves those empty that are written: a chunk pins the buffer it
/// arrived in. Tells `count` of every write.
fn poll_write(
    writer: &mut (impl AsyncWrite + Unpin),
    cx: &mut Context<'_>,
    chunks: &mut [Bytes],
    mut count: impl FnMut(usize),
) -> Poll<io::Result<()>> {
    let mut first = chunks.iter().take_while(|chunk| chunk.is_empty()).count();
    while first < chunks.len() {
        let mut slices = [IoSlice::new(&[]); CHUNKS];
        for (slice, chunk) in slices.iter_mut().zip(&chunks[first..]) {
            *slice = IoSlice::new(chunk);
        }
        let slices = &slices[..chunks.len() - first];
        let mut written = ready!(Pin::new(&mut *writer).poll_write_vectored(cx, slices))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        count(written);
        while first < chunks.len() && written >= chunks[first].len() {
            written -= chunks[first].len();
            chunks[first] = Bytes::new();
            first += 1;
        }
        if written > 0 {
            chunks[first].advance(written);
        }
    }
    Poll::Ready(Ok(()))
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes `limit` bytes a call, to break writes between and inside chunks.
    #[derive(Default)]
    struct Narrow(Vec<u8>, usize);

    impl AsyncWrite for Narrow {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let count = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn writes_that_take_a_part_lose_and_repeat_nothing() {
        let mut cx = Context::from_waker(Waker::noop());
        for limit in 1..12 {
            let mut chunks = ["", "abc", "", "defgh", "i"].map(|text| Bytes::from_static(text.as_bytes()));
            let mut writer = Narrow(Vec::new(), limit);
            let mut counted = 0;
            assert!(poll_write(&mut writer, &mut cx, &mut chunks, |count| counted += count).is_ready());
            assert_eq!((writer.0.as_slice(), counted), (&b"abcdefghi"[..], 9));
            assert!(chunks.iter().all(Bytes::is_empty));
        }
    }
}
