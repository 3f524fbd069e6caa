//! The hub's certificate authority: made once, kept in two files.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, Certificate, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    client::verify_server_cert_signed_by_trust_anchor,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    file::{write_public, write_secret},
    issue::{Dates, IssueError, params, server_params},
    key::{PrivateKey, PrivateKeyError},
    pin::{KeyFingerprint, Pin},
    server_tls::{TlsError, provider, root_store},
};

/// The name in every hub's certificate, by which our own clients verify it whatever address they dialled.
pub const HUB_SERVER_NAME: &str = "hub.cluster-proxy.internal";

/// The SPIFFE trust domain of the agents' URIs.
pub const TRUST_DOMAIN: &str = "cluster-proxy.internal";

/// The CA outlives everything it signs by far; a new one means that every agent joins again.
const CA_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// The hub's CA: an ECDSA P-256 key and its self-signed certificate.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    pin: Pin,
    not_after: SystemTime,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read or write {path}; check its permissions")]
    File { path: PathBuf, source: io::Error },
    #[error(
        "{missing} is missing beside {present}; restore a copy of it ('cluster-proxy restore BACKUP'; admin/ca.crt is a copy \
         of ca.crt); no agent and no user would know a hub with a new CA"
    )]
    Half { present: PathBuf, missing: PathBuf },
    #[error("the CA's key cannot be used; restore a copy of it ('cluster-proxy restore BACKUP')")]
    Key(#[source] PrivateKeyError),
    #[error("{path} holds no CA certificate in PEM; restore it from a copy")]
    Certificate { path: PathBuf },
    #[error("{certificate} is not the certificate of {key}; restore the pair from a copy")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("nobody would accept what the CA in {path} issues; check its dates and that nothing constrains it")]
    Unusable { path: PathBuf, source: TlsError },
    #[error("the CA cannot be made")]
    Make(#[source] IssueError),
}

impl Authority {
    /// The authority in `folder` (`ca.crt`, and `ca.key` with 0600), made there when there is none. What is there is
    /// never replaced.
    pub fn load_or_create(folder: &Path) -> Result<Self, AuthorityError> {
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        match (exists(&certificate)?, exists(&key)?) {
            (true, true) => Self::load(&certificate, &key),
            (true, false) => Err(AuthorityError::Half { present: certificate, missing: key }),
            (false, true) => Err(AuthorityError::Half { present: key, missing: certificate }),
            (false, false) => Self::create(&certificate, &key),
        }
    }

    /// The CA's certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA's certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// What a spoke is given to recognise this hub by.
    pub fn pin(&self) -> Pin {
        self.pin
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// When the CA's certificate ends.
    pub(crate) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let damaged = || AuthorityError::Certificate { path: certificate.to_owned() };
        let pem = fs::read_to_string(certificate)
            .map_err(|source| AuthorityError::File { path: certificate.to_owned(), source })?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| damaged())?;
        let Ok(([], parsed)) = X509Certificate::from_der(&der) else { return Err(damaged()) };
        if !parsed.is_ca() {
            return Err(damaged());
        }
        let pin = KeyFingerprint::of(parsed.public_key());
        let not_after = parsed.validity().not_after.to_datetime().into();
        let private = PrivateKey::load_or_create(key).map_err(AuthorityError::Key)?;
        if private.fingerprint() != pin {
            return Err(AuthorityError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() });
        }
        let issuer = Issuer::from_ca_cert_der(&der, private.into_pair()).map_err(|_| damaged())?;
        let authority = Self { issuer, certificate: der.clone(), pem, pin, not_after };
        authority.check(certificate)?;
        Ok(authority)
    }

    fn create(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let private = PrivateKey::generate();
        let signed = self_signed(&private).map_err(AuthorityError::Make)?;
        // The key first: a key without a certificate is an error that loses nothing, and so is the reverse.
        write_secret(key, private.to_pem()).map_err(|source| AuthorityError::File { path: key.to_owned(), source })?;
        write_public(certificate, signed.pem())
            .map_err(|source| AuthorityError::File { path: certificate.to_owned(), source })?;
        Self::load(certificate, key)
    }

    /// Issues a certificate and verifies it as a client would: one clear error now is better than everybody's later.
    fn check(&self, path: &Path) -> Result<(), AuthorityError> {
        let unusable = |source| AuthorityError::Unusable { path: path.to_owned(), source };
        let dates = Dates::new(SystemTime::now(), Duration::from_secs(60), self.not_after);
        let params = server_params(&[], dates).map_err(AuthorityError::Make)?;
        let leaf = self.sign(&params, PrivateKey::generate().pair()).map_err(AuthorityError::Make)?;
        let roots = root_store(std::slice::from_ref(&self.certificate)).map_err(unusable)?;
        let algorithms = provider().signature_verification_algorithms.all;
        ParsedCertificate::try_from(leaf.der())
            .and_then(|leaf| verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &[], UnixTime::now(), algorithms))
            .map_err(|source| unusable(TlsError::Credentials(source)))
    }
}

fn exists(path: &Path) -> Result<bool, AuthorityError> {
    fs::exists(path).map_err(|source| AuthorityError::File { path: path.to_owned(), source })
}

fn self_signed(key: &PrivateKey) -> Result<Certificate, IssueError> {
    let now = SystemTime::now();
    // A name of its own for each CA: a verifier looks for the issuer by name, and would call another hub's certificate
    // badly signed where it is only foreign.
    let fingerprint = key.fingerprint().to_string();
    let short: String = fingerprint.trim_start_matches("sha256:").chars().take(16).collect();
    let mut params =
        params(&format!("cluster-proxy hub CA {short}"), Dates::of_hub(now, CA_VALIDITY, now + CA_VALIDITY))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.self_signed(key.pair()).map_err(IssueError::Sign)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, date_time_ymd};

    use super::*;

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
