//! TLS to services of the spoke: whose certificates are believed, and the handshake.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem::PemObject},
    version::TLS13,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::target::Host;

/// Why a service was not believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("the CA file {} cannot be read; check the agent's --kube-ca and --service-ca", .0.display())]
    Unreadable(PathBuf, #[source] io::Error),
    #[error("the CA file {} holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    #[error("the TLS configuration cannot be made")]
    Configuration(#[source] rustls::Error),
    #[error("the host's name cannot be in a certificate")]
    Name(#[from] InvalidDnsNameError),
    #[error(
        "the TLS handshake failed; its certificate must be for this name and of a CA that the agent knows (--service-ca)"
    )]
    Handshake(#[source] io::Error),
}

/// Shakes hands as a client with `host`, believing the CAs in the files of `cas`. They are read anew each time: who
/// replaces one needs no restart.
pub(crate) async fn handshake(
    tcp: TcpStream,
    host: &Host,
    cas: &[PathBuf],
    protocols: &[&[u8]],
) -> Result<TlsStream<TcpStream>, TlsError> {
    let mut roots = RootCertStore::empty();
    for path in cas {
        roots.add_parsable_certificates(certificates(path).await?);
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let config = config.map_err(TlsError::Configuration)?.with_root_certificates(roots);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let name = match host {
        Host::Address(address) => ServerName::from(*address),
        Host::Name(name) | Host::Full(name) => ServerName::try_from(name.clone())?,
    };
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(TlsError::Handshake)
}

async fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = tokio::fs::read(path).await.map_err(|error| TlsError::Unreadable(path.to_owned(), error))?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok).collect();
    if certificates.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(certificates) }
}
