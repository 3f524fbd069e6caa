//! The relay of one forwarded connection: a local client joined to a target, half-closes and resets kept.

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::future::join_all;
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tunnel::{Delivery, PARTING};

use super::{entry::Opened, traffic::Traffic};

/// Below 64 KiB the system calls show.
const BUFFER: usize = 64 * 1024;

/// Copies both ways until both directions have ended, or either fails; then, as when this is dropped, both ends see a
/// reset: an error is never shown as an end. What came before it is delivered first.
///
/// The hub ends a direction with close_notify (RFC 8446 section 6.1); a connection that just ends was cut.
pub(super) async fn relay(mut local: TcpStream, opened: Opened, traffic: &Traffic) -> Result<(), Broken> {
    let Opened { stream: mut hub, ahead } = opened;
    // Set before and not after a failure: it holds even when this process is killed.
    reset_when_dropped(&local).map_err(|_| Broken::Here)?;
    reset_when_dropped(hub.get_ref().0).map_err(|_| Broken::Behind)?;
    let (local_reader, local_writer) = local.split();
    let (hub_reader, hub_writer) = tokio::io::split(&mut hub);
    let to_hub = copy(local_reader, hub_writer, &traffic.to_cluster);
    let to_local = copy(ahead.as_ref().chain(hub_reader), local_writer, &traffic.from_cluster);
    let joined = join_ends(to_hub, to_local).await;
    if joined.is_err() {
        let deliveries = [Delivery::of(&local), Delivery::of(hub.get_ref().0)];
        join_all(deliveries.into_iter().flatten().map(Delivery::done)).await;
        return joined;
    }
    // What has ended well need not be told otherwise.
    let _ = close_when_dropped(&local);
    let _ = close_when_dropped(hub.get_ref().0);
    Ok(())
}

/// Waits for both directions. A hub that takes no more may have sent what nobody has read yet; after TLS's close_notify alone
/// that is an end. What a local client has sent before its break is not told from an end, and goes no further.
async fn join_ends(
    to_hub: impl Future<Output = Result<(), CopyError>>,
    to_local: impl Future<Output = Result<(), CopyError>>,
) -> Result<(), Broken> {
    let (mut to_hub, mut to_local) = (pin!(to_hub), pin!(to_local));
    tokio::select! {
        ended = to_hub.as_mut() => match ended {
            Ok(()) => to_local.await.map_err(CopyError::to_local),
            Err(CopyError::Read) => Err(Broken::Here),
            Err(CopyError::Write) => {
                // Its own error says no more.
                let _ = tokio::time::timeout(PARTING, to_local).await;
                Err(Broken::Behind)
            }
        },
        ended = to_local.as_mut() => match ended {
            Ok(()) => to_hub.await.map_err(CopyError::to_hub),
            Err(error) => Err(error.to_local()),
        },
    }
}

pub(super) fn reset_when_dropped(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_zero_linger()
}

fn close_when_dropped(tcp: &TcpStream) -> io::Result<()> {
    SockRef::from(tcp).set_linger(None)
}

/// Which end of a forwarded connection broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The local client's.
    Here,
    /// The hub, the tunnel, or the target.
    Behind,
}

/// Which end of a copy failed.
#[derive(Clone, Copy, Debug)]
enum CopyError {
    Read,
    Write,
}

impl CopyError {
    fn to_hub(self) -> Broken {
        match self {
            Self::Read => Broken::Here,
            Self::Write => Broken::Behind,
        }
    }

    fn to_local(self) -> Broken {
        match self {
            Self::Read => Broken::Behind,
            Self::Write => Broken::Here,
        }
    }
}

async fn copy(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    copied: &AtomicU64,
) -> Result<(), CopyError> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = reader.read(&mut buffer).await.map_err(|_| CopyError::Read)?;
        if count == 0 {
            return writer.shutdown().await.map_err(|_| CopyError::Write);
        }
        copied.fetch_add(count as u64, Ordering::Relaxed);
        writer.write_all(&buffer[..count]).await.map_err(|_| CopyError::Write)?;
        // TLS keeps what it could not write at once.
        writer.flush().await.map_err(|_| CopyError::Write)?;
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
