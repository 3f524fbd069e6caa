//! Why a hub is not trusted, kept beside the handshake: QUIC hands on nothing of it but a text.

use std::{
    error::Error,
    io,
    sync::{Arc, OnceLock},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{clock::WrongClock, pinned_tls::PinMismatch};

/// Why the hub that answered is not trusted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Distrust {
    /// It has another CA than the pinned one.
    #[error(transparent)]
    OtherCa(PinMismatch),
    /// It is the right one, and its clock or this machine's is wrong.
    #[error(transparent)]
    WrongClock(WrongClock),
    /// Its certificate is not one of the hub's, or not in date.
    #[error(transparent)]
    Certificate(rustls::Error),
}

impl From<rustls::Error> for Distrust {
    fn from(error: rustls::Error) -> Self {
        if let Some(mismatch) = PinMismatch::find(&error) {
            return Self::OtherCa(mismatch.clone());
        }
        match WrongClock::find(&error) {
            Some(wrong) => Self::WrongClock(*wrong),
            None => Self::Certificate(error),
        }
    }
}

/// The TLS of a client that dials a hub.
#[derive(Clone, Debug)]
pub struct HubTls {
    config: Arc<ClientConfig>,
    verifier: Arc<dyn ServerCertVerifier>,
}

impl HubTls {
    /// Of a configuration that has this verifier.
    pub(crate) fn new(config: ClientConfig, verifier: Arc<dyn ServerCertVerifier>) -> Self {
        Self { config: Arc::new(config), verifier }
    }

    /// For a transport that hands on rustls' errors.
    pub fn config(&self) -> Arc<ClientConfig> {
        self.config.clone()
    }

    /// For one handshake by a transport that does not, and who knows why that one failed.
    pub fn witnessed(&self) -> (Arc<ClientConfig>, Witness) {
        let witness = Witness::default();
        let verifier = Witnessed { verifier: self.verifier.clone(), witness: witness.clone() };
        let mut config = ClientConfig::clone(&self.config);
        config.dangerous().set_certificate_verifier(Arc::new(verifier));
        (Arc::new(config), witness)
    }
}

/// Of one handshake.
#[derive(Clone, Debug, Default)]
pub struct Witness(Arc<OnceLock<Distrust>>);

impl Witness {
    /// Why the hub is not trusted; `None` if it is, or if it has shown nothing.
    pub fn distrust(&self) -> Option<Distrust> {
        self.0.get().cloned()
    }
}

#[derive(Debug)]
struct Witnessed {
    verifier: Arc<dyn ServerCertVerifier>,
    witness: Witness,
}

impl Witnessed {
    fn see<T>(&self, verified: Result<T, rustls::Error>) -> Result<T, rustls::Error> {
        verified.inspect_err(|error| {
            // The first is the cause.
            let _ = self.witness.0.set(Distrust::from(error.clone()));
        })
    }
}

impl ServerCertVerifier for Witnessed {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.see(self.verifier.verify_server_cert(leaf, intermediates, name, ocsp, now))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.see(self.verifier.verify_tls12_signature(message, leaf, signature))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.see(self.verifier.verify_tls13_signature(message, leaf, signature))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

/// A `T` among the causes of an error, also inside of an [`io::Error`] or a [`rustls::Error`].
pub(crate) fn find<'e, T: Error + 'static>(error: &'e (dyn Error + 'static)) -> Option<&'e T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = match (error.downcast_ref::<io::Error>(), error.downcast_ref::<rustls::Error>()) {
            // What an io::Error wraps is not its source: that is the source of what it wraps.
            (Some(io), _) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
            (_, Some(rustls::Error::InvalidCertificate(CertificateError::Other(other)))) => Some(other.0.as_ref()),
            _ => error.source(),
        };
    }
    None
}
