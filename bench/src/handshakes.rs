//! Handshakes: the same mutual TLS 1.3, with the same certificates and X25519MLKEM768, bare over TCP and for a tunnel.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use certs::{Authority, ClientTls, HUB_SERVER_NAME, ServerTls};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::{Deserialize, Serialize};
use tests::Process;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tunnel::{ALPN_TUNNEL, AgentTunnel, CloseReason, Hello, Settings, TunnelMemory};

use crate::fleet::Fleet;
use crate::place::Place;
use crate::role::{self, Ready, Role};

/// How long one handshake may take on a loaded machine, and all of them.
const ONE: Duration = Duration::from_secs(20);
const ALL: Duration = Duration::from_secs(120);

/// Handshakes at a time: a QUIC connection takes a while to be closed on both sides, which is not waiting for the server.
const TOGETHER: usize = 32;

/// How long the server's certificate lives.
const VALIDITY: Duration = Duration::from_secs(3600);

/// The role of a server that shakes hands over TCP and does nothing else.
#[derive(Debug, Serialize, Deserialize)]
pub struct BareServer {
    /// The hub's state folder, for its authority.
    pub hub: PathBuf,
}

/// The role of those who shake hands, as agents of a fleet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Handshakes {
    /// Where, and how far they go.
    pub with: With,
    /// The agents' state.
    pub fleet: PathBuf,
    /// Clusters of the fleet that take turns.
    pub clusters: usize,
    /// How many handshakes.
    pub count: usize,
}

/// What a handshake is.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum With {
    /// TLS over TCP with a [`BareServer`].
    Bare(SocketAddr),
    /// A QUIC connection to the hub, and no word over it.
    Quic(SocketAddr),
    /// A tunnel, from the first packet to the hub's Welcome, and its close.
    Tunnel(SocketAddr),
}

/// How it went.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Shaken {
    /// Handshakes a second.
    pub rate: f64,
}

impl BareServer {
    /// Starts one.
    pub async fn start(hub: &Path) -> Result<(Process, SocketAddr)> {
        let (process, ready) = Role::BareServer(Self { hub: hub.to_owned() }).start(&Place::loopback()).await?;
        Ok((process, ready.address))
    }

    /// Plays the role until it is killed.
    pub async fn run(self) -> Result<()> {
        let authority = Authority::load_or_create(&self.hub)?;
        let credentials = authority.issue_server(&["localhost".to_owned()], VALIDITY)?;
        let tls = ServerTls::new(credentials, &[authority.certificate().clone()])?;
        let acceptor = TlsAcceptor::from(tls.config(&[ALPN_TUNNEL]));
        let listener = TcpListener::bind(Place::loopback().any_port()).await?;
        role::say(&Ready::at(listener.local_addr()?))?;
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    let accepting = acceptor.accept(stream);
                    connections.spawn(async move { accepting.await?.read_to_end(&mut Vec::new()).await });
                }
                // A client that fails says so itself.
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

impl Handshakes {
    /// Runs them in a process of their own.
    pub async fn measure(&self) -> Result<Shaken> {
        let program = Role::Handshakes(self.clone()).program(&Place::loopback())?;
        let said = program.run(ALL).await?.success().context("handshakes fail")?;
        serde_json::from_str(said.trim_end()).context("the handshakes' figures are not as expected")
    }

    /// Plays the role to its end.
    pub async fn run(self) -> Result<()> {
        let fleet = Fleet::at(&self.fleet);
        let agents = (0..self.clusters).map(|index| client_tls(&fleet.agent(index)));
        let agents = agents.collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let all = (0..self.count).map(|index| self.with.shake(agents[index % agents.len()].clone()));
        stream::iter(all).buffer_unordered(TOGETHER).try_collect::<Vec<_>>().await?;
        role::say(&Shaken { rate: self.count as f64 / start.elapsed().as_secs_f64() })
    }
}

impl With {
    async fn shake(self, tls: Arc<ClientConfig>) -> Result<()> {
        let dial = |address| tunnel::connect(address, tls.clone(), HUB_SERVER_NAME, Settings::default(), ONE);
        match self {
            Self::Bare(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let connecting = TlsConnector::from(tls).connect(ServerName::try_from(HUB_SERVER_NAME)?, stream);
                Ok(connecting.await?.shutdown().await?)
            }
            Self::Quic(address) => {
                let connection = dial(address).await?;
                connection.close(CloseReason::Done, "");
                connection.flush(ONE).await;
                Ok(())
            }
            Self::Tunnel(address) => {
                let hello = Hello { version: "bench".to_owned(), ..Hello::default() };
                let (tunnel, _control, _) =
                    AgentTunnel::establish(dial(address).await?, hello, TunnelMemory::default(), ONE).await?;
                tunnel.close(CloseReason::AgentStopping, "", ONE).await;
                Ok(())
            }
        }
    }
}

/// The agent in a state folder, as its TLS shows it.
fn client_tls(agent: &Path) -> Result<Arc<ClientConfig>> {
    let chain = CertificateDer::pem_slice_iter(&fs::read(agent.join("agent.crt"))?).collect::<Result<Vec<_>, _>>()?;
    let roots = CertificateDer::pem_slice_iter(&fs::read(agent.join("ca.crt"))?).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file(agent.join("agent.key"))?;
    Ok(ClientTls::new(roots, Some((chain, key)))?.config(&[ALPN_TUNNEL])?)
}
