//! Issuing: what the certificates of agents, users and the hub say, and signing them.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use rcgen::{
    Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{
    authority::{Authority, HUB_SERVER_NAME},
    identity::{agent_common_name, agent_groups, agent_uri, user_uri},
    key::PrivateKey,
    name::{AgentName, ClusterName, UserName},
    request::{Request, RequestError},
    root::Root,
    server_tls::ServerCredentials,
};

/// Clocks of hubs differ, which verify the clients' certificates.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// A root is verified by the clocks of others: they may be a day slow.
pub(crate) const ROOT_SKEW: Duration = Duration::from_secs(24 * 3600);

/// How long a hub's own certificate is valid, which it makes anew every day.
pub const SERVER_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// When a certificate is valid, in whole seconds as certificates have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dates {
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
}

/// A certificate for a key that someone else holds.
#[derive(Clone, Debug)]
pub struct Issued {
    /// PEM: the leaf, then the CA.
    pub chain_pem: String,
    /// PEM: the leaf alone.
    pub leaf_pem: String,
    /// When the leaf ends, in whole seconds.
    pub not_after: SystemTime,
}

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    #[error(transparent)]
    Csr(#[from] RequestError),
    #[error("{0:?} is neither a DNS name nor an address")]
    Name(String),
    #[error("the system gives no random numbers")]
    Randomness,
    #[error("the CA's key is not here")]
    NoKey,
    #[error("the certificate cannot be signed")]
    Sign(#[source] rcgen::Error),
}

impl Authority {
    /// A certificate for the agent `agent` of `cluster`. Of the CSR (PKCS#10, DER) only the public key is used, once
    /// its signature has shown that the sender holds the private one. It ends with the CA's at the latest, like every
    /// certificate issued here.
    pub fn issue_agent(
        &self,
        csr: &[u8],
        cluster: &ClusterName,
        agent: &AgentName,
        validity: Duration,
    ) -> Result<Issued, IssueError> {
        self.issue(csr, |dates| agent_params(cluster, agent, dates), validity)
    }

    /// A certificate for `user`. Its groups are not in it: the registry knows them, and they change. Of the CSR only
    /// the public key is used. `uid` is that of the user's registration; users of before there were any have none.
    pub fn issue_user(
        &self,
        csr: &[u8],
        user: &UserName,
        uid: Option<&str>,
        validity: Duration,
    ) -> Result<Issued, IssueError> {
        self.issue(csr, |dates| user_params(user, uid, dates), validity)
    }

    /// A hub's key and certificate for `names` (DNS names and addresses), beside [`HUB_SERVER_NAME`], `localhost` and
    /// the loopback addresses. Whoever trusts the root that [`Self::pin`] names, or knows that pin, believes it.
    pub fn issue_server(&self, names: &[String], validity: Duration) -> Result<ServerCredentials, IssueError> {
        let serving = self.serving();
        let params = server_params(names, Dates::of_hub(SystemTime::now(), validity, serving))?;
        let key = PrivateKey::generate();
        let issuer = serving.issuer.as_ref().ok_or(IssueError::NoKey)?;
        let leaf = params.signed_by(key.pair(), issuer).map_err(IssueError::Sign)?;
        // The one that signs first: who sees the chain knows by it which one its own certificate should be of.
        let (signing, others): (Vec<_>, Vec<_>) = self.roots.iter().partition(|root| root.pin == self.signer());
        let roots = signing.into_iter().chain(others).map(|root| root.certificate.clone());
        Ok(ServerCredentials::new([leaf.der().clone()].into_iter().chain(roots).collect(), key.to_der()))
    }

    /// Signs what it is given. Everything that leaves the crate comes from the functions above.
    pub(crate) fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<Certificate, IssueError> {
        params.signed_by(key, self.issuer()).map_err(IssueError::Sign)
    }

    fn issue(
        &self,
        csr: &[u8],
        params: impl FnOnce(Dates) -> Result<CertificateParams, IssueError>,
        validity: Duration,
    ) -> Result<Issued, IssueError> {
        let request = Request::from_der(csr)?;
        let dates = Dates::new(SystemTime::now(), validity, self.not_after());
        let leaf = self.sign(&params(dates)?, request.public_key())?;
        let leaf_pem = leaf.pem();
        let chain_pem = format!("{leaf_pem}{}", self.certificate_pem());
        Ok(Issued { chain_pem, leaf_pem, not_after: dates.not_after.into() })
    }
}

/// When the hub issued a certificate, in whole seconds; `None` for what is no certificate.
pub fn issued_at(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let not_before = u64::try_from(certificate.validity().not_before.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_before))?.checked_add(CLOCK_SKEW)
}

/// When a certificate ends; `None` for what is no certificate.
pub fn ends_at(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let not_after = u64::try_from(certificate.validity().not_after.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(not_after))
}

impl Dates {
    /// From a little before `now` until `validity` after it, but never beyond `limit`.
    pub(crate) fn new(now: SystemTime, validity: Duration, limit: SystemTime) -> Self {
        Self::skewed(now, validity, limit, CLOCK_SKEW)
    }

    /// Those of a root.
    pub(crate) fn of_root(now: SystemTime, validity: Duration) -> Self {
        Self::skewed(now, validity, now + validity, ROOT_SKEW)
    }

    /// Those of a hub's own certificate: it is as old as its root for whoever verifies it, so that neither their slow clock nor the
    /// hub's fast one comes between them.
    fn of_hub(now: SystemTime, validity: Duration, root: &Root) -> Self {
        Self { not_before: whole_seconds(root.not_before), ..Self::new(now, validity, root.not_after) }
    }

    fn skewed(now: SystemTime, validity: Duration, limit: SystemTime, skew: Duration) -> Self {
        let not_after = now.checked_add(validity).map_or(limit, |end| end.min(limit));
        let not_before = now.checked_sub(skew).unwrap_or(SystemTime::UNIX_EPOCH).min(not_after);
        Self { not_before: whole_seconds(not_before), not_after: whole_seconds(not_after) }
    }
}

pub(crate) fn agent_params(
    cluster: &ClusterName,
    agent: &AgentName,
    dates: Dates,
) -> Result<CertificateParams, IssueError> {
    let mut params = client_params(&agent_common_name(cluster, agent), dates)?;
    // rcgen keeps one value of each type; the second organization goes in by the type's number (X.520).
    let [group, everyone] = agent_groups(cluster);
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 10]), everyone);
    let uri = agent_uri(cluster, agent);
    params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(IssueError::Sign)?)];
    Ok(params)
}

pub(crate) fn user_params(user: &UserName, uid: Option<&str>, dates: Dates) -> Result<CertificateParams, IssueError> {
    let mut params = client_params(user, dates)?;
    if let Some(uid) = uid {
        params.subject_alt_names = vec![SanType::URI(user_uri(uid).try_into().map_err(IssueError::Sign)?)];
    }
    Ok(params)
}

pub(crate) fn client_params(name: &str, dates: Dates) -> Result<CertificateParams, IssueError> {
    let mut params = params(name, dates)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

pub(crate) fn server_params(names: &[String], dates: Dates) -> Result<CertificateParams, IssueError> {
    let mut params = params(HUB_SERVER_NAME, dates)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let always = [HUB_SERVER_NAME, "localhost", "127.0.0.1", "::1"];
    for name in always.into_iter().chain(names.iter().map(String::as_str)) {
        let name = subject_name(name)?;
        if !params.subject_alt_names.contains(&name) {
            params.subject_alt_names.push(name);
        }
    }
    Ok(params)
}

/// What all certificates have in common: a random serial number of 128 bits, their dates, key identifiers, no rights.
pub(crate) fn params(common_name: &str, dates: Dates) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = dates.not_before;
    params.not_after = dates.not_after;
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| IssueError::Randomness)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // Without saying that it is no CA, rcgen leaves out the subject's key identifier too.
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
    let name = name.to_ascii_lowercase();
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    rustls::pki_types::DnsName::try_from(plain).map_err(|_| bad())?;
    Ok(SanType::DnsName(name.try_into().map_err(|_| bad())?))
}

fn whole_seconds(time: SystemTime) -> OffsetDateTime {
    let time = OffsetDateTime::from(time);
    time.replace_nanosecond(0).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose};
    use rustls::{
        RootCertStore,
        client::verify_server_name,
        pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
        server::{ParsedCertificate, WebPkiClientVerifier},
    };
    use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension, prelude::FromDer};

    use super::*;
    use crate::{Identity, server_tls::provider};

    const HOUR: Duration = Duration::from_secs(3600);

    fn authority() -> Authority {
        Authority::load_or_create(tempfile::tempdir().unwrap().path()).unwrap()
    }

    fn certificates(issued: &Issued) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<_, _>>().unwrap()
    }

    fn not_after(certificate: &CertificateDer<'_>) -> SystemTime {
        parse(certificate).validity().not_after.to_datetime().into()
    }

    fn parse<'a>(certificate: &'a CertificateDer<'a>) -> X509Certificate<'a> {
        X509Certificate::from_der(certificate).unwrap().1
    }

    #[test]
    fn a_request_gets_nothing_of_what_it_asks_for_but_its_key() {
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "system:open-cluster-management:c2:a2");
        params.distinguished_name.push(DnType::OrganizationName, "system:masters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::Any];
        let csr = params.serialize_request(&key).unwrap();

        let (cluster, agent) = ("c1".parse().unwrap(), "a1".parse().unwrap());
        let issued = authority.issue_agent(csr.der(), &cluster, &agent, HOUR).unwrap();
        let chain = certificates(&issued);
        assert_eq!(Identity::from_certificate(&chain[0]).unwrap(), Identity::Agent { cluster, agent });
        let leaf = parse(&chain[0]);
        assert_eq!(leaf.subject().iter_attributes().count(), 3);
        assert_eq!(leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
        assert!(!leaf.is_ca());
        let usage = leaf.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any && usage.other.is_empty());
        let usage = leaf.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_cert_sign());

        let issued = authority.issue_user(csr.der(), &"alice".parse().unwrap(), Some("u-1"), HOUR).unwrap();
        let chain = certificates(&issued);
        let expected = Identity::User { user: "alice".parse().unwrap(), groups: vec![], uid: Some("u-1".into()) };
        assert_eq!(Identity::from_certificate(&chain[0]).unwrap(), expected);
    }

    #[test]
    fn the_chain_is_leaf_and_authority_and_verifies() {
        let authority = authority();
        let key = PrivateKey::generate();
        let issued = authority.issue_user(&key.csr_der().unwrap(), &"alice".parse().unwrap(), None, HOUR).unwrap();
        let chain = certificates(&issued);
        assert_eq!(&chain[1], authority.certificate());
        assert_eq!(chain.len(), 2);
        let mut roots = RootCertStore::empty();
        roots.add(chain[1].clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider()).build().unwrap();
        verifier.verify_client_cert(&chain[0], &[], UnixTime::now()).unwrap();
    }

    #[test]
    fn a_leaf_has_its_dates_identifiers_and_a_random_serial_number() {
        let authority = authority();
        let before = SystemTime::now();
        let issue = || {
            let csr = PrivateKey::generate().csr_der().unwrap();
            let issued = authority.issue_agent(&csr, &"c1".parse().unwrap(), &"a1".parse().unwrap(), HOUR).unwrap();
            (certificates(&issued), issued.not_after)
        };
        let ((first, first_not_after), (second, _)) = (issue(), issue());
        let leaf = parse(&first[0]);
        assert_eq!(not_after(&first[0]), first_not_after);
        assert_eq!(ends_at(&first[0]), Some(first_not_after));
        let lifetime = first_not_after.duration_since(before).unwrap();
        assert!(lifetime > HOUR - Duration::from_secs(2) && lifetime < HOUR + Duration::from_secs(600), "{lifetime:?}");
        let begun = before.duration_since(leaf.validity().not_before.to_datetime().into()).unwrap();
        assert!(begun > Duration::from_secs(200) && begun <= Duration::from_secs(301), "{begun:?}");
        assert_ne!(leaf.raw_serial(), parse(&second[0]).raw_serial());
        assert!(leaf.raw_serial().len() > 12, "128 random bits hardly begin with this many zeros");

        let subject_key = |certificate: &X509Certificate<'_>| {
            certificate.iter_extensions().find_map(|extension| {
                let ParsedExtension::SubjectKeyIdentifier(id) = extension.parsed_extension() else { return None };
                Some(id.0.to_vec())
            })
        };
        let authority_key = leaf.iter_extensions().find_map(|extension| {
            let ParsedExtension::AuthorityKeyIdentifier(id) = extension.parsed_extension() else { return None };
            id.key_identifier.as_ref().map(|id| id.0.to_vec())
        });
        assert!(subject_key(&leaf).is_some());
        assert_eq!(authority_key, subject_key(&parse(authority.certificate())));
    }

    #[test]
    fn no_leaf_outlives_its_authority() {
        let authority = authority();
        let csr = PrivateKey::generate().csr_der().unwrap();
        let issued = authority.issue_user(&csr, &"alice".parse().unwrap(), None, Duration::MAX).unwrap();
        assert_eq!(issued.not_after, not_after(authority.certificate()));
    }

    /// Also where the hub has made it by a clock that was days fast.
    #[test]
    fn a_server_is_valid_from_the_beginning_of_its_root_on() {
        let (authority, now) = (authority(), SystemTime::now());
        let root = authority.serving();
        let days = |days: u64| Duration::from_secs(days * 24 * 3600);
        for made in [now, now + days(3), now + days(300)] {
            let dates = Dates::of_hub(made, SERVER_VALIDITY, root);
            assert_eq!(SystemTime::from(dates.not_before), root.not_before);
            assert_eq!(dates.not_after, whole_seconds(made + SERVER_VALIDITY));
        }
        let last = root.not_after - days(1);
        assert_eq!(SystemTime::from(Dates::of_hub(last, SERVER_VALIDITY, root).not_after), root.not_after);
    }

    #[test]
    fn a_server_is_valid_for_its_names_whatever_they_are() {
        let names = ["hub.example", "HUB.example", "10.0.0.1", "2001:db8::1", "localhost"].map(str::to_owned);
        let server = authority().issue_server(&names, HOUR).unwrap();
        let leaf = ParsedCertificate::try_from(&server.chain()[0]).unwrap();
        for name in [HUB_SERVER_NAME, "localhost", "127.0.0.1", "::1", "hub.example", "10.0.0.1", "2001:db8::1"] {
            verify_server_name(&leaf, &ServerName::try_from(name).unwrap()).unwrap();
        }
        assert!(verify_server_name(&leaf, &ServerName::try_from("other.example").unwrap()).is_err());
        let parsed = parse(&server.chain()[0]);
        assert_eq!(parsed.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 7);
    }

    #[test]
    fn a_server_is_valid_for_the_names_below_a_domain() {
        let server = authority().issue_server(&["*.Clusters.internal".to_owned()], HOUR).unwrap();
        let leaf = ParsedCertificate::try_from(&server.chain()[0]).unwrap();
        verify_server_name(&leaf, &ServerName::try_from("c1.clusters.internal").unwrap()).unwrap();
        assert!(verify_server_name(&leaf, &ServerName::try_from("clusters.internal").unwrap()).is_err());
    }

    #[test]
    fn what_is_no_name_for_a_server_is_named_in_the_error() {
        for bad in ["", "hub:8443", "[::1]", "http://hub", "a b", "*", "*.", "*.*.a", "a.*"] {
            let error = authority().issue_server(&[bad.to_owned()], HOUR).unwrap_err();
            assert!(matches!(&error, IssueError::Name(name) if name == bad), "{error:?}");
        }
    }

    #[test]
    fn a_broken_request_is_refused() {
        let refused = authority().issue_agent(b"no request", &"c1".parse().unwrap(), &"a1".parse().unwrap(), HOUR);
        assert!(matches!(refused, Err(IssueError::Csr(_))));
    }
}
