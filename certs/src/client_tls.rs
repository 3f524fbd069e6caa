//! The side of TLS that dials a hub: agents and commands with the hub's CA, joiners with its pin.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme,
    client::{
        ResolvesClientCert, Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
    version::TLS13,
};

use crate::{
    pin::{KeyFingerprint, Pin},
    server_tls::{TlsError, provider, root_store},
};

/// A client's side of TLS: TLS 1.3 only, the hub verified under the roots, nothing resumed.
#[derive(Clone, Debug)]
pub struct ClientTls {
    roots: Vec<CertificateDer<'static>>,
    certificate: Arc<Resolver>,
}

/// The hub that answered has another CA than the pinned one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the hub shows another CA than the pinned {expected}: {}", shown(.presented))]
pub struct PinMismatch {
    /// What was asked for.
    pub expected: Pin,
    /// The pins of the CA certificates that were shown.
    pub presented: Vec<Pin>,
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
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])
            .map_err(TlsError::Roots)?
            .with_root_certificates(root_store(&self.roots)?)
            .with_client_cert_resolver(self.certificate.clone());
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// Shows another certificate from the next handshake on. Nothing changes on an error.
    pub fn swap(&self, chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<(), TlsError> {
        let certified = CertifiedKey::from_der(chain, key, &provider()).map_err(TlsError::Credentials)?;
        self.certificate.0.store(Some(Arc::new(certified)));
        Ok(())
    }
}

/// A configuration without a client certificate that accepts exactly a hub whose chain holds a CA with `pin`, and whose
/// leaf is valid under that CA for the name that is dialled.
pub fn pinned_client_config(pin: &Pin, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    let verifier = PinnedVerifier { pin: *pin };
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider's suites are those of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn shown(pins: &[Pin]) -> String {
    match pins {
        [] => "it shows none".into(),
        pins => {
            let pins: Vec<String> = pins.iter().map(ToString::to_string).collect();
            format!(
                "it shows {}; check the pin with 'cluster-proxy join-command', someone may be in between",
                pins.join(", ")
            )
        }
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

#[derive(Debug)]
struct PinnedVerifier {
    pin: Pin,
}

impl PinnedVerifier {
    /// The CA among `chain` that has the pin.
    fn root<'a>(&self, chain: &'a [CertificateDer<'a>]) -> Result<&'a CertificateDer<'a>, PinMismatch> {
        let mut presented = Vec::new();
        for certificate in chain {
            match KeyFingerprint::of_certificate(certificate) {
                Ok(pin) if pin == self.pin => return Ok(certificate),
                Ok(pin) => presented.push(pin),
                Err(_) => {}
            }
        }
        Err(PinMismatch { expected: self.pin, presented })
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = self.root(intermediates).map_err(|mismatch| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(mismatch))))
        })?;
        let bad = |_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding);
        let roots = root_store(&[root.clone().into_owned()]).map_err(bad)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|_| rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        verifier.verify_server_cert(leaf, intermediates, name, ocsp, now)
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
        verify_tls13_signature(message, leaf, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}
