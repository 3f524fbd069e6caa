//! A stream for those who read and write it themselves: what passes is counted.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{stream::Stream, stream::traffic::Traffic};

/// A stream, and where its bytes are counted.
#[derive(Debug)]
pub struct Metered {
    pub stream: Stream,
    pub traffic: Arc<Traffic>,
}

impl AsyncRead for Metered {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let metered = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut metered.stream).poll_read(cx, buffer);
        metered.traffic.add_out_of_tunnel((buffer.filled().len() - before) as u64);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let metered = self.get_mut();
        let polled = Pin::new(&mut metered.stream).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = &polled {
            metered.traffic.add_into_tunnel(*count as u64);
        }
        polled
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
