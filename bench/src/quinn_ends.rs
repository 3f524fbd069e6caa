//! The two ends of a raw QUIC connection: what the library gives without a relay and without TCP. The settings are quinn's
//! own, with the cipher of every other path and socket buffers as large as ours.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, RecvStream, SendStream, ServerConfig, TokioRuntime};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{Join, join};
use tokio::task::JoinSet;

use crate::role::{self, Ready};
use crate::service::serve;
use crate::tls_relay::{Identity, NAME, client_config};

/// What both sockets ask of the kernel: the loopback burst of a whole congestion window. The kernel may give less.
const SOCKET_BUFFER: usize = 4 << 20;
/// The streams the exit lets the entry open.
const STREAMS: u32 = 2048;
/// The protocol's name in the handshake.
const ALPN: &[u8] = b"bench";

/// The role at the service's place: it serves each stream itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct QuinnExit {
    /// Port 0 for any.
    pub listen: SocketAddr,
}

/// The end within the load.
#[derive(Debug)]
pub struct Entry {
    connection: Connection,
    /// Kept as long as its connection is used.
    _endpoint: Endpoint,
}

/// One bidirectional stream.
pub type QuinnStream = Join<RecvStream, SendStream>;

impl QuinnExit {
    /// Plays the role until it is killed.
    pub async fn run(self) -> Result<()> {
        let identity = Identity::generate()?;
        let certificate = Some(identity.certificate());
        let mut tls = identity.server_config()?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        let transport = Arc::get_mut(&mut config.transport).context("the transport settings are shared already")?;
        transport.max_concurrent_bidi_streams(STREAMS.into());
        let endpoint = endpoint(self.listen, Some(config))?;
        role::say(&Ready { address: endpoint.local_addr()?, certificate })?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                Some(incoming) = endpoint.accept() => drop(connections.spawn(async { serve_all(incoming.await?).await })),
                // A load that leaves has had enough.
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Serves the streams of one connection until it is gone.
async fn serve_all(connection: Connection) -> Result<()> {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            opened = connection.accept_bi() => {
                let (send, receive) = opened?;
                streams.spawn(serve(join(receive, send)));
            }
            Some(_) = streams.join_next() => {}
        }
    }
}

impl Entry {
    /// Connects to an exit with this certificate, DER.
    pub async fn connect(address: SocketAddr, certificate: Vec<u8>) -> Result<Self> {
        let mut tls = client_config(certificate)?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let endpoint = endpoint(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), None)?;
        let config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        let connection = endpoint.connect_with(config, address, NAME)?.await.context("no QUIC connection")?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    /// A new stream, of which the other end learns with its first byte.
    pub async fn open(&self) -> Result<QuinnStream> {
        let (send, receive) = self.connection.open_bi().await?;
        Ok(join(receive, send))
    }
}

fn endpoint(listen: SocketAddr, server: Option<ServerConfig>) -> Result<Endpoint> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_recv_buffer_size(SOCKET_BUFFER)?;
    socket.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_nonblocking(true)?;
    socket.bind(&listen.into()).with_context(|| format!("cannot bind {listen}"))?;
    Ok(Endpoint::new(EndpointConfig::default(), server, socket.into(), Arc::new(TokioRuntime))?)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_stream_is_served_like_a_connection() -> Result<()> {
        let identity = Identity::generate()?;
        let certificate = identity.certificate();
        let mut tls = identity.server_config()?;
        tls.alpn_protocols = vec![ALPN.to_vec()];
        let config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
        let exit = endpoint(([127, 0, 0, 1], 0).into(), Some(config))?;
        let address = exit.local_addr()?;
        let served = async { serve_all(exit.accept().await.context("closed")?.await?).await };
        let talk = async {
            let entry = Entry::connect(address, certificate).await?;
            let mut stream = entry.open().await?;
            stream.write_all(b"echo\nabc").await?;
            let mut answer = [0; 3];
            stream.read_exact(&mut answer).await?;
            anyhow::ensure!(&answer == b"abc");
            Ok(())
        };
        tokio::select! {
            served = served => served,
            talked = talk => talked,
        }
    }
}
