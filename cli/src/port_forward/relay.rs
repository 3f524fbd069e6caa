//! The relay of one forwarded connection: a local client joined to a target, half-closes and resets kept.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use super::{entry::Opened, traffic::Traffic};

/// Below 64 KiB the system calls show.
const BUFFER: usize = 64 * 1024;

/// Copies both ways until both directions have ended, or either fails; then, as when this is dropped, both ends see a
/// reset: an error is never shown as an end.
///
/// The hub ends a direction with close_notify (RFC 8446 section 6.1); a connection that just ends was cut.
pub(super) async fn relay(mut local: TcpStream, opened: Opened, traffic: &Traffic) -> io::Result<()> {
    let Opened { stream: mut hub, ahead } = opened;
    // Set before and not after a failure: it holds even when this process is killed.
    reset_when_dropped(&local)?;
    reset_when_dropped(hub.get_ref().0)?;
    let (local_reader, local_writer) = local.split();
    let (hub_reader, hub_writer) = tokio::io::split(&mut hub);
    // Not select!: the first direction to end must not take the other with it. try_join! leaves only on an error.
    tokio::try_join!(
        copy(local_reader, hub_writer, &traffic.to_cluster),
        copy(ahead.as_ref().chain(hub_reader), local_writer, &traffic.from_cluster)
    )?;
    close_when_dropped(&local)?;
    close_when_dropped(hub.get_ref().0)
}

pub(super) fn reset_when_dropped(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_zero_linger()
}

fn close_when_dropped(tcp: &TcpStream) -> io::Result<()> {
    SockRef::from(tcp).set_linger(None)
}

async fn copy(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    copied: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = reader.read(&mut buffer).await?;
        if count == 0 {
            return writer.shutdown().await;
        }
        copied.fetch_add(count as u64, Ordering::Relaxed);
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
        let count = AtomicU64::new(0);
        let (copied, read) = tokio::join!(copy(sent.as_slice(), writer, &count), far.read_to_end(&mut received));
        copied.unwrap();
        assert_eq!(count.into_inner(), 300_000);
        read.unwrap();
        assert!(received == sent);
    }
}
