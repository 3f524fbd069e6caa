//! The hub's certificate authority, in files: the roots that are trusted, and the one of them that signs.
//!
//! | file | what |
//! |---|---|
//! | `ca.crt` | the trusted roots, PEM, the oldest first; agents' and users' certificates are good under any of them |
//! | `ca.key` | their keys, PEM, 0600; the first one's root signs, and what has no root in `ca.crt` counts for nothing |
//! | `ca.retired.crt` | roots that were trusted once; may be absent |
//!
//! There is one root but while it is being rotated ([`crate::rotation`]).

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{Issuer, KeyPair};
use rustls::{
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, UnixTime},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    file::{write_public, write_secret},
    issue::{Dates, IssueError, server_params},
    key::{PrivateKey, PrivateKeyError},
    pin::Pin,
    root::Root,
    server_tls::{TlsError, provider, root_store},
};

/// The name in every hub's certificate, by which our own clients verify it whatever address they dialled.
pub const HUB_SERVER_NAME: &str = "hub.cluster-proxy.internal";

/// The SPIFFE trust domain of the agents' URIs.
pub const TRUST_DOMAIN: &str = "cluster-proxy.internal";

pub(crate) const CERTIFICATES: &str = "ca.crt";
pub(crate) const KEYS: &str = "ca.key";
pub(crate) const RETIRED: &str = "ca.retired.crt";

/// The hub's CA: ECDSA P-256 keys and their self-signed certificates.
#[derive(Debug)]
pub struct Authority {
    /// The oldest first; never empty.
    pub(crate) roots: Vec<Root>,
    /// The place of the one that signs, which has its key.
    pub(crate) signer: usize,
    /// Trusted no more.
    pub(crate) retired: Vec<Root>,
    /// Keys that no root has: what a crash has left.
    pub(crate) spare_keys: bool,
}

/// Where a rotation of the CA stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// There is one root.
    Settled,
    /// A new root is trusted, and the old one signs.
    Begun,
    /// The new root signs, and the old one is still trusted.
    Signing,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read or write {path}; check its permissions")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{missing} is missing beside {present}; restore a copy of it ('cluster-proxy restore BACKUP --state {}'; admin/ca.crt \
         is a copy of ca.crt); no agent and no user would know a hub with a new CA",
        folder(.missing)
    )]
    Half { present: PathBuf, missing: PathBuf },
    #[error("the CA's key {path} cannot be used; restore a copy of it ('cluster-proxy restore BACKUP --state {}')", folder(.path))]
    Key { path: PathBuf, source: PrivateKeyError },
    #[error("{path} holds no CA certificate in PEM; restore a copy of it ('cluster-proxy restore BACKUP --state {}')", folder(.path))]
    Certificate { path: PathBuf },
    #[error(
        "{certificate} is not the certificate of {key}; restore a copy of both ('cluster-proxy restore BACKUP --state {}')",
        folder(.key)
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("nobody would accept what the CA in {path} issues; check its dates and that nothing constrains it")]
    Unusable { path: PathBuf, source: TlsError },
    #[error("the CA cannot be made")]
    Make(#[source] IssueError),
}

fn folder(file: &Path) -> impl fmt::Display {
    file.parent().unwrap_or(file).display()
}

/// The keys of a CA.
pub(crate) fn private_keys(path: &Path) -> Result<Vec<PrivateKey>, AuthorityError> {
    PrivateKey::load_all(path).map_err(|source| AuthorityError::Key { path: path.to_owned(), source })
}

impl Authority {
    /// The authority in `folder` (`ca.crt`, and `ca.key` with 0600), made there when there is none. What is there is
    /// never replaced.
    pub fn load_or_create(folder: &Path) -> Result<Self, AuthorityError> {
        let (certificate, key) = (folder.join(CERTIFICATES), folder.join(KEYS));
        match (exists(&certificate)?, exists(&key)?) {
            (true, true) => Self::load(folder),
            (true, false) => Err(AuthorityError::Half { present: certificate, missing: key }),
            (false, true) => Err(AuthorityError::Half { present: key, missing: certificate }),
            (false, false) => {
                create(&certificate, &key)?;
                Self::load(folder)
            }
        }
    }

    /// The certificate of the root that signs.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.signing().certificate
    }

    /// The certificate of the root that signs, as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.signing().pem
    }

    /// What a spoke is given to recognise this hub by: until a rotation is finished the old root's, which everybody trusts.
    pub fn pin(&self) -> Pin {
        self.serving().pin
    }

    /// The pin of the root that signs.
    pub fn signer(&self) -> Pin {
        self.signing().pin
    }

    /// Every root that is trusted, the oldest first.
    pub fn roots(&self) -> Vec<CertificateDer<'static>> {
        self.roots.iter().map(|root| root.certificate.clone()).collect()
    }

    /// The same as PEM: what verifies the hub, now and after the next step of a rotation.
    pub fn roots_pem(&self) -> String {
        self.roots.iter().map(|root| root.pem.as_str()).collect()
    }

    /// The pins of the trusted roots, the oldest first, and when they end.
    pub fn pins(&self) -> impl Iterator<Item = (Pin, SystemTime)> {
        self.roots.iter().map(|root| (root.pin, root.not_after))
    }

    /// The pins of roots that are trusted no more, the latest last.
    pub fn retired(&self) -> impl Iterator<Item = Pin> {
        self.retired.iter().map(|root| root.pin)
    }

    /// Where its rotation stands.
    pub fn phase(&self) -> Phase {
        match (self.roots.len(), self.signer) {
            (1, _) => Phase::Settled,
            (roots, signer) if signer + 1 == roots => Phase::Signing,
            _ => Phase::Begun,
        }
    }

    /// The root that is to stay when the rotation is finished.
    pub fn newest(&self) -> Pin {
        self.roots.last().expect("there is a root").pin
    }

    /// The pin of the trusted root that has issued a certificate, which TLS has verified at some time.
    pub fn issuer_of(&self, leaf: &CertificateDer<'_>) -> Option<Pin> {
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        let mut named = self.roots.iter().chain(&self.retired).filter(|root| root.is_named_by(&leaf));
        let first = named.next()?;
        // Only CAs that were brought along can share a name.
        let issuer = match named.next() {
            None => first,
            Some(_) => self.roots.iter().find(|root| root.is_named_by(&leaf) && root.has_signed(&leaf))?,
        };
        self.roots.iter().find(|root| root.certificate == issuer.certificate).map(|root| root.pin)
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        self.signing().issuer.as_ref().expect("the root that signs has its key")
    }

    /// When the certificate of the root that signs ends.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.signing().not_after
    }

    /// The root under which the hub itself is verified: the oldest whose key is here, as long as it is in date. Who has heard
    /// of no other trusts that one, until the rotation is finished.
    pub(crate) fn serving(&self) -> &Root {
        let now = SystemTime::now();
        self.keyed().find(|root| root.not_after > now).unwrap_or_else(|| self.signing())
    }

    /// The roots whose keys are here, the oldest first.
    pub(crate) fn keyed(&self) -> impl Iterator<Item = &Root> {
        self.roots.iter().filter(|root| root.issuer.is_some())
    }

    fn signing(&self) -> &Root {
        &self.roots[self.signer]
    }

    fn load(folder: &Path) -> Result<Self, AuthorityError> {
        let [certificates, keys, retired] = [CERTIFICATES, KEYS, RETIRED].map(|name| folder.join(name));
        let pem = read(&certificates)?;
        let private = private_keys(&keys)?;
        let retired = if exists(&retired)? { read(&retired)? } else { String::new() };
        let authority = Self::assemble(&pem, private, &retired).map_err(|damaged| match damaged {
            Damaged::Certificate => AuthorityError::Certificate { path: certificates.clone() },
            Damaged::Mismatch => AuthorityError::Mismatch { certificate: certificates.clone(), key: keys },
        })?;
        authority.check(&certificates)?;
        Ok(authority)
    }

    /// The authority of these parts.
    pub(crate) fn assemble(pem: &str, keys: Vec<PrivateKey>, retired: &str) -> Result<Self, Damaged> {
        let mut roots = Root::all_in(pem).filter(|roots| !roots.is_empty()).ok_or(Damaged::Certificate)?;
        let first = keys.first().map(PrivateKey::fingerprint).ok_or(Damaged::Mismatch)?;
        let signer = roots.iter().position(|root| root.pin == first).ok_or(Damaged::Mismatch)?;
        let mut spare_keys = false;
        for key in keys {
            match roots.iter_mut().find(|root| root.pin == key.fingerprint()) {
                Some(root) if root.issuer.is_none() => {
                    if !root.take_key(key) {
                        return Err(Damaged::Certificate);
                    }
                }
                _ => spare_keys = true,
            }
        }
        // A damaged list of what is over must not keep a hub from starting; what is trusted is not over.
        let mut retired = Root::all_in(retired).unwrap_or_default();
        retired.retain(|over| roots.iter().all(|root| root.pin != over.pin));
        Ok(Self { roots, signer, retired, spare_keys })
    }

    /// Issues a certificate and verifies it as a client would: one clear error now is better than everybody's later.
    pub(crate) fn check(&self, path: &Path) -> Result<(), AuthorityError> {
        let unusable = |source| AuthorityError::Unusable { path: path.to_owned(), source };
        let dates = Dates::new(SystemTime::now(), Duration::from_secs(60), self.not_after());
        let params = server_params(&[], dates).map_err(AuthorityError::Make)?;
        let leaf = self.sign(&params, PrivateKey::generate().pair()).map_err(AuthorityError::Make)?;
        let roots = root_store(std::slice::from_ref(self.certificate())).map_err(unusable)?;
        let algorithms = provider().signature_verification_algorithms.all;
        ParsedCertificate::try_from(leaf.der())
            .and_then(|leaf| verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], UnixTime::now(), algorithms))
            .map_err(|source| unusable(TlsError::Credentials(source)))
    }
}

/// Which part of an authority is damaged.
#[derive(Debug)]
pub(crate) enum Damaged {
    Certificate,
    Mismatch,
}

fn create(certificate: &Path, key: &Path) -> Result<(), AuthorityError> {
    let private = PrivateKey::generate();
    let made = Root::make(&private).map_err(AuthorityError::Make)?;
    // The key first: a key without a certificate is an error that loses nothing, and so is the reverse.
    write_secret(key, private.to_pem()).map_err(|source| AuthorityError::File { path: key.to_owned(), source })?;
    write_public(certificate, made).map_err(|source| AuthorityError::File { path: certificate.to_owned(), source })
}

fn exists(path: &Path) -> Result<bool, AuthorityError> {
    fs::exists(path).map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, date_time_ymd};

    use super::*;
    use crate::pin::KeyFingerprint;

    fn write_pair(folder: &Path, params: &CertificateParams, key: &PrivateKey) {
        let certificate = params.self_signed(key.pair()).unwrap();
        fs::write(folder.join("ca.crt"), certificate.pem()).unwrap();
        fs::write(folder.join("ca.key"), key.to_pem()).unwrap();
    }

    fn supplied() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    #[test]
    fn an_authority_outlives_a_restart_with_its_pin() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(folder.path()).unwrap();
        let second = Authority::load_or_create(folder.path()).unwrap();
        assert_eq!(first.pin(), second.pin());
        assert_eq!(first.certificate(), second.certificate());
        assert_eq!(second.pin(), KeyFingerprint::of_certificate(second.certificate()).unwrap());
        assert_eq!(second.certificate_pem(), fs::read_to_string(folder.path().join("ca.crt")).unwrap());
    }

    #[test]
    fn the_key_is_its_owners_alone_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let mode = |name| fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("ca.key"), mode("ca.crt")), (0o600, 0o644));
        let pem = fs::read_to_string(folder.path().join("ca.key")).unwrap();
        assert!(!format!("{authority:?}").contains(pem.lines().nth(1).unwrap()));
    }

    #[test]
    fn a_missing_half_is_an_error_that_names_both_files() {
        for (missing, present) in [("ca.crt", "ca.key"), ("ca.key", "ca.crt")] {
            let folder = tempfile::tempdir().unwrap();
            Authority::load_or_create(folder.path()).unwrap();
            let kept = fs::read(folder.path().join(present)).unwrap();
            fs::remove_file(folder.path().join(missing)).unwrap();
            let error = Authority::load_or_create(folder.path()).unwrap_err();
            assert!(matches!(error, AuthorityError::Half { .. }), "{error:?}");
            assert!(error.to_string().contains(missing) && error.to_string().contains(present), "{error}");
            assert_eq!(fs::read(folder.path().join(present)).unwrap(), kept);
            assert!(!folder.path().join(missing).exists());
        }
    }

    #[test]
    fn files_that_do_not_belong_together_are_refused_and_kept() {
        let (mine, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        Authority::load_or_create(mine.path()).unwrap();
        Authority::load_or_create(other.path()).unwrap();
        fs::copy(other.path().join("ca.key"), mine.path().join("ca.key")).unwrap();
        let error = Authority::load_or_create(mine.path()).unwrap_err();
        assert!(matches!(error, AuthorityError::Mismatch { .. }), "{error:?}");
        assert!(error.to_string().contains("ca.key") && error.to_string().contains("ca.crt"), "{error}");
    }

    #[test]
    fn garbage_in_a_file_is_an_error_that_names_it() {
        for name in ["ca.crt", "ca.key"] {
            let folder = tempfile::tempdir().unwrap();
            Authority::load_or_create(folder.path()).unwrap();
            fs::write(folder.path().join(name), "garbage").unwrap();
            let error = Authority::load_or_create(folder.path()).unwrap_err();
            let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            assert!(format!("{error} {cause}").contains(name), "{error}: {cause}");
            assert_eq!(fs::read_to_string(folder.path().join(name)).unwrap(), "garbage");
        }
    }

    #[test]
    fn a_supplied_authority_is_used_if_it_can_sign() {
        let folder = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate();
        write_pair(folder.path(), &supplied(), &key);
        let authority = Authority::load_or_create(folder.path()).unwrap();
        assert_eq!(authority.pin().to_string(), key.fingerprint().to_string());

        write_pair(folder.path(), &CertificateParams::default(), &key);
        let error = Authority::load_or_create(folder.path()).unwrap_err();
        assert!(matches!(error, AuthorityError::Certificate { .. }), "{error:?}");
    }

    #[test]
    fn an_expired_or_constrained_authority_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate();
        let mut expired = supplied();
        expired.not_after = date_time_ymd(2020, 1, 1);
        let mut no_signer = supplied();
        no_signer.name_constraints = Some(rcgen::NameConstraints {
            permitted_subtrees: vec![rcgen::GeneralSubtree::DnsName("example.com".to_owned())],
            excluded_subtrees: vec![],
        });
        for params in [expired, no_signer] {
            write_pair(folder.path(), &params, &key);
            let error = Authority::load_or_create(folder.path()).unwrap_err();
            assert!(matches!(error, AuthorityError::Unusable { .. }), "{error:?}");
        }
    }

    #[test]
    fn two_authorities_never_have_one_name() {
        let name = || {
            let folder = tempfile::tempdir().unwrap();
            let authority = Authority::load_or_create(folder.path()).unwrap();
            let (_, parsed) = X509Certificate::from_der(authority.certificate()).unwrap();
            parsed.subject().to_string()
        };
        assert_ne!(name(), name());
    }

    #[test]
    fn a_missing_folder_is_an_error_that_names_it() {
        let error = Authority::load_or_create(Path::new("/nonexistent/state")).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/state"), "{error}");
    }
}
