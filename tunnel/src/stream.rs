//! One proxied connection's stream: two halves whose drop is a reset, never a clean end.

pub(crate) mod credit;
pub(crate) mod delivery;
pub(crate) mod download;
pub(crate) mod ending;
pub(crate) mod metered;
pub(crate) mod relay;
pub(crate) mod thread_buffers;
pub(crate) mod traffic;
pub(crate) mod upgraded;
pub(crate) mod upload;
pub(crate) mod windows;
pub(crate) mod write_pacing;

use std::{
    fmt,
    future::{Future, poll_fn},
    io, mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::future::OptionFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    stream::ending::is_stopped,
    stream::windows::{Receiving, Sending, Windows},
    wire::code::ResetReason,
};

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
    /// Gone when the direction breaks off behind its last byte.
    stream: Option<quinn::SendStream>,
    /// FIN or RESET_STREAM is sent; nothing is left for `drop` to do.
    ended: bool,
    /// Present while somebody waits for it.
    stopped: Option<Stopped>,
    /// Absent until the stream is dialled, and with a peer that does not know of windows.
    window: Option<Sending>,
}

/// quinn's word that the peer stopped reading, or has everything after FIN.
struct Stopped(Pin<Box<dyn Future<Output = Result<Option<quinn::VarInt>, quinn::StoppedError>> + Send + Sync>>);

/// The direction from the peer.
#[derive(Debug)]
pub struct ReceiveHalf {
    stream: quinn::RecvStream,
    ended: bool,
    /// Absent until the stream is dialled.
    window: Option<Receiving>,
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
        let send = SendHalf { stream: Some(send), ended: false, stopped: None, window: None };
        Self { send, receive: ReceiveHalf { stream: receive, ended: false, window: None } }
    }

    /// What follows is payload, and its sender waits for windows: here after the first `window` bytes.
    /// `breaks` says whether the peer knows of breaks.
    pub(crate) fn begin(&mut self, windows: &Arc<Windows>, window: u64, breaks: bool) {
        let (sending, receiving) = windows.begin(self.receive.stream.id(), window, breaks);
        (self.send.window, self.receive.window) = (sending, Some(receiving));
    }

    pub(crate) fn quic(&mut self) -> (&mut quinn::SendStream, &mut quinn::RecvStream) {
        (self.send.quic(), &mut self.receive.stream)
    }

    /// Breaks off both directions with `reason`; what was sent still arrives.
    pub fn reset(mut self, reason: ResetReason) {
        self.send.reset(reason);
        self.receive.stop(reason);
    }
}

impl SendHalf {
    fn quic(&mut self) -> &mut quinn::SendStream {
        self.stream.as_mut().expect("taken out by the last call only")
    }

    /// How many bytes the peer's window lets us send now: at least one.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        match self.window.as_ref().map_or(Poll::Ready(usize::MAX), |window| window.poll_room(cx)) {
            Poll::Ready(room) => Poll::Ready(Ok(room)),
            // No grant comes for a stream that is broken.
            Poll::Pending => self.poll_ended(cx).map(|ended| ended.map_or_else(Err, |()| Err(Broken::Lost))),
        }
    }

    /// Sends from `bytes`, which must fit the room, what the tunnel takes now, and leaves the rest in it; at least one
    /// byte.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &mut Bytes) -> Poll<Result<usize, Broken>> {
        let written = ready!(pin!(self.quic().write_chunks(std::slice::from_mut(bytes))).poll(cx));
        if let (Some(window), Ok(written)) = (&mut self.window, &written) {
            window.sent(written.bytes);
        }
        Poll::Ready(written.map(|written| written.bytes).map_err(|error| match error {
            quinn::WriteError::Stopped(code) => Broken::Reset(ResetReason::from_code(code.into_inner())),
            quinn::WriteError::ConnectionLost(_)
            | quinn::WriteError::ClosedStream
            | quinn::WriteError::ZeroRttRejected => Broken::Lost,
        }))
    }

    /// Sends FIN. Then [`Self::poll_ended`] waits until the peer has everything.
    pub(crate) fn finish(&mut self) {
        // Only a stream that is closed already refuses; then there is nothing to finish.
        let _ = self.quic().finish();
        self.ended = true;
    }

    /// After [`Self::finish`], ready when the peer has everything. Before it and after it, ready with an error when the
    /// peer reads no further, or the tunnel is gone: that must be noticed while there is nothing to send, too.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let stream = self.stream.as_ref().expect("taken out by the last call only");
        let stopped = self.stopped.get_or_insert_with(|| Stopped(Box::pin(stream.stopped())));
        let ended = ready!(stopped.0.as_mut().poll(cx));
        self.stopped = None;
        Poll::Ready(match ended {
            Ok(Some(code)) => Err(Broken::Reset(ResetReason::from_code(code.into_inner()))),
            Ok(None) if self.ended => Ok(()),
            Ok(None) | Err(_) => Err(Broken::Lost),
        })
    }

    /// [`Self::finish`], and the wait after it. Without the wait, closing the tunnel right after the last stream has
    /// ended would lose that stream's tail.
    pub(crate) async fn complete(&mut self) -> Result<(), Broken> {
        self.finish();
        poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Resolves when the peer reads no further, or the tunnel is gone.
    pub(crate) fn broken(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.as_ref().map(quinn::SendStream::stopped);
        async move {
            // Whichever it was.
            let _ = OptionFuture::from(stopped).await;
        }
    }

    /// Breaks off. Who still reads gets what was sent before.
    pub(crate) fn reset(&mut self, reason: ResetReason) {
        if mem::replace(&mut self.ended, true) {
            return;
        }
        let Some(mut stream) = self.stream.take() else { return };
        match self.window.take() {
            Some(window) if window.outlives_a_break() && !is_stopped(&stream) => window.part(stream, reason),
            // Already closed is as good.
            Some(_) | None => drop(stream.reset(reason.varint())),
        }
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

impl fmt::Debug for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopped")
    }
}

impl ReceiveHalf {
    /// Fills `chunks` with what has arrived, without copying; 0 at FIN. Say what became of it with [`Self::passed_on`].
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, chunks: &mut [Bytes]) -> Poll<Result<usize, Broken>> {
        if let Some(reason) = self.window.as_ref().and_then(Receiving::broken) {
            return Poll::Ready(Err(Broken::Reset(reason)));
        }
        let polled = pin!(self.stream.read_chunks(chunks)).poll(cx);
        let Poll::Ready(read) = polled else {
            return self.poll_broken(cx).map(|reason| Err(Broken::Reset(reason)));
        };
        self.ended = matches!(read, Ok(None));
        Poll::Ready(read.map(Option::unwrap_or_default).map_err(|error| match error {
            quinn::ReadError::Reset(code) => Broken::Reset(ResetReason::from_code(code.into_inner())),
            quinn::ReadError::ConnectionLost(_)
            | quinn::ReadError::ClosedStream
            | quinn::ReadError::IllegalOrderedRead
            | quinn::ReadError::ZeroRttRejected => Broken::Lost,
        }))
    }

    /// Why the peer broke off, where nothing is left to read.
    fn poll_broken(&self, cx: &Context<'_>) -> Poll<ResetReason> {
        let broken = self.window.as_ref().and_then(|window| window.poll_broken(cx));
        broken.map_or(Poll::Pending, Poll::Ready)
    }

    /// `bytes` have left this process: their sender may send as many more.
    pub(crate) fn passed_on(&mut self, bytes: usize) {
        if let Some(window) = &mut self.window {
            window.consumed(bytes as u64);
        }
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

impl From<Broken> for io::Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Reset(_) => io::ErrorKind::ConnectionReset.into(),
            Broken::Lost => io::ErrorKind::NotConnected.into(),
        }
    }
}

/// For protocols that read and write the stream themselves (HTTP). A reset reads as `ConnectionReset`.
impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let half = &mut self.get_mut().receive;
        let room = buffer.remaining();
        let broken = |reason| Err(Broken::Reset(reason).into());
        if let Some(reason) = half.window.as_ref().and_then(Receiving::broken) {
            return Poll::Ready(broken(reason));
        }
        let Poll::Ready(read) = AsyncRead::poll_read(Pin::new(&mut half.stream), context, buffer) else {
            return half.poll_broken(context).map(broken);
        };
        if read.is_ok() && room > 0 {
            let count = room - buffer.remaining();
            half.ended = count == 0;
            half.passed_on(count);
        }
        Poll::Ready(read)
    }
}

/// `shutdown` sends FIN; it does not wait for the peer to have it.
impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let half = &mut self.get_mut().send;
        let room = ready!(half.poll_room(context))?;
        let count = ready!(AsyncWrite::poll_write(Pin::new(half.quic()), context, &bytes[..bytes.len().min(room)]))?;
        if let Some(window) = &mut half.window {
            window.sent(count);
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(self.get_mut().send.quic()), context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = &mut self.get_mut().send;
        half.ended = true;
        AsyncWrite::poll_shutdown(Pin::new(half.quic()), context)
    }
}
