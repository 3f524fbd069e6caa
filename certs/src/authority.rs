//! The hub's certificate authority: made once, and the only one that issues.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, pem::PemObject};
use time::OffsetDateTime;

use crate::{
    file::{write_public, write_secret},
    identity::{agent_common_name, agent_groups, agent_uri},
    key::{PrivateKey, PrivateKeyError},
    name::{AgentName, ClusterName, UserName},
    pin::{KeyFingerprint, Pin},
    server_tls::ServerCredentials,
};

/// The name in every hub's certificate, by which our own clients verify it whatever address they dialled.
pub const HUB_SERVER_NAME: &str = "hub.cluster-proxy.internal";

/// The SPIFFE trust domain of the agents' URIs.
pub const TRUST_DOMAIN: &str = "cluster-proxy.internal";

/// The CA outlives everything it signs by far; a new one means that every agent joins again.
const CA_VALIDITY: Duration = Duration::from_secs(20 * 365 * 24 * 3600);

/// Clocks of hub and spoke differ.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// The hub's CA: an ECDSA P-256 key and its self-signed certificate.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    pin: Pin,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot read or write {path}; check its permissions")]
    File { path: PathBuf, source: io::Error },
    #[error("{missing} is missing beside {present}; restore it, or move {present} away to start with a new CA")]
    Half { present: PathBuf, missing: PathBuf },
    #[error("the CA's key cannot be used")]
    Key(#[source] PrivateKeyError),
    #[error("{path} holds no CA certificate in PEM; restore it from a copy")]
    Certificate { path: PathBuf },
    #[error("{certificate} is not the certificate of {key}; restore the pair from a copy")]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("the CA cannot be made")]
    Make(#[source] IssueError),
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error("the certificate signing request is malformed, or not signed with its own key")]
    Csr(#[source] rcgen::Error),
    #[error("{0:?} is neither a DNS name nor an address")]
    Name(String),
    #[error("a validity of {0:?} is out of range")]
    Validity(Duration),
    #[error("the system gives no random numbers")]
    Randomness,
    #[error("the certificate cannot be signed")]
    Sign(#[source] rcgen::Error),
}

/// A certificate for a key that someone else holds.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM: the leaf, then the CA.
    pub chain_pem: String,
    /// When the leaf ends.
    pub not_after: SystemTime,
}

impl Authority {
    /// The authority in `folder` (`ca.crt`, and `ca.key` with 0600), made there when there is none. What is there is
    /// never replaced.
    pub fn load_or_create(folder: &Path) -> Result<Self, AuthorityError> {
        let (certificate, key) = (folder.join("ca.crt"), folder.join("ca.key"));
        match (certificate.exists(), key.exists()) {
            (true, true) => Self::load(&certificate, &key),
            (true, false) => Err(AuthorityError::Half { present: certificate, missing: key }),
            (false, true) => Err(AuthorityError::Half { present: key, missing: certificate }),
            (false, false) => Self::create(&certificate, &key),
        }
    }

    fn load(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let damaged = || AuthorityError::Certificate { path: certificate.to_owned() };
        let pem = fs::read_to_string(certificate)
            .map_err(|source| AuthorityError::File { path: certificate.to_owned(), source })?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| damaged())?;
        let pin = KeyFingerprint::of_certificate(&der).map_err(|_| damaged())?;
        let private = PrivateKey::load_or_create(key).map_err(AuthorityError::Key)?;
        if private.fingerprint() != pin {
            return Err(AuthorityError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned() });
        }
        let issuer = Issuer::from_ca_cert_der(&der, private.into_pair()).map_err(|_| damaged())?;
        Ok(Self { issuer, certificate: der, pem, pin })
    }

    fn create(certificate: &Path, key: &Path) -> Result<Self, AuthorityError> {
        let private = PrivateKey::generate();
        let mut params = params(CA_VALIDITY).map_err(AuthorityError::Make)?;
        params.distinguished_name.push(DnType::CommonName, "cluster-proxy hub CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let signed =
            params.self_signed(private.pair()).map_err(|error| AuthorityError::Make(IssueError::Sign(error)))?;
        // The key first: a key without a certificate is an error that loses nothing, and so is the reverse.
        write_secret(key, private.to_pem()).map_err(|source| AuthorityError::File { path: key.to_owned(), source })?;
        write_public(certificate, signed.pem())
            .map_err(|source| AuthorityError::File { path: certificate.to_owned(), source })?;
        Self::load(certificate, key)
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

    /// A certificate for the agent `agent` of `cluster`. Of the CSR (PKCS#10, DER) only the public key is used, once
    /// its signature has shown that the sender holds the private one.
    pub fn issue_agent(
        &self,
        csr: &[u8],
        cluster: &ClusterName,
        agent: &AgentName,
        validity: Duration,
    ) -> Result<Issued, IssueError> {
        let uri = agent_uri(cluster, agent);
        let uri = uri.as_str().try_into().map_err(IssueError::Sign)?;
        let mut params = client_params(&agent_common_name(cluster, agent), validity)?;
        // rcgen keeps one value of each type; the second organization goes in by the type's number (X.520).
        let [group, everyone] = agent_groups(cluster);
        params.distinguished_name.push(DnType::OrganizationName, group);
        params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), everyone);
        params.subject_alt_names = vec![SanType::URI(uri)];
        self.issue(csr, params)
    }

    /// A certificate for `user`. Its groups are not in it: the registry knows them, and they change. Of the CSR only
    /// the public key is used.
    pub fn issue_user(&self, csr: &[u8], user: &UserName, validity: Duration) -> Result<Issued, IssueError> {
        self.issue(csr, client_params(user, validity)?)
    }

    /// A hub's key and certificate for `names` (DNS names and addresses), beside [`HUB_SERVER_NAME`], `localhost` and
    /// the loopback addresses.
    pub fn issue_server(&self, names: &[String], validity: Duration) -> Result<ServerCredentials, IssueError> {
        let always = [HUB_SERVER_NAME, "localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = params(validity)?;
        params.distinguished_name.push(DnType::CommonName, HUB_SERVER_NAME);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        for name in always.iter().chain(names) {
            let name = subject_name(name)?;
            if !params.subject_alt_names.contains(&name) {
                params.subject_alt_names.push(name);
            }
        }
        let key = PrivateKey::generate();
        let leaf = params.signed_by(key.pair(), &self.issuer).map_err(IssueError::Sign)?;
        Ok(ServerCredentials::new(vec![leaf.der().clone(), self.certificate.clone()], key.to_der()))
    }

    fn issue(&self, csr: &[u8], params: CertificateParams) -> Result<Issued, IssueError> {
        let csr = CertificateSigningRequestDer::from(csr);
        let request = CertificateSigningRequestParams::from_der(&csr).map_err(IssueError::Csr)?;
        let not_after = params.not_after;
        let leaf = params.signed_by(&request.public_key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(Issued { chain_pem: format!("{}{}", leaf.pem(), self.pem), not_after: not_after.into() })
    }
}

fn client_params(name: &str, validity: Duration) -> Result<CertificateParams, IssueError> {
    let mut params = params(validity)?;
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn params(validity: Duration) -> Result<CertificateParams, IssueError> {
    let now = OffsetDateTime::now_utc();
    let end = time::Duration::try_from(validity).ok().and_then(|validity| now.checked_add(validity));
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = now - CLOCK_SKEW;
    params.not_after = end.ok_or(IssueError::Validity(validity))?;
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| IssueError::Randomness)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn subject_name(name: &str) -> Result<SanType, IssueError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let bad = || IssueError::Name(name.to_owned());
    // rustls' own reading of a DNS name: what it would refuse as a client must not get into a certificate.
    let plain = name.strip_prefix("*.").unwrap_or(name);
    rustls::pki_types::DnsName::try_from(plain).map_err(|_| bad())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| bad())?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use x509_parser::prelude::{FromDer, X509Certificate};

    use super::*;
    use crate::Identity;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn leaf(issued: &Issued) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(issued.chain_pem.as_bytes()).unwrap()
    }

    #[test]
    fn the_ca_survives_a_restart_and_its_key_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let made = Authority::load_or_create(folder.path()).unwrap();
        let loaded = Authority::load_or_create(folder.path()).unwrap();
        assert_eq!(loaded.pin(), made.pin());
        assert_eq!(loaded.certificate(), made.certificate());
        assert_eq!(fs::metadata(folder.path().join("ca.key")).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn half_a_ca_or_a_foreign_half_is_an_error_and_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let other = tempfile::tempdir().unwrap();
        Authority::load_or_create(folder.path()).unwrap();
        Authority::load_or_create(other.path()).unwrap();
        let key = folder.path().join("ca.key");
        let kept = fs::read(&key).unwrap();
        fs::copy(other.path().join("ca.key"), &key).unwrap();
        assert!(matches!(Authority::load_or_create(folder.path()), Err(AuthorityError::Mismatch { .. })));
        fs::remove_file(&key).unwrap();
        assert!(matches!(Authority::load_or_create(folder.path()), Err(AuthorityError::Half { .. })));
        assert!(!key.exists());
        fs::write(&key, kept).unwrap();
        fs::write(folder.path().join("ca.crt"), "garbage").unwrap();
        assert!(matches!(Authority::load_or_create(folder.path()), Err(AuthorityError::Certificate { .. })));
    }

    #[test]
    fn an_agents_certificate_is_read_back_as_the_agent_it_was_issued_to() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let key = PrivateKey::generate();
        let (cluster, agent) = ("c1".parse().unwrap(), "a1".parse().unwrap());
        let issued = authority.issue_agent(&key.csr_der().unwrap(), &cluster, &agent, DAY).unwrap();
        let leaf = leaf(&issued);
        assert_eq!(Identity::from_certificate(&leaf).unwrap(), Identity::Agent { cluster, agent });
        assert_eq!(KeyFingerprint::of_certificate(&leaf).unwrap(), key.fingerprint());
        assert_eq!(CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).count(), 2);
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        let life = parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp();
        assert_eq!(life, 24 * 3600 + 5 * 60);
        assert!(parsed.raw_serial().len() <= 17);
    }

    #[test]
    fn nothing_but_the_key_of_a_csr_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let key = PrivateKey::generate();
        let mut greedy = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        greedy.distinguished_name.push(DnType::CommonName, "admin");
        greedy.distinguished_name.push(DnType::OrganizationName, "system:masters");
        greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        greedy.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let csr = greedy.serialize_request(key.pair()).unwrap();
        let user: UserName = "alice".parse().unwrap();
        let issued = authority.issue_user(csr.der(), &user, DAY).unwrap();
        assert_eq!(Identity::from_certificate(&leaf(&issued)).unwrap(), Identity::User { user, groups: vec![] });
        let der = leaf(&issued);
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        assert!(parsed.subject_alternative_name().unwrap().is_none() && !parsed.is_ca());
    }

    #[test]
    fn a_csr_that_is_garbage_or_signed_with_another_key_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let user: UserName = "alice".parse().unwrap();
        let mut csr = PrivateKey::generate().csr_der().unwrap();
        let last = csr.len() - 1;
        csr[last] ^= 1;
        for bytes in [&b"garbage"[..], &csr] {
            let error = authority.issue_user(bytes, &user, DAY).unwrap_err();
            assert!(matches!(error, IssueError::Csr(_)), "{error}");
        }
    }

    #[test]
    fn a_servers_names_are_dns_names_and_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let names = ["hub.example.com", "192.0.2.1", "2001:db8::1", "localhost"].map(str::to_owned);
        authority.issue_server(&names, DAY).unwrap();
        for bad in ["", "a b", "https://hub", "hub:8091"] {
            let error = authority.issue_server(&[bad.to_owned()], DAY).unwrap_err();
            assert!(matches!(error, IssueError::Name(_)), "{bad}: {error}");
        }
    }
}
