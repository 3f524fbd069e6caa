//! The clients' port: one listener on which TLS, SOCKS5, HTTP/1.1 and HTTP/2 are told apart by their first bytes.

pub(crate) mod client;
pub(crate) mod connect;
pub(crate) mod forward;
pub(crate) mod head;
pub(crate) mod konnectivity;
pub(crate) mod socks5;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use certs::ClusterName;
use http::StatusCode;
use rustls::pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, info_span};

use crate::{
    config::Plaintext,
    frontend::client::{Client, Peer, Transport},
    frontend::head::Head,
    frontend::konnectivity::Konnectivity,
    limits::descriptors::{Reserve, Spent, TELLING},
    limits::lobby::{Guest, Lobby},
    metrics::Frontend,
    outcome::Outcome,
    proxy::Proxy,
    proxy::caller::PresentedCredentials,
};

/// First byte of a TLS handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// How long a refused client may take to read why, beyond its time to ask.
const FAREWELL: Duration = Duration::from_secs(3);

/// A client that is gone without a word is noticed by the kernel.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// How long, once idle clients are let go, one that has just come may take to say its first word.
const FIRST_WORD: Duration = Duration::from_millis(500);

/// What serves the clients' connections.
#[derive(Debug)]
pub(crate) struct Frontends {
    proxy: Arc<Proxy>,
    konnectivity: Arc<Konnectivity>,
    tls: Arc<rustls::ServerConfig>,
    plaintext: Plaintext,
    /// How long a client may take to show its certificate, its head or its SOCKS5 request.
    head_timeout: Duration,
    room: Arc<Semaphore>,
    /// For those who find none, and are told so.
    beyond: Arc<Semaphore>,
    reserve: Arc<Reserve>,
    lobby: Arc<Lobby>,
    tasks: TaskTracker,
    until: Shutdown,
}

/// When the clients' port ends.
#[derive(Clone, Debug)]
pub(crate) struct Shutdown {
    /// Cancelled when idle connections end.
    pub(crate) leave: CancellationToken,
    /// Cancelled when no more connections are accepted.
    pub(crate) closed: CancellationToken,
}

/// Who has just connected; by a Unix socket, with the cluster that the socket leads to.
enum Arrival {
    Tcp(TcpStream, SocketAddr),
    Unix(u32, UnixStream, Option<ClusterName>),
}

impl Arrival {
    fn peer(&self) -> Peer {
        match self {
            Self::Tcp(_, address) => Peer::Tcp(*address),
            Self::Unix(uid, _, _) => Peer::Unix(*uid),
        }
    }

    fn transport(self) -> Transport {
        match self {
            Self::Tcp(tcp, _) => Transport::Tcp(tcp),
            Self::Unix(_, unix, _) => Transport::Unix(unix),
        }
    }
}

/// Where a connection is.
enum Place {
    Room(OwnedSemaphorePermit),
    /// There is no room.
    Beyond(OwnedSemaphorePermit),
}

/// How many of a port's places are for those who wait for room, or are told that there is none; and for how long they wait: most
/// connections are short.
const BEYOND: usize = 64;
const WAITING: Duration = Duration::from_secs(1);

impl Frontends {
    pub(crate) fn new(
        proxy: Arc<Proxy>,
        tls: Arc<rustls::ServerConfig>,
        plaintext: Plaintext,
        head_timeout: Duration,
        room: usize,
        reserve: Arc<Reserve>,
        tasks: TaskTracker,
        until: Shutdown,
    ) -> Arc<Self> {
        let (lobby, beyond) = (Lobby::of_port(room), BEYOND.min(room / 4));
        let (room, beyond) = (Arc::new(Semaphore::new(room - beyond)), Arc::new(Semaphore::new(beyond)));
        let konnectivity = Konnectivity::new(proxy.clone(), head_timeout, tasks.clone(), until.leave.clone());
        Arc::new(Self { proxy, konnectivity, tls, plaintext, head_timeout, room, beyond, reserve, lobby, tasks, until })
    }

    /// Accepts TCP connections until stopped.
    pub(crate) async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        // Who waits for all clients waits for those that are still to be accepted.
        let _accepting = self.tasks.token();
        while let Some((place, accepted)) = self.next(|| listener.accept()).await {
            if let Some((spent, (tcp, address))) = self.accepted(accepted, || listener.accept()).await {
                self.receive(Arrival::Tcp(tcp, address), place, spent);
            }
        }
        // Who is connected and waits to be accepted would be reset with the listener.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok(permit) = self.room.clone().try_acquire_owned()
            && let Ok((tcp, address)) = listener.accept()
        {
            if tcp.set_nonblocking(true).is_ok()
                && let Ok(tcp) = TcpStream::from_std(tcp)
            {
                self.welcome(Arrival::Tcp(tcp, address), permit);
            }
        }
    }

    /// Accepts Unix connections until stopped.
    pub(crate) async fn serve_unix(self: Arc<Self>, listener: UnixListener, cluster: Option<ClusterName>) {
        let _accepting = self.tasks.token();
        let arrival = |unix: UnixStream| Some(Arrival::Unix(unix.peer_cred().ok()?.uid(), unix, cluster.clone()));
        while let Some((place, accepted)) = self.next(|| listener.accept()).await {
            if let Some((spent, (unix, _))) = self.accepted(accepted, || listener.accept()).await
                && let Some(arrival) = arrival(unix)
            {
                self.receive(arrival, place, spent);
            }
        }
        let Ok(listener) = listener.into_std() else { return };
        while let Ok(permit) = self.room.clone().try_acquire_owned()
            && let Ok((unix, _)) = listener.accept()
        {
            if unix.set_nonblocking(true).is_ok()
                && let Ok(unix) = UnixStream::from_std(unix)
                && let Some(arrival) = arrival(unix)
            {
                self.welcome(arrival, permit);
            }
        }
    }

    fn receive(self: &Arc<Self>, arrival: Arrival, place: Place, spent: Option<Spent>) {
        let peer = arrival.peer();
        match (place, spent) {
            (Place::Room(permit), None) => self.welcome(arrival, permit),
            (Place::Room(permit) | Place::Beyond(permit), Some(spent)) => {
                self.spawn(peer, self.clone().tell(arrival.transport(), peer, permit, spent));
            }
            (Place::Beyond(permit), None) => self.spawn(peer, self.clone().wait(arrival, permit)),
        }
    }

    fn welcome(self: &Arc<Self>, arrival: Arrival, permit: OwnedSemaphorePermit) {
        let peer = arrival.peer();
        match arrival {
            Arrival::Tcp(tcp, address) => {
                if let Some(guest) = self.lobby.enter(address.ip().into()) {
                    self.spawn(peer, self.clone().serve_guest(tcp, address, permit, Arc::new(guest)));
                }
            }
            Arrival::Unix(uid, unix, cluster) => {
                let presented = PresentedCredentials { uid: Some(uid), cluster, ..PresentedCredentials::default() };
                let client = Client::new(Transport::Unix(unix), permit);
                self.spawn(peer, self.clone().serve_client(client, peer, presented));
            }
        }
    }

    /// Waits a while for room, with a place `beyond` it.
    async fn wait(self: Arc<Self>, arrival: Arrival, beyond: OwnedSemaphorePermit) {
        match tokio::time::timeout(WAITING, self.room.clone().acquire_owned()).await {
            Ok(Ok(room)) => self.welcome(arrival, room),
            Ok(Err(_)) | Err(_) => {
                let (peer, spent) = (arrival.peer(), self.reserve.crowded());
                self.tell(arrival.transport(), peer, beyond, spent).await;
            }
        }
    }

    /// A connection and a place for it; `None` when stopped.
    async fn next<T, F: Future<Output = io::Result<T>>>(
        &self,
        accept: impl Fn() -> F,
    ) -> Option<(Place, io::Result<T>)> {
        let next = async {
            let accepted = accept().await;
            // The semaphores are never closed.
            let place = tokio::select! {
                biased;
                room = self.room.clone().acquire_owned() => Place::Room(room.ok()?),
                beyond = self.beyond.clone().acquire_owned() => Place::Beyond(beyond.ok()?),
            };
            Some((place, accepted))
        };
        tokio::select! {
            next = next => next,
            () = self.until.closed.cancelled() => None,
        }
    }

    /// What was accepted, if need be in the place of a spare descriptor.
    async fn accepted<T, F: Future<Output = io::Result<T>>>(
        &self,
        accepted: io::Result<T>,
        accept: impl Fn() -> F,
    ) -> Option<(Option<Spent>, T)> {
        match accepted {
            Ok(accepted) => Some((self.reserve.lacks(), accepted)),
            Err(error) => self.accept_in_need(&error, accept).await.map(|(spent, accepted)| (Some(spent), accepted)),
        }
    }

    /// The client that could not be accepted for want of a descriptor, in the place of a spare one.
    async fn accept_in_need<T, F: Future<Output = io::Result<T>>>(
        &self,
        error: &io::Error,
        accept: impl Fn() -> F,
    ) -> Option<(Spent, T)> {
        let Some(spent) = self.reserve.spend(error) else {
            tokio::time::sleep(process::ACCEPT_PAUSE).await;
            return None;
        };
        let accepted = tokio::time::timeout(process::ACCEPT_PAUSE, accept()).await.ok()?.ok()?;
        Some((spent, accepted))
    }

    /// Tells a client, in its own protocol, that there is no descriptor for it.
    async fn tell(self: Arc<Self>, transport: Transport, peer: Peer, room: OwnedSemaphorePermit, spent: Spent) {
        let telling = async {
            let mut first = [0];
            let mut client = match transport {
                Transport::Tcp(tcp) if matches!(tcp.peek(&mut first).await, Ok(1)) && first[0] == TLS_HANDSHAKE => {
                    match self.handshake(tcp, peer, room).await {
                        Some((client, _)) => client,
                        None => return,
                    }
                }
                transport @ (Transport::Tcp(_) | Transport::Tls(_) | Transport::Unix(_)) => {
                    Client::new(transport, room)
                }
            };
            if !matches!(client.read_ahead().await, Ok(1..)) {
                return;
            }
            let socks5 = client.ahead().first() == Some(&socks5::VERSION);
            let frontend = if socks5 { Frontend::Socks5 } else { Frontend::Http };
            self.proxy.recorder.connection(frontend, peer).refuse(Outcome::NoDescriptor);
            if socks5 {
                client.conclude(&socks5::NO_METHOD).await;
            } else {
                // Whatever it asks for: a client that is not done asking would take the answer for a reset.
                let _ = head::read(&mut client).await;
                connect::answer(&mut client, StatusCode::SERVICE_UNAVAILABLE, spent.told).await;
            }
        };
        let _ = tokio::time::timeout(TELLING, telling).await;
        drop(spent);
    }

    fn spawn(&self, peer: Peer, serving: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(serving.instrument(info_span!("client", %peer)));
    }

    /// Serves who is nobody yet, for as long as that may last.
    async fn serve_guest(
        self: Arc<Self>,
        tcp: TcpStream,
        address: SocketAddr,
        room: OwnedSemaphorePermit,
        guest: Arc<Guest>,
    ) {
        let (metrics, patience) = (self.proxy.metrics.clone(), self.head_timeout + FAREWELL);
        tokio::select! {
            () = self.serve_one(tcp, address, room, guest.clone()) => {}
            parting = guest.outstayed(Some(patience)) => metrics.guest_left("frontend", parting),
        }
    }

    async fn serve_one(
        self: Arc<Self>,
        tcp: TcpStream,
        address: SocketAddr,
        room: OwnedSemaphorePermit,
        guest: Arc<Guest>,
    ) {
        prepare(&tcp);
        let mut first = [0];
        let Some(Ok(1)) = self.soon(tcp.peek(&mut first)).await else { return };
        let peer = Peer::Tcp(address);
        if first[0] == TLS_HANDSHAKE {
            let Some((client, presented)) = self.handshake(tcp, peer, room).await else { return };
            return self.serve_client(client, peer, PresentedCredentials { guest: Some(guest), ..presented }).await;
        }
        let client = Client::new(Transport::Tcp(tcp), room);
        if self.plaintext.allows(address.ip()) {
            self.serve_client(
                client,
                peer,
                PresentedCredentials { guest: Some(guest), ..PresentedCredentials::default() },
            )
            .await;
        } else {
            let frontend = if first[0] == socks5::VERSION { Frontend::Socks5 } else { Frontend::Http };
            self.proxy.recorder.connection(frontend, peer).refuse(Outcome::Plaintext);
            refuse_plaintext(client, first[0]).await;
        }
    }

    /// What a client that has not said anything yet says first; `None` when it is late, or the hub stops.
    async fn soon<T>(&self, first: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            first = tokio::time::timeout(self.head_timeout, first) => first.ok(),
            () = async {
                self.until.leave.cancelled().await;
                tokio::time::sleep(FIRST_WORD).await;
            } => None,
        }
    }

    async fn handshake(
        &self,
        tcp: TcpStream,
        peer: Peer,
        room: OwnedSemaphorePermit,
    ) -> Option<(Client, PresentedCredentials)> {
        let record = self.proxy.recorder.handshake("frontend", peer);
        let accepting = TlsAcceptor::from(self.tls.clone()).accept(tcp);
        let outcome = match tokio::time::timeout(self.head_timeout, accepting).await {
            Ok(Ok(tls)) => {
                record.succeeded();
                let session = tls.get_ref().1;
                let certificate = session.peer_certificates().and_then(|chain| chain.first()).cloned();
                let cluster = session.server_name().and_then(|name| self.proxy.cluster_of_server_name(name));
                let certificate = certificate.map(CertificateDer::into_owned);
                let presented = PresentedCredentials { certificate, cluster, ..PresentedCredentials::default() };
                return Some((Client::new(Transport::Tls(Box::new(tls)), room), presented));
            }
            Ok(Err(error)) => handshake_outcome(&error),
            Err(_) => Outcome::TimedOut,
        };
        record.failed(outcome);
        tracing::debug!(reason = outcome.label(), "TLS handshake failed");
        None
    }

    async fn serve_client(self: Arc<Self>, mut client: Client, peer: Peer, presented: PresentedCredentials) {
        if client.ahead().is_empty() && !matches!(self.soon(client.read_ahead()).await, Some(Ok(1..))) {
            return;
        }
        let limit = self.head_timeout;
        if client.ahead().first() == Some(&socks5::VERSION) {
            return socks5::serve(&self.proxy, client, peer, presented, limit).await;
        }
        match tokio::time::timeout(limit, head::read(&mut client)).await {
            Ok(Ok(Head::Connect { authority, authorization })) => {
                connect::serve(&self.proxy, client, peer, presented, &authority, authorization).await;
            }
            Ok(Ok(Head::Http2)) => self.konnectivity.clone().serve(client, peer, presented).await,
            Ok(Ok(Head::Other)) => {
                let (proxy, stop) = (self.proxy.clone(), self.until.leave.clone());
                forward::serve(proxy, client, peer, presented, limit, stop).await;
            }
            Ok(Err(error)) => {
                self.proxy.recorder.connection(Frontend::Http, peer).refuse(error.outcome());
                connect::refuse_head(&mut client, &error).await;
            }
            Err(_) => {
                self.proxy.recorder.connection(Frontend::Http, peer).refuse(Outcome::TimedOut);
                let sentence = "the request's head did not arrive in time; send it at once";
                connect::answer(&mut client, StatusCode::REQUEST_TIMEOUT, sentence).await;
            }
        }
    }
}

fn prepare(tcp: &TcpStream) {
    // A socket that takes no option is about to fail anyway, and says why then.
    let _ = tcp.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE / 4);
    let _ = socket2::SockRef::from(tcp).set_tcp_keepalive(&keepalive);
}

async fn refuse_plaintext(mut client: Client, first: u8) {
    if first == socks5::VERSION {
        client.conclude(&socks5::NO_METHOD).await;
        return;
    }
    let sentence = "credentials would cross the network in clear; use TLS (https:// as the proxy's scheme), \
                    or start the hub with --plaintext any";
    connect::answer(&mut client, StatusCode::FORBIDDEN, sentence).await;
}

/// How a handshake has failed.
pub(crate) fn handshake_outcome(error: &io::Error) -> Outcome {
    use rustls::{CertificateError as C, Error as E};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<E>());
    match cause {
        Some(E::InvalidCertificate(C::Expired | C::ExpiredContext { .. })) => Outcome::CertificateExpired,
        Some(E::InvalidCertificate(C::UnknownIssuer)) => Outcome::CertificateUnknownIssuer,
        Some(E::InvalidCertificate(_)) => Outcome::CertificateInvalid,
        Some(_) => Outcome::Tls,
        None => Outcome::Connection,
    }
}
