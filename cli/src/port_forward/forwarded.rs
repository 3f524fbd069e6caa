//! One forwarded connection: a local client joined to a target, half-closes and resets kept.

use std::io;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::entry::Opened;

/// Below 64 KiB the system calls show.
const BUFFER: usize = 64 * 1024;

/// A local client and its target. Dropped before both directions have ended, both are reset: an error is never shown
/// as an end.
#[derive(Debug)]
pub(super) struct Forwarded {
    local: TcpStream,
    hub: TlsStream<TcpStream>,
    complete: bool,
}

impl Forwarded {
    /// Copies both ways until both directions have ended, or either fails.
    ///
    /// The hub ends a direction with close_notify (RFC 8446 section 6.1); a connection that just ends was cut.
    pub(super) async fn relay(local: TcpStream, opened: Opened) -> io::Result<()> {
        let Opened { stream, ahead } = opened;
        let mut both = Self { local, hub: stream, complete: false };
        let (local_reader, local_writer) = both.local.split();
        let (hub_reader, hub_writer) = tokio::io::split(&mut both.hub);
        // Not select!: the first direction to end must not take the other with it. try_join! leaves only on an error.
        tokio::try_join!(copy(local_reader, hub_writer), copy(ahead.as_ref().chain(hub_reader), local_writer))?;
        both.complete = true;
        Ok(())
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        if !self.complete {
            reset(&self.local);
            reset(self.hub.get_ref().0);
        }
    }
}

/// Has the socket reset when it is dropped.
pub(super) fn reset(tcp: &TcpStream) {
    // The socket may be gone already.
    let _ = tcp.set_zero_linger();
}

async fn copy(mut reader: impl AsyncRead + Unpin, mut writer: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return writer.shutdown().await;
        }
        writer.write_all(&buffer[..count]).await?;
        // TLS keeps what it could not write at once.
        writer.flush().await?;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn everything_is_copied_and_then_the_end() {
        let sent: Vec<u8> = (0..300_000_u32).map(|number| (number % 251) as u8).collect();
        let (writer, mut far) = duplex(1000);
        let mut received = Vec::new();
        let (copied, read) = tokio::join!(copy(sent.as_slice(), writer), far.read_to_end(&mut received));
        copied.unwrap();
        read.unwrap();
        assert!(received == sent);
    }
}
