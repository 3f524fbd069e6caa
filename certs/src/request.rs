//! A certificate signing request reduced to the one thing taken from it: a public key whose owner has shown to hold
//! the private one. Names, extensions and attributes in it are never read.

use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PublicKeyData, SubjectPublicKeyInfo};
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::pin::KeyFingerprint;

/// Largest request read, in bytes. One of an ECDSA key is about 200.
const REQUEST_LIMIT: usize = 16 * 1024;

/// A verified PKCS#10 request.
#[derive(Debug)]
pub(crate) struct Request {
    public_key: SubjectPublicKeyInfo,
    fingerprint: KeyFingerprint,
}

/// Why a certificate signing request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("the certificate signing request has {length} bytes; send at most {REQUEST_LIMIT}")]
    TooLarge { length: usize },
    #[error("the certificate signing request cannot be decoded; send one PKCS#10 request in DER")]
    Malformed,
    #[error("the certificate signing request is not signed by the key in it; sign it with that private key")]
    Signature,
    #[error("the key in the certificate signing request is of no accepted kind; use ECDSA P-256, P-384 or Ed25519")]
    KeyKind,
}

impl Request {
    /// Reads a request and checks its signature, which proves possession of the private key.
    pub(crate) fn from_der(der: &[u8]) -> Result<Self, RequestError> {
        if der.len() > REQUEST_LIMIT {
            return Err(RequestError::TooLarge { length: der.len() });
        }
        let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| RequestError::Malformed)?;
        if !rest.is_empty() {
            return Err(RequestError::Malformed);
        }
        let spki = request.certification_request_info.subject_pki.raw;
        let public_key = SubjectPublicKeyInfo::from_der(spki).map_err(|_| RequestError::KeyKind)?;
        let accepted = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519];
        // The issued certificate must carry the very bytes that were fingerprinted here.
        if !accepted.contains(&public_key.algorithm()) || public_key.subject_public_key_info() != spki {
            return Err(RequestError::KeyKind);
        }
        request.verify_signature().map_err(|_| RequestError::Signature)?;
        let fingerprint = KeyFingerprint::of(&request.certification_request_info.subject_pki);
        Ok(Self { public_key, fingerprint })
    }

    pub(crate) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.public_key
    }

    pub(crate) fn fingerprint(&self) -> KeyFingerprint {
        self.fingerprint
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P521_SHA512, PKCS_RSA_SHA256, SignatureAlgorithm};

    use super::*;
    use crate::PrivateKey;

    fn request(algorithm: &'static SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        CertificateParams::default().serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn keys_of_the_accepted_kinds_are_taken_and_no_others() {
        for accepted in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519] {
            Request::from_der(&request(accepted)).unwrap();
        }
        for refused in [&PKCS_ECDSA_P521_SHA512, &PKCS_RSA_SHA256] {
            let error = Request::from_der(&request(refused)).unwrap_err();
            assert!(matches!(error, RequestError::KeyKind), "{error:?}");
        }
    }

    #[test]
    fn a_request_not_signed_by_its_own_key_is_refused() {
        let mut der = PrivateKey::generate().csr_der().unwrap();
        let last = der.len() - 1;
        der[last] ^= 1;
        assert!(matches!(Request::from_der(&der), Err(RequestError::Signature)));
    }

    #[test]
    fn oversized_and_trailing_bytes_are_refused() {
        let mut der = PrivateKey::generate().csr_der().unwrap();
        der.push(0);
        assert!(matches!(Request::from_der(&der), Err(RequestError::Malformed)));
        der.resize(REQUEST_LIMIT + 1, 0);
        assert!(matches!(Request::from_der(&der), Err(RequestError::TooLarge { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn no_mutation_panics_or_brings_in_another_key(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            static REQUEST: LazyLock<Vec<u8>> = LazyLock::new(|| PrivateKey::generate().csr_der().unwrap());
            let mut der = REQUEST.clone();
            for (index, value) in changes {
                let index = index.index(der.len());
                der[index] = value;
            }
            if let Some(cut) = cut {
                der.truncate(cut.index(der.len()));
            }
            if let Ok(read) = Request::from_der(&der) {
                prop_assert_eq!(read.fingerprint(), KeyFingerprint::of_csr(&REQUEST).unwrap());
            }
        }
    }
}
