//! One proxied connection's stream: two halves whose drop is a reset, never a clean end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::code::ResetReason;

/// Both halves of a stream. A stream dropped before both directions have ended is reset: the peer sees an error, not
/// an end.
#[derive(Debug)]
pub struct Stream {
    /// Towards the peer.
    pub send: SendHalf,
    /// From the peer.
    pub receive: ReceiveHalf,
}

/// The direction towards the peer.
#[derive(Debug)]
pub struct SendHalf {
    stream: quinn::SendStream,
    /// FIN or RESET_STREAM is sent; nothing is left for `drop` to do.
    ended: bool,
}

/// The direction from the peer.
#[derive(Debug)]
pub struct ReceiveHalf {
    stream: quinn::RecvStream,
    ended: bool,
}

/// Why a direction broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The peer reset the direction, or stopped reading it.
    Reset(ResetReason),
    /// The tunnel is gone.
    Lost,
}

impl Stream {
    pub(crate) fn new(send: quinn::SendStream, receive: quinn::RecvStream) -> Self {
        Self { send: SendHalf { stream: send, ended: false }, receive: ReceiveHalf { stream: receive, ended: false } }
    }

    pub(crate) fn quic(&mut self) -> (&mut quinn::SendStream, &mut quinn::RecvStream) {
        (&mut self.send.stream, &mut self.receive.stream)
    }

    /// Breaks off both directions with `reason`.
    pub fn reset(mut self, reason: ResetReason) {
        self.send.reset(reason);
        self.receive.stop(reason);
    }
}

impl SendHalf {
    pub(crate) async fn write(&mut self, bytes: Bytes) -> Result<(), Broken> {
        self.stream.write_chunk(bytes).await.map_err(|error| match error {
            quinn::WriteError::Stopped(code) => Broken::Reset(ResetReason::from_code(code.into_inner())),
            quinn::WriteError::ConnectionLost(_)
            | quinn::WriteError::ClosedStream
            | quinn::WriteError::ZeroRttRejected => Broken::Lost,
        })
    }

    /// Sends FIN, and waits until the peer has everything. Without the wait, closing the tunnel right after the last
    /// stream has ended would lose that stream's tail.
    pub(crate) async fn finish(&mut self) -> Result<(), Broken> {
        // Only a stream that is closed already refuses; then there is nothing to finish.
        let _ = self.stream.finish();
        self.ended = true;
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(Broken::Reset(ResetReason::from_code(code.into_inner()))),
            Err(_) => Err(Broken::Lost),
        }
    }

    /// Resolves when the peer reads no further, or the tunnel is gone.
    pub(crate) fn broken(&self) -> impl Future<Output = Broken> + Send + 'static {
        let stopped = self.stream.stopped();
        async move {
            match stopped.await {
                Ok(Some(code)) => Broken::Reset(ResetReason::from_code(code.into_inner())),
                Ok(None) | Err(_) => Broken::Lost,
            }
        }
    }

    pub(crate) fn reset(&mut self, reason: ResetReason) {
        // Already closed is as good.
        let _ = self.stream.reset(reason.varint());
        self.ended = true;
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.ended {
            // quinn would send FIN, which the peer would take for the end of the data.
            self.reset(ResetReason::Abandoned);
        }
    }
}

impl ReceiveHalf {
    /// Fills `chunks` with what has arrived, without copying; 0 at FIN.
    pub(crate) async fn read(&mut self, chunks: &mut [Bytes]) -> Result<usize, Broken> {
        let result = self.stream.read_chunks(chunks).await.map_err(|error| match error {
            quinn::ReadError::Reset(code) => Broken::Reset(ResetReason::from_code(code.into_inner())),
            quinn::ReadError::ConnectionLost(_)
            | quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Broken::Lost,
        });
        let count = result?;
        self.ended = count.is_none();
        Ok(count.unwrap_or(0))
    }

    pub(crate) fn stop(&mut self, reason: ResetReason) {
        // Already closed is as good.
        let _ = self.stream.stop(reason.varint());
        self.ended = true;
    }
}

impl Drop for ReceiveHalf {
    fn drop(&mut self) {
        if !self.ended {
            self.stop(ResetReason::Abandoned);
        }
    }
}

/// For protocols that read and write the stream themselves (HTTP). A reset reads as `ConnectionReset`.
impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let half = &mut self.get_mut().receive;
        let room = buffer.remaining();
        let polled = AsyncRead::poll_read(Pin::new(&mut half.stream), context, buffer);
        if matches!(polled, Poll::Ready(Ok(()))) && room > 0 && buffer.remaining() == room {
            half.ended = true;
        }
        polled
    }
}

/// `shutdown` sends FIN; it does not wait for the peer to have it.
impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.get_mut().send.stream), context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.get_mut().send.stream), context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = &mut self.get_mut().send;
        half.ended = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut half.stream), context)
    }
}
