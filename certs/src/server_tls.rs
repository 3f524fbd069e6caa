//! The hub's side of TLS: its certificate, and whom it asks to be; both can be swapped under live configurations.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::TLS13,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{Identity, clock};

/// A hub's certificate chain (leaf first, then the CA, by which a joiner checks its pin) and the leaf's key.
pub struct ServerCredentials {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// The hub's side of TLS: TLS 1.3 only; a client certificate is optional and, when shown, verified under the roots.
#[derive(Clone, Debug)]
pub struct ServerTls {
    certificate: Arc<Resolver>,
    verifier: Arc<Verifier>,
}

/// A client showed a certificate that no CA has signed but its own key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client's certificate is self-signed; use one that the hub has issued")]
pub struct SelfSigned;

/// Why credentials cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the key does not fit the certificate, or is of an unknown kind")]
    Credentials(#[source] rustls::Error),
    #[error("the roots cannot be used")]
    Roots(#[source] rustls::Error),
    #[error("there are no roots to verify the other side under; give at least one CA certificate")]
    NoRoots,
    #[error("the roots cannot verify certificates")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// The process' only cryptography: aws-lc-rs with X25519MLKEM768 first, then AES-128-GCM, which is the fastest suite.
pub fn provider() -> Arc<CryptoProvider> {
    use aws_lc_rs::cipher_suite::{TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256};
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256];
    Arc::new(provider)
}

impl ServerCredentials {
    /// `chain` leaf first, `key` the leaf's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }

    /// The certificates, leaf first.
    #[cfg(test)]
    pub(crate) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    fn certified(self) -> Result<Arc<CertifiedKey>, TlsError> {
        CertifiedKey::from_der(self.chain, self.key, &provider()).map(Arc::new).map_err(TlsError::Credentials)
    }
}

impl std::fmt::Debug for ServerCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ServerCredentials({} certificates)", self.chain.len())
    }
}

impl ServerTls {
    /// Shows `credentials`, and verifies clients under `roots`.
    pub fn new(credentials: ServerCredentials, roots: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        let certificate = Resolver(ArcSwap::new(credentials.certified()?));
        let verifier = Verifier(ArcSwap::from_pointee(client_verifier(roots)?));
        Ok(Self { certificate: Arc::new(certificate), verifier: Arc::new(verifier) })
    }

    /// A configuration that follows every later [`Self::swap`].
    ///
    /// Nothing is resumed: a resumed session skips the verification of the client's certificate, so that one that has
    /// expired or whose CA is gone would come back. No early data: it can be replayed.
    pub fn config(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        self.config_with(alpn, self.verifier.clone())
    }

    /// As [`Self::config`], for a port where an agent may also show a certificate that has ended: who it is stands, and the
    /// handshake proves that it holds the key. Whether that counts is for the caller to decide.
    pub fn config_for_ended_agents(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        self.config_with(alpn, Arc::new(EndedAgents(self.verifier.clone())))
    }

    fn config_with(&self, alpn: &[&[u8]], verifier: Arc<dyn ClientCertVerifier>) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider's suites are those of TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(self.certificate.clone());
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Arc::new(config)
    }

    /// Shows other credentials and verifies under other roots, from the next handshake on. Nothing changes on an error.
    pub fn swap(&self, credentials: ServerCredentials, roots: &[CertificateDer<'static>]) -> Result<(), TlsError> {
        let verifier = client_verifier(roots)?;
        self.certificate.0.store(credentials.certified()?);
        self.verifier.0.store(Arc::new(verifier));
        Ok(())
    }
}

pub(crate) fn root_store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(TlsError::Roots)?;
    }
    if store.is_empty() {
        return Err(TlsError::NoRoots);
    }
    Ok(Arc::new(store))
}

fn client_verifier(roots: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(root_store(roots)?, provider())
        .allow_unauthenticated()
        .build()
        .map_err(TlsError::Verifier)
}

#[derive(Debug)]
struct Resolver(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Asks the verifier of the moment.
#[derive(Debug)]
struct Verifier(ArcSwap<Arc<dyn ClientCertVerifier>>);

impl ClientCertVerifier for Verifier {
    /// None: the roots may change, and clients have one certificate for us anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        use CertificateError::{NotValidYet, NotValidYetContext, UnknownIssuer};
        let verifier = self.0.load();
        match verifier.verify_client_cert(leaf, intermediates, now) {
            Err(rustls::Error::InvalidCertificate(UnknownIssuer)) if is_self_issued(leaf) => {
                Err(CertificateError::Other(OtherError(Arc::new(SelfSigned))).into())
            }
            // The hub has made it itself: its clock was fast then, or is slow now. The beginning keeps nobody out who is to stay out.
            Err(rustls::Error::InvalidCertificate(early @ (NotValidYet | NotValidYetContext { .. }))) => {
                let begin = clock::begin(leaf).ok_or(early)?;
                verifier.verify_client_cert(leaf, intermediates, begin)
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // No configuration here speaks TLS 1.2.
        Err(rustls::Error::InvalidCertificate(CertificateError::BadSignature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.load().verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.load().supported_verify_schemes()
    }
}

/// As [`Verifier`], but an agent's certificate may have ended: it is verified in everything else as on its last second.
#[derive(Debug)]
struct EndedAgents(Arc<Verifier>);

impl ClientCertVerifier for EndedAgents {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.0.verify_client_cert(leaf, intermediates, now);
        let ended = matches!(
            verified,
            Err(rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }))
        );
        match clock::end(leaf) {
            Some(end) if ended && matches!(Identity::from_certificate(leaf), Ok(Identity::Agent { .. })) => {
                self.0.verify_client_cert(leaf, intermediates, end)
            }
            _ => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    X509Certificate::from_der(certificate)
        .is_ok_and(|(_, certificate)| certificate.subject().as_raw() == certificate.issuer().as_raw())
}
