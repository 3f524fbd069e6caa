//! The relay of an upgraded HTTP connection (RFC 9110 section 7.8), whose protocol says its ends itself.
//!
//! A WebSocket or SPDY is complete when its messages are. What then becomes of the connection says nothing more: Go's servers
//! close it without reading the client's last message, clients close it without TLS's close_notify, and Go's proxies take
//! each of these for an end.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::{
    stream::Stream,
    stream::relay::{RelayEnd, local, relay},
    stream::traffic::Traffic,
    wire::code::ResetReason,
};

/// As [`relay`], for a connection that was upgraded. `ahead` was read of `stream` already.
pub async fn relay_upgraded(
    stream: Stream,
    ahead: &[u8],
    connection: &mut (impl AsyncRead + AsyncWrite + Unpin),
    traffic: &Traffic,
) -> RelayEnd {
    let (reader, mut writer) = tokio::io::split(Upgraded { connection, heard: false, told: false });
    if let Err(error) = writer.write_all(ahead).await {
        stream.reset(ResetReason::ConnectionReset);
        return local(&error);
    }
    relay(stream, reader, writer, traffic).await
}

struct Upgraded<'a, C> {
    connection: &'a mut C,
    /// The peer's end was read.
    heard: bool,
    /// The peer was told the end.
    told: bool,
}

impl<C> Upgraded<'_, C> {
    /// What is written to a peer that has said its end may find nobody.
    fn unless_heard<T>(&self, polled: Poll<io::Result<T>>, instead: T) -> Poll<io::Result<T>> {
        polled.map(|done| if self.heard { done.or(Ok(instead)) } else { done })
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Upgraded<'_, C> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let upgraded = self.get_mut();
        let before = buffer.filled().len();
        let read = std::task::ready!(Pin::new(&mut *upgraded.connection).poll_read(cx, buffer));
        let ended = match &read {
            Ok(()) => buffer.filled().len() == before,
            Err(error) => upgraded.told || error.kind() == io::ErrorKind::UnexpectedEof,
        };
        upgraded.heard |= ended;
        Poll::Ready(if ended { Ok(()) } else { read })
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Upgraded<'_, C> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let upgraded = self.get_mut();
        let polled = Pin::new(&mut *upgraded.connection).poll_write(cx, bytes);
        upgraded.unless_heard(polled, bytes.len())
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let upgraded = self.get_mut();
        let polled = Pin::new(&mut *upgraded.connection).poll_write_vectored(cx, slices);
        upgraded.unless_heard(polled, slices.iter().map(|slice| slice.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let upgraded = self.get_mut();
        let polled = Pin::new(&mut *upgraded.connection).poll_flush(cx);
        upgraded.unless_heard(polled, ())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let upgraded = self.get_mut();
        upgraded.told = true;
        let polled = Pin::new(&mut *upgraded.connection).poll_shutdown(cx);
        upgraded.unless_heard(polled, ())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, join, sink};

    use super::*;

    /// Reads as `kind`, and fails each write.
    struct Broken(io::ErrorKind);

    impl AsyncRead for Broken {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(self.0.into()))
        }
    }

    impl AsyncWrite for Broken {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }
    }

    fn upgraded<C>(connection: &mut C) -> Upgraded<'_, C> {
        Upgraded { connection, heard: false, told: false }
    }

    #[tokio::test]
    async fn an_end_without_close_notify_is_an_end_and_nobody_need_hear_what_is_said_after_it() {
        let mut broken = Broken(io::ErrorKind::UnexpectedEof);
        let mut connection = upgraded(&mut broken);
        assert!(connection.write_all(b"before").await.is_err());
        assert_eq!(connection.read(&mut [0; 8]).await.unwrap(), 0);
        connection.write_all(b"the last message").await.unwrap();
        connection.shutdown().await.unwrap();
    }

    #[tokio::test]
    async fn a_reset_is_a_break_until_the_end_was_told() {
        let mut broken = join(Broken(io::ErrorKind::ConnectionReset), sink());
        let mut connection = upgraded(&mut broken);
        assert!(connection.read(&mut [0; 8]).await.is_err());
        connection.shutdown().await.unwrap();
        assert_eq!(connection.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
