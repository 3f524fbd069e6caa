//! The QUIC endpoints: the hub's [`Listener`] with its incoming handshakes, and the agent's [`connect`].

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::hmac;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use tokio::sync::watch;

use crate::{
    connection::{Connection, ConnectionLost, Origin},
    socket::deferral::{self, PeerSaid},
    socket::discovery,
    socket::id::{self, IdKey},
    socket::mtu::{self, Mtu},
    socket::port::{self, PortSocket, Worker},
    socket::reset::{Resets, Resettable},
    socket::runtime::Runtime,
    socket::{Offload, Socket},
    stream::credit::TunnelMemory,
    transport,
    wire::code::CloseReason,
};

/// Length of the hub's reset key, in bytes.
pub const RESET_KEY_LENGTH: usize = 64;

/// Time between two resets. quinn's 20 ms would take 100 s for 5,000 agents; a reset is smaller than what it answers, so
/// it neither amplifies nor loops.
const RESET_INTERVAL: Duration = Duration::from_micros(100);

/// How long a handshake may take at the end that dials, as long as the other end says something.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// The hub's UDP port.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    socket: Arc<Socket>,
    resets: Resets,
    configs: Arc<discovery::Configs>,
}

/// What an operator may set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The largest IP packet to send; what the path carries is found out.
    pub max_mtu: Mtu,
    /// What the path was found to carry when it was last used.
    pub path: Option<Mtu>,
    /// The most that the peer of a tunnel can make this end hold.
    pub memory: TunnelMemory,
}

/// Why the hub's port could not be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the UDP socket cannot be used")]
    Socket(#[source] io::Error),
    #[error("the TLS configuration cannot carry QUIC")]
    Tls(#[source] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// A handshake that has begun.
#[derive(Debug)]
pub struct Incoming {
    incoming: quinn::Incoming,
    // The listener's.
    configs: Arc<discovery::Configs>,
    socket: Arc<Socket>,
}

/// Why an incoming handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    #[error("the handshake was not complete within its deadline")]
    TimedOut,
    #[error("the handshake failed")]
    Failed(#[source] ConnectionLost),
}

/// Why dialling a hub failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("cannot open a UDP socket")]
    Socket(#[source] io::Error),
    #[error("the hub's address or the TLS configuration cannot carry QUIC: {0}")]
    Config(String),
    #[error("{0} does not answer: is the hub running, and does UDP reach it?")]
    TimedOut(SocketAddr),
    #[error("{address} has no room now, and asks to come again in {wait:.1?}")]
    Later { address: SocketAddr, wait: Duration },
    #[error("the handshake with {address} failed")]
    Handshake { address: SocketAddr, source: ConnectionLost },
}

impl Listener {
    /// Serves `port` in the runtime in which this is called. `tls` must be TLS 1.3 with this crate's ALPNs.
    ///
    /// `reset_key` must outlive a restart: with it the hub answers packets of connections that an earlier process
    /// had, so that their agents come back at once instead of after the idle time-out (RFC 9000 section 10.3).
    pub fn serve(
        port: PortSocket,
        tls: Arc<rustls::ServerConfig>,
        reset_key: &[u8; RESET_KEY_LENGTH],
        settings: Settings,
    ) -> Result<Self, ServeError> {
        let crypto = QuicServerConfig::try_from(tls).map_err(ServeError::Tls)?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(transport::hub(settings.max_mtu.min(Mtu::ETHERNET), None));
        let configs = Arc::new(discovery::Configs::new(server.clone(), settings.max_mtu));
        let PortSocket { socket, worker } = port;
        let socket = Arc::new(Socket::new(socket).map_err(ServeError::Socket)?);
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config(reset_key, worker),
            Some(server),
            socket.clone(),
            Arc::new(Runtime),
        )
        .map_err(ServeError::Socket)?;
        Ok(Self { endpoint, socket, resets: Resets::new(reset_key), configs })
    }

    /// What the kernel does for this port.
    pub fn offload(&self) -> Offload {
        self.socket.offload()
    }

    /// The address really bound.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next handshake; `None` when the listener is closed.
    pub async fn accept(&self) -> Option<Incoming> {
        let incoming = self.endpoint.accept().await?;
        Some(Incoming { incoming, configs: self.configs.clone(), socket: self.socket.clone() })
    }

    /// Resets a tunnel of an earlier process. An error is of this datagram alone: the socket may be full.
    pub fn reset(&self, tunnel: &Resettable) -> io::Result<()> {
        self.socket.send_to(tunnel.agent, &self.resets.datagram(tunnel))
    }

    /// Closes every connection with `reason`, and waits at most `limit` for the peers to hear of it.
    pub async fn close(&self, reason: CloseReason, text: &str, limit: Duration) {
        self.endpoint.close(reason.varint(), text.as_bytes());
        // Peers that are gone do not answer; they are not waited for.
        let _ = tokio::time::timeout(limit, self.endpoint.wait_idle()).await;
    }
}

impl Incoming {
    /// Where the handshake comes from; may be forged unless [`Self::validated`].
    pub fn remote_address(&self) -> SocketAddr {
        self.socket.own(self.incoming.remote_address())
    }

    /// The peer has shown that it receives what is sent to its address.
    pub fn validated(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    /// Makes the peer show that its address is its own (Retry, RFC 9000 section 8.1.2): costs it one round trip, and
    /// the hub no state.
    pub fn retry(self) {
        // A peer that was asked before and cannot be asked again is dropped.
        let _ = self.incoming.retry();
    }

    /// Says nothing. The peer will ask again.
    pub fn ignore(self) {
        self.incoming.ignore();
    }

    /// Has no room for it: the peer should come again after `wait`. One that does not hear of it asks again, as if ignored.
    pub fn put_off(self, wait: Duration) {
        let datagram = deferral::datagram(&self.incoming.orig_dst_cid(), wait);
        // The socket may be full.
        let _ = self.socket.send_to(self.remote_address(), &datagram);
        self.incoming.ignore();
    }

    /// Completes the handshake within `limit`. It begins with the call, in the caller's span: the connection's packets
    /// would otherwise each enter and leave the span of the task that waits.
    pub fn accept(self, limit: Duration) -> impl Future<Output = Result<Connection, HandshakeError>> + Send {
        let link = Mtu::towards(self.remote_address());
        let config = self.configs.of(&self.incoming.orig_dst_cid(), link);
        let accepted = self.incoming.accept_with(config);
        // Before anything else is accepted on this thread.
        let (id, socket) = (id::drawn(), self.socket);
        async move {
            let connecting = accepted.map_err(|error| HandshakeError::Failed(error.into()))?;
            let connected = tokio::time::timeout(limit, connecting).await.map_err(|_| HandshakeError::TimedOut)?;
            let quic = connected.map_err(|error| HandshakeError::Failed(error.into()))?;
            Ok(Connection { quic, origin: Origin::Accepted { id, socket } })
        }
    }
}

/// Dials the hub at `address` from a socket of its own. The certificate is verified by `tls` for `server_name`, whatever the
/// address. The hub may be silent for `patience`; while it speaks, what has begun is not begun anew, within [`HANDSHAKE`].
pub async fn connect(
    address: SocketAddr,
    tls: Arc<rustls::ClientConfig>,
    server_name: &str,
    settings: Settings,
    patience: Duration,
) -> Result<Connection, ConnectError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| ConnectError::Config(error.to_string()))?;
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    let link = Mtu::towards(address).min(settings.max_mtu);
    let known = settings.path.filter(|known| *known <= link);
    client.transport_config(transport::agent(link, known));
    if let Some(known) = known {
        client.initial_dst_cid_provider(Arc::new(move || discovery::asking_id(known)));
    }
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = port::open(SocketAddr::new(any, 0), false)
        .and_then(|socket| Socket::dialling(socket, address))
        .map_err(ConnectError::Socket)?;
    let mut config = quinn::EndpointConfig::default();
    receive_largest(&mut config);
    let runtime = Arc::new(Runtime);
    let socket = Arc::new(socket);
    let mut answers = socket.answers().expect("the socket is one that dials");
    let endpoint = quinn::Endpoint::new_with_abstract_socket(config, None, socket.clone(), runtime)
        .map_err(ConnectError::Socket)?;
    let connecting =
        endpoint.connect_with(client, address, server_name).map_err(|error| ConnectError::Config(error.to_string()))?;
    tokio::select! {
        connected = connecting => match connected {
            Ok(quic) => Ok(Connection { quic, origin: Origin::Dialled { endpoint, socket } }),
            Err(quinn::ConnectionError::TimedOut) => Err(ConnectError::TimedOut(address)),
            Err(error) => Err(ConnectError::Handshake { address, source: error.into() }),
        },
        never = socket.keep_asking() => match never {},
        wait = put_off(&mut answers, patience) => {
            // The hub knows nothing of a handshake that it has put off: a goodbye would begin another.
            socket.mute();
            Err(wait.map_or(ConnectError::TimedOut(address), |wait| ConnectError::Later { address, wait }))
        }
    }
}

/// Resolves when there is nothing to wait for: with the time after which to come again, where the hub has told one.
pub(crate) async fn put_off(answers: &mut watch::Receiver<PeerSaid>, patience: Duration) -> Option<Duration> {
    let until = |heard: &PeerSaid| tokio::time::Instant::from_std(heard.last + patience);
    let all = tokio::time::Instant::now() + HANDSHAKE.max(patience);
    loop {
        let PeerSaid { later, .. } = *answers.borrow_and_update();
        if later.is_some() {
            return later;
        }
        let silent = until(&answers.borrow()).min(all);
        match tokio::time::timeout_at(silent, answers.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return None,
        }
    }
}

/// The hub's settings that are not of one connection.
fn endpoint_config(reset_key: &[u8; RESET_KEY_LENGTH], worker: Worker) -> quinn::EndpointConfig {
    let hmac = hmac::Key::new(hmac::HMAC_SHA256, reset_key);
    // quinn answers unknown packets only when it recognises the connection id as one of its own.
    let ids = IdKey::new(reset_key);
    let mut config = quinn::EndpointConfig::new(Arc::new(hmac));
    config.cid_generator(move || worker.ids(ids.clone())).min_reset_interval(RESET_INTERVAL);
    receive_largest(&mut config);
    config
}

fn receive_largest(config: &mut quinn::EndpointConfig) {
    // It fails below 1200 only.
    let _ = config.max_udp_payload_size(mtu::LARGEST_DATAGRAM);
}
