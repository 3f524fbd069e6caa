//! Private keys: ECDSA P-256, made where they are used, and never sent.

use std::{fmt, fs, io, path::Path, path::PathBuf};

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};
use sha2::{Digest, Sha256};

use crate::{
    file::{guard_secret, write_secret},
    pin::KeyFingerprint,
};

/// A private key and its public half.
pub struct PrivateKey(KeyPair);

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PrivateKeyError {
    #[error("cannot read or write {path}; check its permissions")]
    File { path: PathBuf, source: io::Error },
    // Without the parser's error: nobody promises that it never quotes its input.
    #[error("{path} holds no private key in PKCS#8 PEM")]
    Damaged { path: PathBuf },
    #[error("the text is no private key in PKCS#8 PEM")]
    Pem,
}

/// Why no certificate signing request could be made.
#[derive(Debug, thiserror::Error)]
#[error("the key cannot sign a certificate signing request")]
pub struct CsrError(#[source] rcgen::Error);

impl PrivateKey {
    /// A new key.
    pub fn generate() -> Self {
        Self(
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
                .expect("P-256 keys can be made from the system's randomness"),
        )
    }

    /// The key in `path`, made there (0600) when there is none.
    pub fn load_or_create(path: &Path) -> Result<Self, PrivateKeyError> {
        let file = |source| PrivateKeyError::File { path: path.to_owned(), source };
        match fs::read_to_string(path) {
            Ok(pem) => {
                guard_secret(path).map_err(file)?;
                Self::from_pem(&pem).map_err(|_| PrivateKeyError::Damaged { path: path.to_owned() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = Self::generate();
                write_secret(path, key.to_pem()).map_err(file)?;
                Ok(key)
            }
            Err(error) => Err(file(error)),
        }
    }

    /// The keys in `path`, in their order; at least one.
    pub(crate) fn load_all(path: &Path) -> Result<Vec<Self>, PrivateKeyError> {
        let file = |source| PrivateKeyError::File { path: path.to_owned(), source };
        let damaged = || PrivateKeyError::Damaged { path: path.to_owned() };
        let pem = fs::read_to_string(path).map_err(file)?;
        guard_secret(path).map_err(file)?;
        let keys = PrivatePkcs8KeyDer::pem_slice_iter(pem.as_bytes())
            .map(|key| KeyPair::try_from(&key.map_err(|_| damaged())?).map(Self).map_err(|_| damaged()))
            .collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(damaged()) } else { Ok(keys) }
    }

    /// From PKCS#8 PEM. Other forms are refused: what is read must be what [`Self::to_pem`] writes.
    pub fn from_pem(pem: &str) -> Result<Self, PrivateKeyError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| PrivateKeyError::Pem)?;
        KeyPair::try_from(&key).map(Self).map_err(|_| PrivateKeyError::Pem)
    }

    /// As PKCS#8 PEM. A secret.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// A certificate signing request (PKCS#10, DER) that asks for nothing but the key.
    pub fn csr_der(&self) -> Result<Vec<u8>, CsrError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.serialize_request(&self.0).map(|csr| csr.der().to_vec()).map_err(CsrError)
    }

    /// The public half's fingerprint.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint::from_digest(Sha256::digest(self.0.subject_public_key_info()).into())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.0
    }

    pub(crate) fn into_pair(self) -> KeyPair {
        self.0
    }

    pub(crate) fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.0.serialize_der()))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.key");
        let made = PrivateKey::load_or_create(&path).unwrap();
        assert_eq!(PrivateKey::load_or_create(&path).unwrap().fingerprint(), made.fingerprint());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!format!("{made:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_damaged_key_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.key");
        fs::write(&path, "garbage").unwrap();
        let error = PrivateKey::load_or_create(&path).unwrap_err();
        assert!(matches!(error, PrivateKeyError::Damaged { .. }), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "garbage");
    }

    #[test]
    fn errors_and_debug_never_show_the_key() {
        let key = PrivateKey::generate();
        let pem = key.to_pem();
        let secret = pem.lines().nth(1).unwrap();
        let error = PrivateKey::from_pem(&pem.replace("END PRIVATE KEY", "END")).unwrap_err();
        let shown = format!("{key:?} {key:#?} {error} {error:?}");
        assert!(!shown.contains(secret), "{shown}");
        assert_eq!(PrivateKey::from_pem(&pem).unwrap().fingerprint(), key.fingerprint());
    }

    #[test]
    fn a_key_in_another_form_is_refused() {
        let sec1 = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIAAA\n-----END EC PRIVATE KEY-----\n";
        assert!(matches!(PrivateKey::from_pem(sec1), Err(PrivateKeyError::Pem)));
    }
}
