//! The side of TLS that dials a hub of which nothing is known but the pin: a spoke that joins.

use std::{error::Error, fmt, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    authority::HUB_SERVER_NAME,
    clock,
    distrust::{HubTls, find},
    pin::{KeyFingerprint, Pin},
    server_tls::{provider, root_store},
};

/// The hub that answered has another CA than the pinned one.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("the hub shows another CA than the pinned {expected}: {}", shown(.presented))]
pub struct PinMismatch {
    /// What was asked for.
    pub expected: Pin,
    /// The pins of the CA certificates that were shown.
    pub presented: Vec<Pin>,
}

/// rustls tells what it wraps by `Debug`: it must be the sentence.
impl fmt::Debug for PinMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl PinMismatch {
    /// The mismatch among the causes of an error, also inside of an [`std::io::Error`] or a [`rustls::Error`].
    pub fn find<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e Self> {
        find(error)
    }
}

/// TLS without a client certificate that accepts exactly a hub whose chain holds a CA with `pin` in date,
/// and whose leaf is valid under that CA, for authenticating servers and for [`HUB_SERVER_NAME`], whatever was dialled.
/// Another hub is refused with a [`PinMismatch`].
pub fn pinned_tls(pin: &Pin, alpn: &[&[u8]]) -> HubTls {
    let verifier = Arc::new(PinnedVerifier { pin: *pin });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider's suites are those of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier.clone())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    config.resumption = Resumption::disabled();
    HubTls::new(config, verifier)
}

fn shown(pins: &[Pin]) -> String {
    match pins {
        [] => "it shows none; check the hub's address".into(),
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
struct PinnedVerifier {
    pin: Pin,
}

impl PinnedVerifier {
    /// The CA among `chain` that has the pin.
    fn root<'a>(
        &self,
        chain: &'a [CertificateDer<'a>],
        now: UnixTime,
    ) -> Result<&'a CertificateDer<'a>, CertificateError> {
        let mut presented = Vec::new();
        for certificate in chain {
            let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
            let pin = KeyFingerprint::of(parsed.public_key());
            match parsed.is_ca() {
                true if pin == self.pin => return check_dates(&parsed, now).map(|()| certificate),
                true => presented.push(pin),
                false => {}
            }
        }
        let mismatch = PinMismatch { expected: self.pin, presented };
        Err(CertificateError::Other(OtherError(Arc::new(mismatch))))
    }
}

impl PinnedVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let root = self.root(intermediates, now)?;
        check_purpose(leaf)?;
        let roots = root_store(&[root.clone().into_owned()]).map_err(|_| CertificateError::BadEncoding)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider())
            .build()
            .map_err(|_| CertificateError::BadEncoding)?;
        let name = ServerName::try_from(HUB_SERVER_NAME).expect("the constant is a DNS name");
        verifier.verify_server_cert(leaf, intermediates, &name, ocsp, now)
    }
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        clock::verify_at(leaf, now, |at| self.verify(leaf, intermediates, ocsp, at))
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

/// webpki takes the dates of a root for its owner's business; this root came over the wire.
fn check_dates(root: &X509Certificate<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    match root.validity() {
        validity if now < validity.not_before.timestamp() => Err(CertificateError::NotValidYet),
        validity if now > validity.not_after.timestamp() => Err(CertificateError::Expired),
        _ => Ok(()),
    }
}

/// webpki accepts a leaf that does not say what it is for.
fn check_purpose(leaf: &CertificateDer<'_>) -> Result<(), CertificateError> {
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| CertificateError::BadEncoding)?;
    match leaf.extended_key_usage() {
        Ok(Some(usage)) if usage.value.server_auth => Ok(()),
        Ok(_) => Err(CertificateError::InvalidPurpose),
        Err(_) => Err(CertificateError::BadEncoding),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_mismatch_is_found_under_tls_and_io_errors() {
        let pin = |byte| Pin::from_digest([byte; 32]);
        let mismatch = PinMismatch { expected: pin(1), presented: vec![pin(2)] };
        let tls = rustls::Error::from(CertificateError::Other(OtherError(Arc::new(mismatch.clone()))));
        let io = io::Error::new(io::ErrorKind::InvalidData, tls.clone());
        let nested = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, tls.clone()));
        for error in [&mismatch as &(dyn Error + 'static), &tls, &io, &nested] {
            assert_eq!(PinMismatch::find(error), Some(&mismatch), "{error:?}");
        }
        assert_eq!(PinMismatch::find(&io::Error::other("else")), None);
        assert_eq!(PinMismatch::find(&rustls::Error::from(CertificateError::Expired)), None);
    }

    #[test]
    fn a_mismatch_shows_both_pins() {
        let (expected, presented) = (Pin::from_digest([1; 32]), Pin::from_digest([2; 32]));
        let text = PinMismatch { expected, presented: vec![presented] }.to_string();
        assert!(text.contains(&expected.to_string()) && text.contains(&presented.to_string()), "{text}");
    }
}
