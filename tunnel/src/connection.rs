//! One QUIC connection after its handshake, before it has a role; and why a connection is lost.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;

use crate::{
    ALPN_JOIN, ALPN_TUNNEL, congestion,
    socket::mtu::{self, Mtu},
    socket::{Offload, Socket},
    wire::code::CloseReason,
};

/// A connection whose handshake is done. Turn it into an [`AgentTunnel`](crate::AgentTunnel), a
/// [`HubTunnel`](crate::HubTunnel) or a join; dropping it closes it.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(crate) quic: quinn::Connection,
    pub(crate) origin: Origin,
}

/// Which end began a connection.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// We did, from a socket of its own: the endpoint has no other owner.
    Dialled { endpoint: quinn::Endpoint, socket: Arc<Socket> },
    /// The peer did, and sends to this connection id.
    Accepted { id: u64, socket: Arc<Socket> },
}

/// What the two ends agreed to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tunnel,
    Join,
}

/// Why a connection is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionLost {
    /// The peer closed it and said why.
    Closed { reason: CloseReason, text: String },
    /// The peer's TLS refused our certificate, by this alert (RFC 8446 section 6).
    CertificateRefused(&'static str),
    /// Nothing was heard from the peer for the idle time-out.
    TimedOut,
    /// The peer does not know this connection (it restarted).
    Forgotten,
    /// We closed it.
    ClosedHere,
    /// The transport failed.
    Transport(String),
}

impl Connection {
    /// What was agreed by ALPN.
    pub fn protocol(&self) -> Option<Protocol> {
        let data = self.quic.handshake_data()?.downcast::<quinn::crypto::rustls::HandshakeData>().ok()?;
        match data.protocol.as_deref() {
            Some(ALPN_TUNNEL) => Some(Protocol::Tunnel),
            Some(ALPN_JOIN) => Some(Protocol::Join),
            _ => None,
        }
    }

    /// The chain that the peer showed, leaf first; TLS has verified it. Empty when it showed none.
    pub fn peer_certificates(&self) -> Vec<CertificateDer<'static>> {
        let chain = self.quic.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        chain.map(|chain| *chain).unwrap_or_default()
    }

    /// The peer's address as seen here.
    pub fn remote_address(&self) -> SocketAddr {
        let (Origin::Dialled { socket, .. } | Origin::Accepted { socket, .. }) = &self.origin;
        socket.own(self.quic.remote_address())
    }

    /// Smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.quic.rtt()
    }

    /// The largest IP packet that the path was found to carry, in bytes.
    pub fn path_mtu(&self) -> u16 {
        mtu::packet(self.quic.stats().path.current_mtu)
    }

    /// The same, where it is more than what every path carries: for the next connection over this path.
    pub fn known_mtu(&self) -> Option<Mtu> {
        Mtu::new(self.path_mtu()).ok()
    }

    /// What is known of the path that this end sends over.
    pub(crate) fn path(&self) -> PathState {
        let path = self.quic.stats().path;
        PathState { rtt: path.rtt, window: path.cwnd, sent: path.sent_packets, lost: path.lost_packets }
    }

    /// What the kernel does for the socket of a connection that we dialled.
    pub fn offload(&self) -> Option<Offload> {
        match &self.origin {
            Origin::Dialled { socket, .. } => Some(socket.offload()),
            Origin::Accepted { .. } => None,
        }
    }

    /// Has what goes out next go out however much is under way, after quinn's own probes.
    pub(crate) fn nudge(&self) {
        congestion::nudge(self.quic.congestion_state());
    }

    /// The same at once.
    pub(crate) fn insist(&self) {
        congestion::insist(self.quic.congestion_state());
    }

    /// Forgets what is known of the path, and begins with packets that every path carries. An end that has dialled cannot.
    pub(crate) fn begin_anew(&self) {
        if let Origin::Accepted { socket, .. } = &self.origin {
            socket.rename(self.quic.remote_address());
        }
    }

    /// Closes the connection at once: open streams are lost.
    pub fn close(&self, reason: CloseReason, text: &str) {
        congestion::close(self.quic.congestion_state());
        self.quic.close(reason.varint(), text.as_bytes());
    }

    /// Waits until the connection is gone.
    pub async fn closed(&self) -> ConnectionLost {
        self.quic.closed().await.into()
    }

    /// Gives a close of a connection that we dialled the time to reach the peer: three probe time-outs, at most
    /// `limit`.
    pub async fn flush(&self, limit: Duration) {
        if let Origin::Dialled { endpoint, .. } = &self.origin {
            // A peer that is gone needs no goodbye.
            let _ = tokio::time::timeout(limit, endpoint.wait_idle()).await;
        }
    }
}

/// What one end knows of the path that it sends over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathState {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Bytes that may be under way.
    pub window: u64,
    /// Packets sent.
    pub sent: u64,
    /// Those of them that were given up for lost, which some were only late.
    pub lost: u64,
}

impl From<quinn::ConnectionError> for ConnectionLost {
    fn from(error: quinn::ConnectionError) -> Self {
        use quinn::ConnectionError as E;
        match error {
            E::ApplicationClosed(close) => Self::Closed {
                reason: CloseReason::from_code(close.error_code.into_inner()),
                text: String::from_utf8_lossy(&close.reason).into_owned(),
            },
            E::ConnectionClosed(close) => match alert(close.error_code.into()) {
                Some(alert) => Self::CertificateRefused(alert),
                None => Self::Transport(close.to_string()),
            },
            E::TimedOut => Self::TimedOut,
            E::Reset => Self::Forgotten,
            E::LocallyClosed => Self::ClosedHere,
            E::TransportError(error) => Self::Transport(error.to_string()),
            E::VersionMismatch | E::CidsExhausted => Self::Transport(error.to_string()),
        }
    }
}

/// The certificate alert in a QUIC CRYPTO_ERROR (RFC 9001 section 4.8), if it is one.
fn alert(code: u64) -> Option<&'static str> {
    match code.checked_sub(0x100)? {
        42 => Some("bad certificate"),
        43 => Some("unsupported certificate"),
        44 => Some("certificate revoked"),
        45 => Some("certificate expired"),
        46 => Some("certificate unknown"),
        48 => Some("unknown certificate authority"),
        51 => Some("bad certificate signature"),
        116 => Some("certificate required"),
        _ => None,
    }
}

impl fmt::Display for ConnectionLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { reason, text } if text.is_empty() => write!(f, "closed by the peer: {reason}"),
            Self::Closed { text, .. } => write!(f, "closed by the peer: {text}"),
            Self::CertificateRefused(alert) => write!(f, "the peer refused our certificate: {alert}"),
            Self::TimedOut => f.write_str("the peer has not been heard of for the idle time-out"),
            Self::Forgotten => f.write_str("the peer does not know this connection any more; it has restarted"),
            Self::ClosedHere => f.write_str("closed by this end"),
            Self::Transport(error) => write!(f, "transport failure: {error}"),
        }
    }
}

impl std::error::Error for ConnectionLost {}
