//! SHA-256 of a public key (its SubjectPublicKeyInfo, RFC 5280): how a hub is pinned and an agent's key recognised.

use std::{fmt, fmt::Write, str::FromStr};

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use x509_parser::{
    prelude::{FromDer, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

use crate::request::{Request, RequestError};

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
    #[error(transparent)]
    Csr(#[from] RequestError),
}

impl KeyFingerprint {
    /// Of a certificate's public key.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Result<Self, FingerprintError> {
        match X509Certificate::from_der(certificate) {
            Ok(([], certificate)) => Ok(Self::of(&certificate.tbs_certificate.subject_pki)),
            _ => Err(FingerprintError::Certificate),
        }
    }

    /// Of the public key in a CSR (PKCS#10, DER), once its signature has shown that the sender holds the private one:
    /// a CSR that has a fingerprint can be issued for.
    pub fn of_csr(csr: &[u8]) -> Result<Self, FingerprintError> {
        Ok(Request::from_der(csr)?.fingerprint())
    }

    pub(crate) fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    pub(crate) fn of(key: &SubjectPublicKeyInfo<'_>) -> Self {
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
