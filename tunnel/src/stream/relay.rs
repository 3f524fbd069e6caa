//! The byte relay between a stream and a connection: half-closes stay half-closes, resets stay resets.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Sleep, sleep},
};

use crate::{
    stream::download::Download,
    stream::ending::PARTING,
    stream::traffic::Traffic,
    stream::upload::Upload,
    stream::{Broken, Stream},
    wire::code::ResetReason,
};

/// How many steps one direction may make, of at most 64 KiB each, before the other and other tasks have their turn.
pub(crate) const ROUNDS: usize = 16;

/// How a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayEnd {
    /// Both directions ended with a FIN.
    Complete,
    /// The connection on this side was reset by its peer.
    LocalReset,
    /// The connection on this side failed in another way.
    LocalFailed(io::ErrorKind),
    /// The far side's connection broke off, for this reason.
    RemoteReset(ResetReason),
    /// The tunnel was lost.
    TunnelLost,
}

/// A relayed connection. Written out, because a generated future would hold its arguments twice, and an idle connection
/// is little else than this.
struct Relay<'a, R, W> {
    /// Both until the end.
    directions: Option<(Upload<R>, Download<W>)>,
    /// When one direction has broken off: how long the other may bring to its end what is in hand.
    parting: Option<Pin<Box<Sleep>>>,
    traffic: &'a Traffic,
}

/// Copies both ways until both directions have ended, or either breaks off; then both are broken off. What came before the
/// break is delivered first, as far as it is taken within [`PARTING`].
///
/// After any end but [`RelayEnd::Complete`] the caller must reset its connection (for TCP: zero linger, then close), so
/// that its peer sees an error and not an end. Dropping the future breaks off the stream in the same way.
pub fn relay(
    stream: Stream,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    traffic: &Traffic,
) -> impl Future<Output = RelayEnd> {
    let Stream { send, receive } = stream;
    let directions = Some((Upload::new(send, reader), Download::new(receive, writer)));
    Relay { directions, parting: None, traffic }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Future for Relay<'_, R, W> {
    type Output = RelayEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let relay = self.get_mut();
        let (upload, download) = relay.directions.as_mut().expect("not polled after its end");
        let down = download.poll(cx, relay.traffic);
        if let Poll::Ready(Err(end)) = down
            && !end.is_remote()
        {
            // The connection takes no more. What it has sent may still be unread.
            upload.conclude(end);
        }
        let end = match (upload.poll(cx, relay.traffic), down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => RelayEnd::Complete,
            // The far side reads no more. What it has sent may still be under way.
            (Poll::Ready(Err(end)), Poll::Pending) if end.is_remote() => ready!(relay.poll_parting(cx, end)),
            (Poll::Pending, Poll::Ready(Err(end))) if !end.is_remote() => ready!(relay.poll_parting(cx, end)),
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => end,
            // The first direction to end must not take the other with it.
            (Poll::Pending, _) | (_, Poll::Pending) => return Poll::Pending,
        };
        if let Some((upload, download)) = relay.directions.take()
            && let Some(reason) = end.reset_reason()
        {
            Stream { send: upload.into_half(), receive: download.into_half() }.reset(reason);
        }
        Poll::Ready(end)
    }
}

impl<R, W> Relay<'_, R, W> {
    fn poll_parting(&mut self, cx: &mut Context<'_>, end: RelayEnd) -> Poll<RelayEnd> {
        self.parting.get_or_insert_with(|| Box::pin(sleep(PARTING))).as_mut().poll(cx).map(|()| end)
    }
}

impl RelayEnd {
    /// It came through the tunnel.
    fn is_remote(self) -> bool {
        matches!(self, Self::RemoteReset(_) | Self::TunnelLost)
    }

    /// What the far side is told when this is the end of the relay here, if it needs to be told.
    fn reset_reason(self) -> Option<ResetReason> {
        match self {
            Self::Complete | Self::TunnelLost => None,
            Self::LocalReset => Some(ResetReason::ConnectionReset),
            Self::LocalFailed(_) => Some(ResetReason::ConnectionFailed),
            Self::RemoteReset(reason) => Some(reason),
        }
    }
}

/// A failure of the connection on this side.
pub(crate) fn local(error: &io::Error) -> RelayEnd {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let kind = error.kind();
    if matches!(kind, ConnectionReset | BrokenPipe | ConnectionAborted) {
        RelayEnd::LocalReset
    } else {
        RelayEnd::LocalFailed(kind)
    }
}

impl From<Broken> for RelayEnd {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Reset(reason) => Self::RemoteReset(reason),
            Broken::Lost => Self::TunnelLost,
        }
    }
}
