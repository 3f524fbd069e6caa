//! SHA-256 of a public key (its SubjectPublicKeyInfo, RFC 5280): how a hub is pinned and an agent's key recognised.

use std::{fmt, fmt::Write, str::FromStr};

use rcgen::CertificateSigningRequestParams;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::{
    certification_request::X509CertificationRequest,
    prelude::{FromDer, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

/// `sha256:` and 64 lower-case hexadecimal digits of a public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyFingerprint([u8; 32]);

/// The fingerprint of a hub's CA key: what an agent trusts before it has the CA.
pub type Pin = KeyFingerprint;

/// Why there is no fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FingerprintError {
    #[error("a pin is \"sha256:\" and 64 hexadecimal digits; copy it from 'cluster-proxy join-command'")]
    Text,
    #[error("the certificate cannot be decoded")]
    Certificate,
    #[error("the certificate signing request is malformed, asks for what is not issued, or is not signed with its own key")]
    Csr,
}

impl KeyFingerprint {
    /// Of a certificate's public key.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, FingerprintError> {
        match X509Certificate::from_der(certificate) {
            Ok(([], certificate)) => Ok(Self::of(&certificate.tbs_certificate.subject_pki)),
            _ => Err(FingerprintError::Certificate),
        }
    }

    /// Of the public key in a CSR (PKCS#10, DER) for which a certificate could be issued: its signature has shown that
    /// the sender holds the private key.
    pub fn of_csr(csr: &[u8]) -> Result<Self, FingerprintError> {
        // As issuing reads it: whoever is registered by this fingerprint must not be refused a certificate afterwards.
        CertificateSigningRequestParams::from_der(&csr.into()).map_err(|_| FingerprintError::Csr)?;
        match X509CertificationRequest::from_der(csr) {
            Ok(([], request)) => Ok(Self::of(&request.certification_request_info.subject_pki)),
            _ => Err(FingerprintError::Csr),
        }
    }

    pub(crate) fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
        Self(Sha256::digest(key.raw).into())
    }
}

impl FromStr for KeyFingerprint {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, FingerprintError> {
        let digits = text.trim().strip_prefix("sha256:").ok_or(FingerprintError::Text)?;
        if digits.len() != 64 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(FingerprintError::Text);
        }
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map_err(|_| FingerprintError::Text)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::with_capacity(71);
        text.push_str("sha256:");
        for byte in self.0 {
            write!(text, "{byte:02x}")?;
        }
        f.pad(&text)
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for KeyFingerprint {
    type Error = FingerprintError;

    fn try_from(text: String) -> Result<Self, FingerprintError> {
        text.parse()
    }
}

impl From<KeyFingerprint> for String {
    fn from(fingerprint: KeyFingerprint) -> Self {
        fingerprint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PrivateKey;

    #[test]
    fn a_csr_and_its_key_have_the_same_fingerprint() {
        let key = PrivateKey::generate();
        assert_eq!(KeyFingerprint::of_csr(&key.csr_der().unwrap()).unwrap(), key.fingerprint());
        assert_ne!(PrivateKey::generate().fingerprint(), key.fingerprint());
    }

    #[test]
    fn a_request_that_is_not_signed_with_its_own_key_has_no_fingerprint() {
        let mut csr = PrivateKey::generate().csr_der().unwrap();
        *csr.last_mut().unwrap() ^= 1;
        assert_eq!(KeyFingerprint::of_csr(&csr), Err(FingerprintError::Csr));
    }

    #[test]
    fn a_pin_that_is_cut_or_misspelt_is_refused() {
        let pin = PrivateKey::generate().fingerprint().to_string();
        assert_eq!(pin.parse::<Pin>().unwrap().to_string(), pin);
        for bad in ["", "sha256:", &pin[..70], &pin[7..], &pin.replace("sha256", "sha1"), &format!("{pin}0")] {
            assert_eq!(bad.parse::<Pin>(), Err(FingerprintError::Text), "{bad}");
        }
        assert!("sha256:é".repeat(20).parse::<Pin>().is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,80}") {
            prop_assert!(KeyFingerprint::of_csr(&bytes).is_err());
            prop_assert!(KeyFingerprint::of_certificate(&CertificateDer::from(bytes)).is_err());
            let _ = text.parse::<Pin>();
        }
    }
}
