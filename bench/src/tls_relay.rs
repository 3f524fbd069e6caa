//! The two hops of the TLS 1.3 relay, the baseline of most questions: between them every connection has a TLS connection of
//! its own with a full handshake, which is how a relay without multiplexing works.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::{Deserialize, Serialize};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::relay::{accept, copy, dial, listen};
use crate::role::Ready;

/// The name in the certificate of the exit.
pub(crate) const NAME: &str = "exit.bench.internal";

/// The role at the clients: TCP in, TLS out to the exit.
#[derive(Debug, Serialize, Deserialize)]
pub struct TlsEntry {
    /// Port 0 for any.
    pub listen: SocketAddr,
    /// The exit.
    pub to: SocketAddr,
    /// The exit's certificate, DER.
    pub certificate: Vec<u8>,
}

/// The role at the service: TLS in, TCP out. It makes its certificate itself.
#[derive(Debug, Serialize, Deserialize)]
pub struct TlsExit {
    /// Port 0 for any.
    pub listen: SocketAddr,
    /// The service.
    pub to: SocketAddr,
}

/// A certificate (ECDSA P-256) and its key.
#[derive(Debug)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl TlsEntry {
    /// Plays the role until it is killed.
    pub async fn run(self) -> Result<()> {
        let connector = TlsConnector::from(Arc::new(client_config(self.certificate)?));
        let listener = listen(self.listen, Ready::at).await?;
        accept(listener, |near| {
            let (connector, to) = (connector.clone(), self.to);
            let tls = async move { Ok(connector.connect(ServerName::try_from(NAME)?, dial(to).await?).await?) };
            async move { copy(near, tls).await }
        })
        .await
    }
}

impl TlsExit {
    /// Plays the role until it is killed.
    pub async fn run(self) -> Result<()> {
        let identity = Identity::generate()?;
        let certificate = Some(identity.certificate.to_vec());
        let acceptor = TlsAcceptor::from(Arc::new(identity.server_config()?));
        let listener = listen(self.listen, |address| Ready { address, certificate }).await?;
        accept(listener, |near| {
            let (acceptor, to) = (acceptor.clone(), self.to);
            async move { copy(acceptor.accept(near).await?, dial(to)).await }
        })
        .await
    }
}

impl Identity {
    /// A new one, signed by itself.
    pub fn generate() -> Result<Self> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?.der().clone();
        Ok(Self { certificate, key: PrivateKeyDer::Pkcs8(key.serialize_der().into()) })
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> Vec<u8> {
        self.certificate.to_vec()
    }

    /// TLS 1.3 for the exit, without tickets: no connection resumes another's session.
    pub fn server_config(self) -> Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
        let mut config = builder.with_no_client_auth().with_single_cert(vec![self.certificate], self.key)?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// TLS 1.3 to an exit with this certificate (DER), without resumption.
pub fn client_config(certificate: Vec<u8>) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.into())?;
    let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[&TLS13])?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// The cipher suite of the tunnel, and the cheaper key exchange: X25519 without ML-KEM, which favours this baseline.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    })
}
