//! The side of TLS that dials a hub whose CA is known: agents and commands.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption, WebPkiServerVerifier},
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{
    clock::Dated,
    distrust::HubTls,
    server_tls::{TlsError, provider, root_store},
};

/// A client's side of TLS: TLS 1.3 only, the hub verified under the roots, nothing resumed.
#[derive(Clone, Debug)]
pub struct ClientTls {
    roots: Vec<CertificateDer<'static>>,
    certificate: Arc<Resolver>,
}

impl ClientTls {
    /// Verifies the hub under `roots`, and shows a certificate (chain leaf first, and its key) when there is one.
    pub fn new(
        roots: Vec<CertificateDer<'static>>,
        credentials: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Self, TlsError> {
        root_store(&roots)?;
        let tls = Self { roots, certificate: Arc::new(Resolver(ArcSwapOption::empty())) };
        if let Some((chain, key)) = credentials {
            tls.swap(chain, key)?;
        }
        Ok(tls)
    }

    /// A configuration that follows every later [`Self::swap`].
    pub fn config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
        Ok(self.hub(alpn)?.config())
    }

    /// The same with who knows why a hub was not trusted.
    pub fn hub(&self, alpn: &[&[u8]]) -> Result<HubTls, TlsError> {
        let verifier = WebPkiServerVerifier::builder_with_provider(root_store(&self.roots)?, provider());
        let verifier = Arc::new(Dated(verifier.build().map_err(TlsError::Verifier)?));
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Roots)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(self.certificate.clone());
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(HubTls::new(config, verifier))
    }

    /// Shows another certificate from the next handshake on. Nothing changes on an error.
    pub fn swap(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), TlsError> {
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Credentials)?;
        self.certificate.0.store(Some(Arc::new(certified)));
        Ok(())
    }
}

#[derive(Debug)]
struct Resolver(ArcSwapOption<CertifiedKey>);

impl ResolvesClientCert for Resolver {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.load_full()
    }

    fn has_certs(&self) -> bool {
        self.0.load().is_some()
    }
}
