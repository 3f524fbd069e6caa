//! One accepted connection of a client: TCP, TLS over TCP, or Unix, with the bytes read ahead of their use.

use std::{
    fmt,
    io::{self, Cursor, IoSlice},
    net::SocketAddr,
    os::fd::AsFd,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
    runtime::{self, Handle},
    sync::OwnedSemaphorePermit,
};
use tokio_rustls::server::TlsStream;
use tunnel::{Delivery, RelayEnd, Stream, Traffic};

use crate::{flushes::Flushes, limits::lobby::Guest};

/// Bytes a client may send ahead of being asked: a request head, or what it pipelines behind one.
pub(crate) const READ_AHEAD: usize = 64 * 1024;

/// What one read ahead takes at most beyond what is there.
const READ_SIZE: usize = 4 * 1024;

/// How long the target's first bytes wait for the client's. kube-apiserver takes bytes that arrive together with the
/// answer to its CONNECT for an error (egress_selector.go); where the client speaks first nothing waits.
pub(crate) const ANSWER_ALONE: Duration = Duration::from_millis(5);

/// How long a refused client may take to read its answer.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// How the client reached the hub.
#[derive(Debug)]
pub(crate) enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// A client's connection. Reading returns what was read ahead first.
#[derive(Debug)]
pub(crate) struct Client {
    transport: Transport,
    ahead: BytesMut,
    /// The end of our direction was said.
    ended: bool,
    /// Counted where an answer waits for it.
    flushes: Option<Flushes>,
    /// The runtime that drives the connection.
    driver: runtime::Id,
    _room: OwnedSemaphorePermit,
    /// Its place among its user's connections, once it is one of those.
    _guest: Option<Arc<Guest>>,
}

/// Where a client comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Peer {
    Tcp(SocketAddr),
    /// The user id of the process behind a Unix socket.
    Unix(u32),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(uid) => write!(f, "unix:uid={uid}"),
        }
    }
}

impl Client {
    /// From now on the connection is reset if it closes before its end was said, even by the kernel for a hub that was
    /// killed: its client sees an error, not an end. Must be called in the runtime that accepted it; `room` is its place
    /// among the connections.
    pub(crate) fn new(transport: Transport, room: OwnedSemaphorePermit) -> Self {
        let driver = Handle::current().id();
        let (ahead, ended, flushes) = (BytesMut::new(), false, None);
        let client = Self { transport, ahead, ended, flushes, driver, _room: room, _guest: None };
        client.set_linger(Some(Duration::ZERO));
        client
    }

    /// Has its place among its user's connections for as long as it lasts.
    pub(crate) fn hold_guest(&mut self, guest: Option<Arc<Guest>>) {
        self._guest = guest;
    }

    /// What was read ahead.
    pub(crate) fn ahead(&mut self) -> &mut BytesMut {
        &mut self.ahead
    }

    /// Reads more ahead; 0 at the end. Safe to cancel.
    pub(crate) async fn read_ahead(&mut self) -> io::Result<usize> {
        if self.ahead.len() >= READ_AHEAD {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.ahead.reserve(READ_SIZE);
        self.transport.read_buf(&mut self.ahead).await
    }

    /// Resolves when the client has left while it was to wait for an answer: it reset the connection, or closed its
    /// direction without having said anything that an answer could be for. A client that has sent data and then FIN is
    /// half-open and still waits.
    pub(crate) async fn left(&mut self) {
        loop {
            match self.read_ahead().await {
                Ok(0) if self.ahead.is_empty() => return,
                // Half-open, or as far ahead as it may be: only the relay can tell more.
                Ok(0) => std::future::pending().await,
                Err(error) if error.kind() == io::ErrorKind::FileTooLarge => std::future::pending().await,
                Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Sends `bytes` and goes on talking.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transport.write_all(bytes).await?;
        self.transport.flush().await
    }

    /// Sends a last answer and closes. What the client still sends is read away for a moment: closing a TCP socket
    /// with unread data resets it, and the client would lose the answer.
    pub(crate) async fn conclude(&mut self, answer: &[u8]) {
        let concluding = async {
            self.write(answer).await?;
            self.transport.shutdown().await?;
            self.ended = true;
            let mut sink = [0; 4096];
            while self.transport.read(&mut sink).await? > 0 {}
            io::Result::Ok(())
        };
        // A client that does not listen loses no more than the answer.
        let _ = tokio::time::timeout(REFUSAL_TIMEOUT, concluding).await;
    }

    /// Sends `answer` alone: no byte of the target can arrive with it.
    pub(crate) async fn answer(&mut self, answer: &[u8]) -> io::Result<()> {
        self.write(answer).await?;
        if self.ahead.is_empty() {
            // Either the client speaks first, or the answer has a head start. A reset is told once: the relay's next
            // read would take it for an end.
            if let Ok(read) = tokio::time::timeout(ANSWER_ALONE, self.read_ahead()).await {
                read?;
            }
        }
        Ok(())
    }

    /// Has the runtime in which this is called drive the connection. That takes a descriptor for a moment: where none is left, it
    /// stays with the runtime that has it, and its bytes cross threads.
    pub(crate) fn adopt(&mut self) {
        let here = Handle::current().id();
        if self.driver == here {
            return;
        }
        let adopted = match &mut self.transport {
            Transport::Tcp(tcp) => adopt_tcp(tcp),
            Transport::Tls(tls) => adopt_tcp(tls.get_mut().0),
            Transport::Unix(unix) => adopt_unix(unix),
        };
        if adopted.is_ok() {
            self.driver = here;
        }
    }

    /// Joins the client to `stream` until both are done.
    pub(crate) async fn relay(mut self, stream: Stream, traffic: &Traffic) -> RelayEnd {
        let ahead = Cursor::new(std::mem::take(&mut self.ahead));
        let end = match &mut self.transport {
            Transport::Tcp(tcp) => {
                let (reader, writer) = tcp.split();
                tunnel::relay(stream, AsyncReadExt::chain(ahead, reader), writer, traffic).await
            }
            Transport::Unix(unix) => {
                let (reader, writer) = unix.split();
                tunnel::relay(stream, AsyncReadExt::chain(ahead, reader), writer, traffic).await
            }
            Transport::Tls(tls) => {
                let (reader, writer) = tokio::io::split(tls);
                tunnel::relay(stream, AsyncReadExt::chain(ahead, reader), writer, traffic).await
            }
        };
        self.ended = end == RelayEnd::Complete;
        if let Some(delivery) = self.delivery().filter(|_| !self.ended) {
            delivery.done().await;
        }
        end
    }

    /// Counts from now on how often all was sent.
    pub(crate) fn flushes(&mut self) -> Flushes {
        self.flushes.get_or_insert_default().clone()
    }

    /// What is written to the client. A Unix socket's client has it at once.
    pub(crate) fn delivery(&self) -> Option<Delivery> {
        self.transport.tcp().and_then(Delivery::of)
    }

    /// Zero makes a close a reset (socket(7)).
    fn set_linger(&self, linger: Option<Duration>) {
        // A Unix socket knows no reset; where data is unread, closing it is one (unix(7)).
        let Some(tcp) = self.transport.tcp() else { return };
        // The socket may be gone already.
        let _ = SockRef::from(tcp).set_linger(linger);
    }
}

/// The same socket under another descriptor, registered with this runtime.
fn adopt_tcp(tcp: &mut TcpStream) -> io::Result<()> {
    *tcp = TcpStream::from_std(tcp.as_fd().try_clone_to_owned()?.into())?;
    Ok(())
}

fn adopt_unix(unix: &mut UnixStream) -> io::Result<()> {
    *unix = UnixStream::from_std(unix.as_fd().try_clone_to_owned()?.into())?;
    Ok(())
}

/// A connection whose end was said closes like any other.
impl Drop for Client {
    fn drop(&mut self) {
        if self.ended {
            self.set_linger(None);
        }
    }
}

macro_rules! each {
    ($transport:expr, $io:ident => $call:expr) => {
        match $transport {
            Transport::Tcp($io) => $call,
            Transport::Tls($io) => $call,
            Transport::Unix($io) => $call,
        }
    };
}

impl Transport {
    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            // Its close without close_notify shows as a truncation.
            Self::Tls(tls) => Some(tls.get_ref().0),
            Self::Unix(_) => None,
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self.get_mut(), io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        each!(self, io => io.is_write_vectored())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self.get_mut(), io => Pin::new(io).poll_shutdown(cx))
    }
}

impl AsyncRead for Client {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let client = self.get_mut();
        if client.ahead.is_empty() {
            return Pin::new(&mut client.transport).poll_read(cx, buffer);
        }
        let count = client.ahead.len().min(buffer.remaining());
        buffer.put_slice(&client.ahead[..count]);
        Buf::advance(&mut client.ahead, count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Client {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let client = self.get_mut();
        let flushed = Pin::new(&mut client.transport).poll_flush(cx);
        if let (Some(flushes), Poll::Ready(Ok(()))) = (&client.flushes, &flushed) {
            flushes.count();
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let client = self.get_mut();
        client.ended = true;
        Pin::new(&mut client.transport).poll_shutdown(cx)
    }
}
