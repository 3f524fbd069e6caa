//! The UDP socket under an endpoint: datagrams that follow one another to one peer leave with one system call.
//!
//! quinn hands over at most [`SEGMENTS`] datagrams at a time; the kernel takes 64 KiB with one call (UDP_SEGMENT, udp(7)).
//! Sending is a third of what a byte costs, so full batches are joined until the call is full. A batch that is not full
//! is the end of what the connection has to say: it leaves at once, and nothing waits for it.

pub(crate) mod deferral;
pub(crate) mod discovery;
pub(crate) mod id;
pub(crate) mod mtu;
pub(crate) mod port;
pub(crate) mod renaming;
pub(crate) mod reset;
pub(crate) mod runtime;
pub(crate) mod steering;

use std::{
    convert::Infallible,
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use nix::sys::socket::{setsockopt, sockopt::UdpGroSegment};
use parking_lot::Mutex;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState},
};
use socket2::{Domain, Type};
use tokio::{io::Interest, sync::watch};

use crate::{
    socket::deferral::{FirstAnswers, PeerSaid},
    socket::mtu::LARGEST_DATAGRAM,
    socket::renaming::Renaming,
};

/// What one call can carry: the largest payload of a UDP datagram over IPv4.
const CALL_BYTES: usize = 65_507;

/// Datagrams that one call can carry (UDP_MAX_SEGMENTS in linux/udp.h).
const CALL_DATAGRAMS: usize = 64;

/// Datagrams that quinn may hand over at a time: those of the largest size must fit one call.
const SEGMENTS: usize = CALL_BYTES / LARGEST_DATAGRAM as usize;

/// Datagrams of the largest size that the kernel may have joined when they are read: 64 KiB in all.
const RECEIVE_SEGMENTS: usize = (64 * 1024usize).div_ceil(LARGEST_DATAGRAM as usize);

/// quinn asks the kernel for each socket whether it joins datagrams, by an IPv6 socket that is opened and closed. For the first one
/// that joins, and after the last one, the kernel rewrites its own code while all processors wait, which is a quarter of what it
/// costs to dial. Because of this one, which has no port, none is the last.
static JOINING: LazyLock<Option<socket2::Socket>> = LazyLock::new(|| {
    let socket = socket2::Socket::new(Domain::IPV6, Type::DGRAM, None).ok()?;
    setsockopt(&socket, UdpGroSegment, &true).ok()?;
    Some(socket)
});

/// What the kernel does for a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload {
    /// It cuts what is sent into datagrams (GSO).
    pub send: bool,
    /// It joins datagrams before they are read (GRO).
    pub receive: bool,
}

/// A UDP socket for quinn.
pub(crate) struct Socket {
    io: tokio::net::UdpSocket,
    state: UdpSocketState,
    burst: Mutex<Burst>,
    /// The kernel's buffer was full; whoever sends must wait for room first.
    full: AtomicBool,
    /// What is said to who dials with this socket.
    answers: Option<(SocketAddr, FirstAnswers)>,
    /// Nothing is sent any more.
    mute: AtomicBool,
    renaming: Renaming,
    /// It is of IPv4.
    v4: bool,
}

/// Datagrams that wait for more of their kind.
#[derive(Default)]
struct Burst {
    bytes: Vec<u8>,
    /// Size of each datagram.
    segment: usize,
    envelope: Option<Envelope>,
    /// The endpoint's task, which reads this socket. It sends what still waits when the connections have had their turn.
    driver: Option<Waker>,
    /// The connections have not had their turn since the burst began.
    young: bool,
}

/// What all datagrams of one call share.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Envelope {
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    source: Option<IpAddr>,
}

/// Waits for room in the kernel's buffer, for one connection.
struct Room {
    socket: Arc<Socket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl Socket {
    /// Takes over a bound, non-blocking socket. Must be called in the runtime that is to drive it.
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        LazyLock::force(&JOINING);
        let state = UdpSocketState::new((&socket).into())?;
        let v4 = socket.local_addr()?.is_ipv4();
        let io = tokio::net::UdpSocket::from_std(socket)?;
        let renaming = Renaming::default();
        let (full, mute) = (AtomicBool::new(false), AtomicBool::new(false));
        let socket = Self { io, state, burst: Mutex::default(), full, answers: None, mute, renaming, v4 };
        let Offload { send, receive } = socket.offload();
        if !send || !receive {
            tracing::warn!(
                send,
                receive,
                "this kernel has no segmentation offload for UDP: expect a third of the speed"
            );
        }
        Ok(socket)
    }

    /// As [`Self::new`], for one connection that is dialled.
    pub(crate) fn dialling(socket: std::net::UdpSocket, peer: SocketAddr) -> io::Result<Self> {
        Ok(Self { answers: Some((peer, FirstAnswers::new())), ..Self::new(socket)? })
    }

    /// Sends nothing any more, be it a goodbye.
    pub(crate) fn mute(&self) {
        self.mute.store(true, Ordering::Relaxed);
    }

    /// Has quinn take what comes from a peer for what comes over another path.
    pub(crate) fn rename(&self, shown: SocketAddr) {
        self.renaming.turn(self.own(shown));
    }

    /// The address of a peer that quinn knows by this one.
    pub(crate) fn own(&self, shown: SocketAddr) -> SocketAddr {
        renaming::own(shown, self.v4)
    }

    /// What is said to who dials, until it is connected.
    fn awaited(&self) -> Option<&(SocketAddr, FirstAnswers)> {
        self.answers.as_ref().filter(|(_, answers)| answers.are_awaited())
    }

    /// Follows what is said to who dials.
    pub(crate) fn answers(&self) -> Option<watch::Receiver<PeerSaid>> {
        self.answers.as_ref().map(|(_, answers)| answers.subscribe())
    }

    /// Asks the peer again what it was asked last, until it has answered.
    pub(crate) async fn keep_asking(&self) -> Infallible {
        let Some((peer, answers)) = &self.answers else { return std::future::pending().await };
        loop {
            let (datagrams, next) = answers.ask_again(Instant::now());
            for datagram in &datagrams {
                // The socket may be full, or the network away.
                let _ = self.send_to(*peer, datagram);
            }
            tokio::time::sleep_until(next.into()).await;
        }
    }

    pub(crate) fn offload(&self) -> Offload {
        Offload { send: self.state.max_gso_segments() > 1, receive: self.state.gro_segments() > 1 }
    }

    /// Sends one datagram that is no connection's.
    pub(crate) fn send_to(&self, destination: SocketAddr, contents: &[u8]) -> io::Result<()> {
        self.send(&Transmit { destination, ecn: None, contents, segment_size: None, src_ip: None })
    }

    fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let offloads = transmit.segment_size.is_some();
        let sent = self.io.try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), transmit));
        if offloads && !self.offload().send {
            tracing::warn!("the network device refused segmentation offload for UDP: expect a third of the speed");
        }
        if matches!(&sent, Err(error) if error.kind() == io::ErrorKind::WouldBlock) {
            self.full.store(true, Ordering::Relaxed);
        }
        sent
    }

    fn send_burst(&self, burst: &mut Burst) -> io::Result<()> {
        let Some(Envelope { destination, ecn, source }) = burst.envelope else { return Ok(()) };
        let segment_size = (burst.bytes.len() > burst.segment).then_some(burst.segment);
        let transmit = Transmit { destination, ecn, contents: &burst.bytes, segment_size, src_ip: source };
        self.send(&transmit)?;
        burst.clear();
        Ok(())
    }

    /// Sends what waits for more, once the connections have had their turn to add to it.
    fn poll_burst(&self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut burst = self.burst.lock();
        if !burst.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            burst.driver = Some(cx.waker().clone());
        }
        if burst.envelope.is_none() {
            return Ok(());
        }
        if std::mem::take(&mut burst.young) {
            cx.waker().wake_by_ref();
            return Ok(());
        }
        while let Err(error) = self.send_burst(&mut burst) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            match self.io.poll_send_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return Ok(()),
            }
        }
        Ok(())
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Room { socket: self, waiting: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        runtime::sent();
        if self.mute.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some((_, answers)) = self.awaited() {
            let length = transmit.segment_size.unwrap_or(transmit.contents.len());
            transmit.contents.chunks(length.max(1)).for_each(|datagram| answers.asked(datagram));
        }
        let transmit = &Transmit { destination: self.own(transmit.destination), ..transmit.clone() };
        let mut burst = self.burst.lock();
        let more = burst.is_full_batch(transmit) && self.state.max_gso_segments() > 1;
        if burst.takes(transmit) {
            burst.append(transmit);
            // What is taken is taken: if there is no room now, the driver sends it later.
            if !more || burst.cannot_grow() {
                return self.send_burst(&mut burst).or_else(|error| burst.later(error));
            }
            return Ok(());
        }
        self.send_burst(&mut burst)?;
        if !more || transmit.contents.len() * 2 > CALL_BYTES {
            return self.send(transmit);
        }
        burst.begin(transmit);
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.poll_burst(cx)?;
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received = self.io.try_io(Interest::READABLE, || self.state.recv((&self.io).into(), buffers, meta));
            if let Ok(count) = received {
                meta.iter_mut().take(count).for_each(|meta| meta.addr = self.renaming.shown(meta.addr));
                if let Some((peer, answers)) = self.awaited() {
                    let is_of_peer = |meta: &RecvMeta| (meta.addr.ip(), meta.addr.port()) == (peer.ip(), peer.port());
                    let datagrams = buffers.iter().zip(&*meta).take(count).filter(|(_, meta)| is_of_peer(meta));
                    let each = datagrams.flat_map(|(buffer, meta)| buffer[..meta.len].chunks(meta.stride.max(1)));
                    each.for_each(|datagram| answers.heard(datagram));
                }
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        runtime::segments(self.state.max_gso_segments().min(SEGMENTS))
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments().min(RECEIVE_SEGMENTS)
    }
}

impl Burst {
    /// Whether `transmit` is all that quinn may hand over at a time, so that more may follow at once.
    fn is_full_batch(&self, transmit: &Transmit<'_>) -> bool {
        transmit.segment_size.is_some_and(|segment| transmit.contents.len() == segment * SEGMENTS)
    }

    fn takes(&self, transmit: &Transmit<'_>) -> bool {
        let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        // One last datagram may be smaller than the others.
        let fits = segment == self.segment || transmit.segment_size.is_none() && segment < self.segment;
        let length = self.bytes.len() + transmit.contents.len();
        // Behind a smaller one, none can follow.
        let open = self.segment > 0 && self.bytes.len().is_multiple_of(self.segment);
        (fits && open && self.envelope == Some(Envelope::of(transmit)))
            && length <= CALL_BYTES
            && length.div_ceil(self.segment) <= CALL_DATAGRAMS
    }

    fn begin(&mut self, transmit: &Transmit<'_>) {
        self.segment = transmit.segment_size.unwrap_or(transmit.contents.len());
        self.envelope = Some(Envelope::of(transmit));
        self.young = true;
        self.append(transmit);
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    fn append(&mut self, transmit: &Transmit<'_>) {
        self.bytes.extend_from_slice(transmit.contents);
    }

    fn cannot_grow(&self) -> bool {
        let length = self.bytes.len() + self.segment * SEGMENTS;
        length > CALL_BYTES || length.div_ceil(self.segment) > CALL_DATAGRAMS
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.envelope = None;
    }

    /// The burst stays until there is room.
    fn later(&mut self, error: io::Error) -> io::Result<()> {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        self.young = false;
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
        Ok(())
    }
}

impl Envelope {
    fn of(transmit: &Transmit<'_>) -> Self {
        Self { destination: transmit.destination, ecn: transmit.ecn, source: transmit.src_ip }
    }
}

impl UdpPoller for Room {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let room = &mut *self;
        if room.waiting.is_none() && !room.socket.full.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let socket = &room.socket;
        let waiting = room.waiting.get_or_insert_with(|| {
            let socket = socket.clone();
            Box::pin(async move { socket.io.writable().await })
        });
        let ready = ready!(waiting.as_mut().poll(cx));
        room.waiting = None;
        room.socket.full.store(false, Ordering::Relaxed);
        Poll::Ready(ready)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("io", &self.io).field("offload", &self.offload()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("waiting", &self.waiting.is_some()).finish_non_exhaustive()
    }
}
