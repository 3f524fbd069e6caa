//! A hub double: the real listener, TLS and messages, with the decisions made by the test.

use std::{io, net::SocketAddr, path::Path, time::Duration};

use certs::{Authority, Identity, KeyFingerprint, Pin, ServerTls};
use tempfile::TempDir;
use tunnel::{
    ALPN_JOIN, ALPN_TUNNEL, CloseReason, Connection, HandshakeError, Hello, HubControl, HubMessage, HubTunnel, Issued,
    JoinReply, JoinRequest, JoinSession, Listener, PortSocket, Protocol, RESET_KEY_LENGTH, Settings, TunnelMemory,
    Welcome,
};

/// No step of these tests takes longer, even on a loaded machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A hub's socket, and the CA that outlives it.
pub(crate) struct Hub {
    pub(crate) authority: Authority,
    pub(crate) address: SocketAddr,
    listener: Option<Listener>,
    _folder: TempDir,
}

/// The hub's end of a tunnel.
pub(crate) struct HubEnd {
    pub(crate) tunnel: HubTunnel,
    pub(crate) control: HubControl,
    pub(crate) hello: Hello,
    pub(crate) identity: Identity,
    /// The agent's key.
    pub(crate) key: KeyFingerprint,
}

impl Hub {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let listener = listen(&authority, SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = listener.local_address().unwrap();
        Self { authority, address, listener: Some(listener), _folder: folder }
    }

    pub(crate) fn pin(&self) -> Pin {
        self.authority.pin()
    }

    /// Stops as a hub does that is told to.
    pub(crate) async fn stop(&mut self) {
        self.listener.take().unwrap().close(CloseReason::HubStopping, "", SOON).await;
    }

    /// Listens again, at the same address, as soon as that is free.
    pub(crate) async fn start_again(&mut self) {
        let listening = async {
            loop {
                match try_listen(&self.authority, self.address) {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        self.listener = Some(tokio::time::timeout(SOON, listening).await.expect("the address stays taken"));
    }

    pub(crate) async fn accept(&self) -> Connection {
        self.shake_hands().await.unwrap()
    }

    /// The next handshake, which may fail.
    pub(crate) async fn shake_hands(&self) -> Result<Connection, HandshakeError> {
        let incoming = tokio::time::timeout(SOON, self.listener.as_ref().unwrap().accept()).await;
        incoming.expect("nobody connects").unwrap().accept(SOON).await
    }

    /// The next tunnel, welcomed.
    pub(crate) async fn tunnel(&self) -> HubEnd {
        let connection = self.accept().await;
        assert_eq!(connection.protocol(), Some(Protocol::Tunnel));
        let leaf = connection.peer_certificates().remove(0);
        let (identity, key) =
            (Identity::from_certificate(&leaf).unwrap(), KeyFingerprint::of_certificate(&leaf).unwrap());
        let (tunnel, control, hello) = HubTunnel::establish(connection, TunnelMemory::default(), SOON).await.unwrap();
        control.send(HubMessage::Welcome(Welcome { server_id: "s".into(), version: "1".into() })).unwrap();
        HubEnd { tunnel, control, hello, identity, key }
    }

    /// The next join's request.
    pub(crate) async fn join(&self) -> (JoinSession, JoinRequest) {
        let connection = self.accept().await;
        assert_eq!(connection.protocol(), Some(Protocol::Join));
        assert!(connection.peer_certificates().is_empty());
        JoinSession::accept(connection, SOON).await.unwrap()
    }

    /// What a hub answers to a request that it grants.
    pub(crate) fn issue(&self, request: &JoinRequest, validity: Duration) -> JoinReply {
        let cluster = if request.cluster.is_empty() { "bound" } else { &request.cluster };
        let (named, agent) = (cluster.parse().unwrap(), request.agent.parse().unwrap());
        let issued = self.authority.issue_agent(&request.csr, &named, &agent, validity).unwrap();
        JoinReply::Issued(Issued { cluster: cluster.into(), chain_pem: issued.chain_pem })
    }

    /// Grants the next join.
    pub(crate) async fn grant(&self) -> JoinRequest {
        let (session, request) = self.join().await;
        session.conclude(self.issue(&request, DAY), SOON).await.unwrap();
        request
    }
}

fn listen(authority: &Authority, address: SocketAddr) -> Listener {
    try_listen(authority, address).unwrap()
}

fn try_listen(authority: &Authority, address: SocketAddr) -> io::Result<Listener> {
    let credentials = authority.issue_server(&[], DAY).unwrap();
    let tls = ServerTls::new(credentials, &[authority.certificate().clone()]).unwrap();
    let port = PortSocket::bind(address, 1)?.0.remove(0);
    let tls = tls.config(&[ALPN_TUNNEL, ALPN_JOIN]);
    Ok(Listener::serve(port, tls, &[7; RESET_KEY_LENGTH], Settings::default()).unwrap())
}

/// Everything in a folder, by name.
pub(crate) fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    names.sort();
    names
}
