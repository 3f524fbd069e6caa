//! The byte relay between a stream and a connection: half-closes stay half-closes, resets stay resets.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{
    code::ResetReason,
    stream::{Broken, ReceiveHalf, SendHalf, Stream},
};

/// A connection that says little costs little: the first buffer holds one small request.
const SMALLEST_READ: usize = 4 * 1024;

/// Below 64 KiB the system calls show (a TLS relay with 8 KiB buffers has 0.4 of the throughput); above it nothing is
/// gained.
const LARGEST_READ: usize = 64 * 1024;

/// Chunks written with one call: packets of 1.4 KiB make a write of up to 45 KiB.
const CHUNKS: usize = 32;

/// Bytes relayed, readable while the relay runs. A parent adds up its children.
#[derive(Debug, Default)]
pub struct Traffic {
    into_tunnel: AtomicU64,
    out_of_tunnel: AtomicU64,
    parent: Option<Arc<Self>>,
}

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

impl Traffic {
    /// Counts into itself and into `parent`.
    pub fn child(parent: Arc<Self>) -> Self {
        Self { parent: Some(parent), ..Self::default() }
    }

    /// Bytes read here and sent into the tunnel.
    pub fn into_tunnel(&self) -> u64 {
        self.into_tunnel.load(Ordering::Relaxed)
    }

    /// Bytes received from the tunnel and written here.
    pub fn out_of_tunnel(&self) -> u64 {
        self.out_of_tunnel.load(Ordering::Relaxed)
    }

    /// Counts bytes that went into the tunnel past [`relay`].
    pub fn add_into_tunnel(&self, bytes: u64) {
        self.into_tunnel.fetch_add(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.add_into_tunnel(bytes);
        }
    }

    /// Counts bytes that came out of the tunnel past [`relay`].
    pub fn add_out_of_tunnel(&self, bytes: u64) {
        self.out_of_tunnel.fetch_add(bytes, Ordering::Relaxed);
        if let Some(parent) = &self.parent {
            parent.add_out_of_tunnel(bytes);
        }
    }
}

/// Copies both ways until both directions have ended, or either breaks off; then both are broken off.
///
/// After any end but [`RelayEnd::Complete`] the caller must reset its connection (for TCP: zero linger, then close), so
/// that its peer sees an error and not an end. Dropping the future breaks off the stream in the same way.
pub async fn relay(
    stream: Stream,
    reader: impl AsyncRead + Unpin,
    writer: impl AsyncWrite + Unpin,
    traffic: &Traffic,
) -> RelayEnd {
    let Stream { mut send, mut receive } = stream;
    // Not select!: the first direction to end must not take the other with it. try_join! leaves only on an error.
    let both = tokio::try_join!(upload(&mut send, reader, traffic), download(&mut receive, writer, traffic));
    let end = both.err().unwrap_or(RelayEnd::Complete);
    match end {
        RelayEnd::Complete | RelayEnd::TunnelLost => {}
        RelayEnd::LocalReset => break_off(send, receive, ResetReason::ConnectionReset),
        RelayEnd::LocalFailed(_) => break_off(send, receive, ResetReason::ConnectionFailed),
        RelayEnd::RemoteReset(reason) => break_off(send, receive, reason),
    }
    end
}

fn break_off(send: SendHalf, receive: ReceiveHalf, reason: ResetReason) {
    Stream { send, receive }.reset(reason);
}

async fn upload(send: &mut SendHalf, mut reader: impl AsyncRead + Unpin, traffic: &Traffic) -> Result<(), RelayEnd> {
    // A peer that stops reading must be noticed while the reader is silent, not at its next byte.
    let broken = send.broken();
    tokio::pin!(broken);
    let mut size = SMALLEST_READ;
    loop {
        let mut buffer = BytesMut::with_capacity(size);
        let count = tokio::select! {
            read = reader.read_buf(&mut buffer) => read.map_err(local)?,
            broken = &mut broken => return Err(broken.into()),
        };
        if count == 0 {
            return send.finish().await.map_err(Into::into);
        }
        size = next_size(size, count);
        send.write(buffer.freeze()).await?;
        traffic.add_into_tunnel(count as u64);
    }
}

/// A read that filled its buffer asks for a larger one, a small read for a small one: idle connections hold little.
fn next_size(size: usize, count: usize) -> usize {
    if count == size {
        (size * 4).min(LARGEST_READ)
    } else if count < size / 4 {
        SMALLEST_READ.max(size / 4)
    } else {
        size
    }
}

async fn download(
    receive: &mut ReceiveHalf,
    mut writer: impl AsyncWrite + Unpin,
    traffic: &Traffic,
) -> Result<(), RelayEnd> {
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    loop {
        let count = receive.read(&mut chunks).await?;
        if count == 0 {
            return writer.shutdown().await.map_err(local);
        }
        let bytes: usize = chunks[..count].iter().map(Bytes::len).sum();
        write_all(&mut writer, &mut chunks[..count]).await.map_err(local)?;
        writer.flush().await.map_err(local)?;
        traffic.add_out_of_tunnel(bytes as u64);
    }
}

/// Writes all of `chunks`, several with one call, and leaves them empty: a chunk pins the buffer it arrived in.
async fn write_all(writer: &mut (impl AsyncWrite + Unpin), chunks: &mut [Bytes]) -> io::Result<()> {
    let mut first = 0;
    while first < chunks.len() {
        let mut slices = [io::IoSlice::new(&[]); CHUNKS];
        for (slice, chunk) in slices.iter_mut().zip(&chunks[first..]) {
            *slice = io::IoSlice::new(chunk);
        }
        let mut written = writer.write_vectored(&slices[..chunks.len() - first]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while first < chunks.len() && written >= chunks[first].len() {
            written -= chunks[first].len();
            chunks[first] = Bytes::new();
            first += 1;
        }
        if written > 0 {
            bytes::Buf::advance(&mut chunks[first], written);
        }
    }
    Ok(())
}

fn local(error: io::Error) -> RelayEnd {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_direction_grows_its_buffer_and_a_quiet_one_shrinks_it() {
        assert_eq!(next_size(SMALLEST_READ, SMALLEST_READ), 16 * 1024);
        assert_eq!(next_size(LARGEST_READ, LARGEST_READ), LARGEST_READ);
        assert_eq!(next_size(LARGEST_READ, 100), 16 * 1024);
        assert_eq!(next_size(SMALLEST_READ, 1), SMALLEST_READ);
        assert_eq!(next_size(LARGEST_READ, LARGEST_READ / 2), LARGEST_READ);
    }

    #[test]
    fn a_parent_adds_up_its_children() {
        let parent = Arc::new(Traffic::default());
        for _ in 0..2 {
            let child = Traffic::child(parent.clone());
            child.add_into_tunnel(3);
            child.add_out_of_tunnel(4);
            assert_eq!((child.into_tunnel(), child.out_of_tunnel()), (3, 4));
        }
        assert_eq!((parent.into_tunnel(), parent.out_of_tunnel()), (6, 8));
    }

    /// Takes `limit` bytes a call, to break writes between and inside chunks.
    #[derive(Default)]
    struct Narrow(Vec<u8>, usize);

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            bytes: &[u8],
        ) -> std::task::Poll<io::Result<usize>> {
            let count = bytes.len().min(self.1);
            self.0.extend_from_slice(&bytes[..count]);
            std::task::Poll::Ready(Ok(count))
        }

        fn poll_flush(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }

        fn poll_shutdown(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<io::Result<()>> {
            std::task::Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn writes_that_take_a_part_lose_and_repeat_nothing() {
        for limit in 1..12 {
            let mut chunks = ["abc", "", "defgh", "i"].map(|text| Bytes::from_static(text.as_bytes()));
            let mut writer = Narrow(Vec::new(), limit);
            write_all(&mut writer, &mut chunks).await.unwrap();
            assert_eq!(writer.0, b"abcdefghi");
            assert!(chunks.iter().all(Bytes::is_empty));
        }
    }
}
