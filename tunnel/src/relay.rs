//! The byte relay between a stream and a connection: half-closes stay half-closes, resets stay resets.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    code::ResetReason,
    download::Download,
    stream::{Broken, Stream},
    traffic::Traffic,
    upload::Upload,
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
    traffic: &'a Traffic,
}

/// Copies both ways until both directions have ended, or either breaks off; then both are broken off.
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
    Relay { directions: Some((Upload::new(send, reader), Download::new(receive, writer))), traffic }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Future for Relay<'_, R, W> {
    type Output = RelayEnd;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<RelayEnd> {
        let relay = self.get_mut();
        let (upload, download) = relay.directions.as_mut().expect("not polled after its end");
        let end = match (upload.poll(cx, relay.traffic), download.poll(cx, relay.traffic)) {
            (Poll::Ready(Err(end)), _) | (_, Poll::Ready(Err(end))) => end,
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => RelayEnd::Complete,
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

impl RelayEnd {
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
