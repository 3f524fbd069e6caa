//! Who this agent is: its key, its certificate, the hub's CA, and the TLS that they make.

pub(crate) mod store;

use std::time::{Duration, SystemTime};

use certs::{CsrError, HubTls, KeyFingerprint, Pin, PrivateKey, TlsError};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tunnel::ALPN_TUNNEL;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::state::{Membership, StateError, StateFolder};

/// An agent's identity, checked as a whole.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) membership: Membership,
    key: PrivateKey,
    /// For the tunnel's ALPN.
    tls: HubTls,
    validity: Validity,
    /// The roots under which the hub is verified.
    roots: Vec<Pin>,
    /// The one of them that has issued the certificate, if it is one of them.
    issuer: Option<Pin>,
}

/// Twice as long as until the next look.
const LAST_MINUTE: Duration = Duration::from_secs(60);

/// When a certificate can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Validity {
    /// When the hub issued it.
    pub(crate) issued: SystemTime,
    pub(crate) not_after: SystemTime,
}

/// Why there is no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("the agent's state cannot be used")]
    State(#[source] StateError),
    #[error("{0} holds no certificate in PEM; run 'proxy-agent join' again")]
    Pem(&'static str),
    #[error("agent.crt is no agent's certificate; run 'proxy-agent join' again")]
    NotAnAgent(#[source] certs::IdentityError),
    #[error("agent.crt is for {certificate}, agent.toml for {expected}; run 'proxy-agent join' again")]
    OtherName { certificate: String, expected: String },
    #[error("agent.crt is not for the key in agent.key; run 'proxy-agent join' again")]
    OtherKey,
    #[error("agent.key, agent.crt and ca.crt cannot be used for TLS; run 'proxy-agent join' again")]
    Tls(#[source] TlsError),
}

impl Identity {
    /// The identity that a join has left in `state`.
    pub(crate) fn load(state: &StateFolder) -> Result<Self, IdentityError> {
        // The certificate first: its absence is what says that there was no join.
        let chain = state.load_chain().map_err(IdentityError::State)?;
        let membership = state.load_membership().map_err(IdentityError::State)?;
        let ca = state.load_ca().map_err(IdentityError::State)?;
        let key = state.load_key().map_err(IdentityError::State)?;
        Self::new(membership, key, &ca, &chain)
    }

    /// An identity of these parts, if they fit each other. `ca_pem` and `chain_pem` (leaf first) are PEM.
    pub(crate) fn new(
        membership: Membership,
        key: PrivateKey,
        ca_pem: &str,
        chain_pem: &str,
    ) -> Result<Self, IdentityError> {
        let chain = certificates(chain_pem, "agent.crt")?;
        let leaf = chain.first().ok_or(IdentityError::Pem("agent.crt"))?;
        check_name(leaf, &membership)?;
        if KeyFingerprint::of_certificate(leaf).ok() != Some(key.fingerprint()) {
            return Err(IdentityError::OtherKey);
        }
        let validity = Validity::of(leaf).ok_or(IdentityError::Pem("agent.crt"))?;
        let private =
            PrivateKeyDer::from_pem_slice(key.to_pem().as_bytes()).map_err(|_| IdentityError::Pem("agent.key"))?;
        let roots = certificates(ca_pem, "ca.crt")?;
        // The hub knows its own CA: shown too, it would be kept there for as long as the tunnel lives.
        let shown = vec![leaf.clone()];
        let tls = certs::ClientTls::new(roots, Some((shown, private))).and_then(|tls| tls.hub(&[ALPN_TUNNEL]));
        let tls = tls.map_err(IdentityError::Tls)?;
        let issuer = certs::issuer_among(chain_pem, ca_pem);
        Ok(Self { membership, key, tls, validity, roots: certs::pins_in(ca_pem), issuer })
    }

    /// The TLS to open a tunnel with.
    pub(crate) fn tls(&self) -> &HubTls {
        &self.tls
    }

    pub(crate) fn validity(&self) -> Validity {
        self.validity
    }

    /// The pins of what it trusts, as they are told to the hub.
    pub(crate) fn trusts(&self) -> Vec<String> {
        self.roots.iter().map(ToString::to_string).collect()
    }

    /// The CA of its certificate, if it trusts that.
    pub(crate) fn issuer(&self) -> Option<Pin> {
        self.issuer
    }

    /// Asks for a new certificate for the same key.
    pub(crate) fn csr(&self) -> Result<Vec<u8>, CsrError> {
        self.key.csr_der()
    }

    /// Somebody joined anew: a tunnel of the other identity must not go on as this one.
    pub(crate) fn is_someone_else(&self, other: &Self) -> bool {
        let name = |identity: &Self| (identity.membership.cluster.clone(), identity.membership.agent.clone());
        name(self) != name(other) || self.key.fingerprint() != other.key.fingerprint()
    }
}

impl Validity {
    /// Of a certificate; `None` when it cannot be decoded.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let issued = certs::issued_at(certificate)?;
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let validity = certificate.validity();
        Some(Self { issued, not_after: unix_time(validity.not_after.timestamp())? })
    }

    /// Two thirds of its life are over: a third is left to find a hub that renews it. In its last minute that is late.
    pub(crate) fn should_renew(&self, now: SystemTime) -> bool {
        if now + LAST_MINUTE >= self.not_after {
            return true;
        }
        let life = self.not_after.duration_since(self.issued).unwrap_or_default();
        now.duration_since(self.issued).is_ok_and(|age| age >= life.mul_f64(2.0 / 3.0))
    }

    /// When it ends, as a Unix time in seconds.
    pub(crate) fn end(&self) -> f64 {
        self.not_after.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
    }
}

/// The certificates in a PEM text.
pub(crate) fn certificates(pem: &str, file: &'static str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    parsed.ok().filter(|certificates| !certificates.is_empty()).ok_or(IdentityError::Pem(file))
}

fn check_name(leaf: &CertificateDer<'_>, membership: &Membership) -> Result<(), IdentityError> {
    let expected = format!("agent {}/{}", membership.cluster, membership.agent);
    let certificate = match certs::Identity::from_certificate(leaf).map_err(IdentityError::NotAnAgent)? {
        certs::Identity::Agent { cluster, agent } => format!("agent {cluster}/{agent}"),
        certs::Identity::User { user, .. } => format!("user {user}"),
    };
    if certificate == expected { Ok(()) } else { Err(IdentityError::OtherName { certificate, expected }) }
}

fn unix_time(seconds: i64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

#[cfg(test)]
mod tests {
    use certs::Authority;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn joined(folder: &std::path::Path) -> (StateFolder, Authority, PrivateKey) {
        let state = StateFolder::new(folder.join("agent"));
        std::fs::create_dir(folder.join("hub")).unwrap();
        let authority = Authority::load_or_create(&folder.join("hub")).unwrap();
        let key = state.load_or_create_key().unwrap();
        let (cluster, agent) = ("c1".parse().unwrap(), "a1".parse().unwrap());
        let issued = authority.issue_agent(&key.csr_der().unwrap(), &cluster, &agent, DAY).unwrap();
        let membership = Membership { hubs: vec!["hub".parse().unwrap()], cluster, agent };
        state.save_join(&membership, authority.certificate_pem(), &issued.chain_pem).unwrap();
        (state, authority, key)
    }

    #[test]
    fn what_a_join_left_is_an_identity() {
        let folder = tempfile::tempdir().unwrap();
        let (state, _, key) = joined(folder.path());
        let identity = Identity::load(&state).unwrap();
        assert_eq!(&*identity.membership.cluster, "c1");
        assert!(!format!("{identity:?}").contains("PRIVATE"));
        assert_eq!(KeyFingerprint::of_csr(&identity.csr().unwrap()).unwrap(), key.fingerprint());
        let now = SystemTime::now();
        assert!(!identity.validity().should_renew(now));
        assert!(identity.validity().should_renew(now + DAY));
        let life = identity.validity().not_after.duration_since(now).unwrap();
        assert!(life <= DAY && life > DAY / 2);
    }

    #[test]
    fn parts_that_do_not_fit_each_other_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let (state, authority, key) = joined(folder.path());
        let membership = state.load_membership().unwrap();
        let csr = key.csr_der().unwrap();

        let other = authority.issue_agent(&csr, &"c2".parse().unwrap(), &membership.agent, DAY).unwrap();
        state.save_chain(&other.chain_pem).unwrap();
        let error = Identity::load(&state).unwrap_err();
        assert!(error.to_string().contains("agent c2/a1"), "{error}");

        let foreign = PrivateKey::generate().csr_der().unwrap();
        let other = authority.issue_agent(&foreign, &membership.cluster, &membership.agent, DAY).unwrap();
        state.save_chain(&other.chain_pem).unwrap();
        assert!(matches!(Identity::load(&state), Err(IdentityError::OtherKey)));

        let user = authority.issue_user(&csr, &"alice".parse().unwrap(), None, DAY).unwrap();
        state.save_chain(&user.chain_pem).unwrap();
        assert!(matches!(Identity::load(&state), Err(IdentityError::OtherName { .. })));

        state.save_chain(authority.certificate_pem()).unwrap();
        assert!(matches!(Identity::load(&state), Err(IdentityError::NotAnAgent(_))));

        state.save_chain("no PEM").unwrap();
        assert!(matches!(Identity::load(&state), Err(IdentityError::Pem("agent.crt"))));
    }

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life() {
        let issued = SystemTime::UNIX_EPOCH;
        let validity = Validity { issued, not_after: issued + 3 * DAY };
        for (age, due) in [(0, false), (47, false), (48, true), (100, true)] {
            assert_eq!(validity.should_renew(issued + Duration::from_secs(age * 3600)), due, "{age}");
        }
    }
}
