//! An agent made of the crates `tunnel` and `certs` alone, inside the test: it says anything, also what no real agent would.

mod raw_join;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use certs::{Authority, ClientTls, HUB_SERVER_NAME, PrivateKey};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;
use tunnel::{
    ALPN_TUNNEL, AgentControl, AgentMessage, AgentTunnel, CloseReason, ConnectError, Connection, ConnectionLost,
    ControlError, DialRequest, EstablishError, Hello, HubMessage, Stream, TunnelMemory,
};

use crate::{Client, Hub, client};

pub use raw_join::{RawJoin, join_request};

/// How long anything on loopback may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(20);

/// A tunnel to a hub. Dropping it closes it.
#[derive(Debug)]
pub struct RawAgent {
    connection: Connection,
    tunnel: AgentTunnel,
    control: AgentControl,
}

/// A certificate to show, and its key.
#[derive(Debug)]
pub struct AgentCredentials {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKey,
}

impl AgentCredentials {
    /// A PEM chain and its key.
    pub fn new(chain_pem: &str, key: PrivateKey) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(chain_pem.as_bytes()).collect::<Result<_, _>>()?;
        Ok(Self { chain, key })
    }

    /// Issued by the CA in `folder` (made there if there is none) to `agent` of `cluster`, for a key that no registry knows.
    pub fn issued_by(folder: &Path, cluster: &str, agent: &str, validity: Duration) -> Result<Self> {
        let (authority, key) = (Authority::load_or_create(folder)?, PrivateKey::generate());
        let issued = authority.issue_agent(&key.csr_der()?, &cluster.parse()?, &agent.parse()?, validity)?;
        Self::new(&issued.chain_pem, key)
    }

    /// Joins `hub` as `agent` of `cluster` with a token that needs no accept.
    pub async fn joined(hub: &Hub, cluster: &str, agent: &str) -> Result<Self> {
        let terms = crate::hub::JoinTerms::auto_accepted(cluster);
        let (token, key) = (hub.create_token(&terms).await?, PrivateKey::generate());
        let mut join = RawJoin::ask(hub, &join_request(&token, cluster, agent, &key)?).await?;
        Self::new(&join.issued().await?.chain_pem, key)
    }

    /// TLS that shows the chain and speaks one of `alpn`; the hub is verified under its CA.
    pub fn tls(&self, hub: &Hub, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>> {
        let key = PrivateKeyDer::from_pem_slice(self.key.to_pem().as_bytes())?;
        Ok(ClientTls::new(authority_of(hub)?, Some((self.chain.clone(), key)))?.config(alpn)?)
    }
}

impl RawAgent {
    /// Opens a tunnel and is welcomed.
    pub async fn open(hub: &Hub, credentials: &AgentCredentials) -> Result<Self> {
        match Self::try_open(hub, credentials.tls(hub, &[ALPN_TUNNEL])?).await? {
            Ok(agent) => Ok(agent),
            Err(loss) => bail!("the hub opens no tunnel: {loss}"),
        }
    }

    /// Tries to open a tunnel with `credentials`, or with no certificate, and tells how the hub refused.
    pub async fn refused(hub: &Hub, credentials: Option<&AgentCredentials>) -> Result<ConnectionLost> {
        let tls = match credentials {
            Some(credentials) => credentials.tls(hub, &[ALPN_TUNNEL])?,
            None => ClientTls::new(authority_of(hub)?, None)?.config(&[ALPN_TUNNEL])?,
        };
        Self::try_open(hub, tls).await?.err().context("the hub opened a tunnel")
    }

    async fn try_open(hub: &Hub, tls: Arc<ClientConfig>) -> Result<Result<Self, ConnectionLost>> {
        let connection =
            match tunnel::connect(hub.addresses().tunnel, tls, HUB_SERVER_NAME, tunnel::Settings::default(), BOUND)
                .await
            {
                Ok(connection) => connection,
                Err(ConnectError::Handshake { source, .. }) => return Ok(Err(source)),
                Err(other) => return Err(other.into()),
            };
        let hello = Hello { version: "raw".to_owned(), ..Hello::default() };
        match AgentTunnel::establish(connection.clone(), hello, TunnelMemory::default(), BOUND).await {
            Ok((tunnel, control, _)) => Ok(Ok(Self { connection, tunnel, control })),
            Err(EstablishError::Lost(loss) | EstablishError::Control(ControlError::Lost(loss))) => Ok(Err(loss)),
            // A stream may be seen to end before its connection is: that one knows why.
            Err(EstablishError::Control(ControlError::Protocol(_))) => {
                Ok(Err(timeout(BOUND, connection.closed()).await.context("the hub broke off, and stays")?))
            }
            Err(other) => Err(other.into()),
        }
    }

    /// Says something on the control stream.
    pub fn say(&self, message: AgentMessage) -> Result<()> {
        Ok(self.control.send(message)?)
    }

    /// The hub's next message on the control stream.
    pub async fn hear(&mut self) -> Result<HubMessage> {
        Ok(timeout(BOUND, self.control.receive()).await.context("the hub says nothing")??)
    }

    /// The next dial.
    pub async fn dial(&self) -> Result<DialRequest> {
        let pending = timeout(BOUND, self.tunnel.accept()).await.context("no dial came")??;
        Ok(pending.read(BOUND).await?)
    }

    /// Accepts the next dial, as if a target had been connected.
    pub async fn take(&self) -> Result<Stream> {
        Ok(self.dial().await?.accept("192.0.2.1:80").await?)
    }

    /// Has `client` dial `target` through the hub, and gives both its connection and this agent's stream.
    pub async fn connect(&self, client: &Client, target: &str) -> Result<(client::Connection, Stream)> {
        let (connection, stream) = tokio::join!(client.dial(target), self.take());
        Ok((connection?, stream?))
    }

    /// Waits until the tunnel is gone, and tells why.
    pub async fn lost(&self) -> Result<ConnectionLost> {
        timeout(BOUND, self.tunnel.closed()).await.context("the tunnel is still there")
    }

    /// Closes the tunnel, and has the hub hear of it.
    pub async fn close(self) {
        self.connection.close(CloseReason::AgentStopping, "");
        self.connection.flush(BOUND).await;
    }
}

fn authority_of(hub: &Hub) -> Result<Vec<CertificateDer<'static>>> {
    let file = hub.credentials().authority_file();
    Ok(CertificateDer::pem_file_iter(&file)?.collect::<Result<_, _>>()?)
}
