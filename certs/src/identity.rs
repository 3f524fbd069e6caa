//! Who a certificate stands for. The one parser of it.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, X509Name};

use crate::{
    authority::TRUST_DOMAIN,
    name::{AgentName, ClusterName, UserName},
    pin::KeyFingerprint,
};

/// First part of an agent's names; Open Cluster Management's (registration/hub/user/identity.go).
const PREFIX: &str = "system:open-cluster-management:";

/// The group of all agents; Open Cluster Management's.
const MANAGED_CLUSTERS: &str = "system:open-cluster-management:managed-clusters";

/// Who a client certificate stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// An agent, which speaks for its cluster and no other.
    Agent { cluster: ClusterName, agent: AgentName },
    /// A user, by Kubernetes' convention: CN the user, O the groups; and the uid of its registration.
    User { user: UserName, groups: Vec<String>, uid: Option<String> },
}

/// Why a certificate stands for nobody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    #[error("it cannot be decoded")]
    Malformed,
    #[error("it is no client's (its extended key usage is not exactly clientAuth)")]
    NotAClient,
    #[error("its subject has no single common name")]
    CommonName,
    #[error("its common name, organizations and URI do not name the same agent")]
    Contradiction,
    #[error("its common name is no user's")]
    NotAUser,
}

impl Identity {
    /// Reads the identity of a certificate that TLS has verified.
    ///
    /// An agent's common name, its two organizations and its one URI must agree to the letter; anything that begins
    /// like an agent's and is not wholly one is refused, never taken for a user.
    pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<Self, IdentityError> {
        Self::with_key(certificate).map(|(identity, _)| identity)
    }

    /// The same, and the fingerprint of the certificate's key.
    pub fn with_key(certificate: &CertificateDer<'_>) -> Result<(Self, KeyFingerprint), IdentityError> {
        let Ok(([], certificate)) = X509Certificate::from_der(certificate) else {
            return Err(IdentityError::Malformed);
        };
        let key = KeyFingerprint::of(&certificate.tbs_certificate.subject_pki);
        Ok((Self::of(&certificate)?, key))
    }

    fn of(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        if !is_client(certificate)? {
            return Err(IdentityError::NotAClient);
        }
        let subject = certificate.subject();
        let mut names = subject.iter_common_name();
        let (Some(name), None) = (names.next(), names.next()) else { return Err(IdentityError::CommonName) };
        let name = name.as_str().map_err(|_| IdentityError::CommonName)?;
        let groups = organizations(subject)?;
        let uris = uris(certificate)?;
        let uid = user_uid(&uris);
        let no_users_uri = uid.is_none() && !uris.is_empty();
        if name.starts_with(PREFIX) || no_users_uri || groups.iter().any(|group| group.starts_with(PREFIX)) {
            return agent(name, &groups, &uris);
        }
        let user = name.parse().map_err(|_| IdentityError::NotAUser)?;
        Ok(Self::User { user, groups, uid })
    }

    /// `agent` or `user`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Agent { .. } => "agent",
            Self::User { .. } => "user",
        }
    }
}

fn is_client(certificate: &X509Certificate<'_>) -> Result<bool, IdentityError> {
    let usage = certificate.extended_key_usage().map_err(|_| IdentityError::Malformed)?;
    Ok(usage.is_some_and(|usage| {
        let usage = usage.value;
        usage.client_auth && !usage.server_auth && !usage.any && !certificate.is_ca()
    }))
}

fn organizations(subject: &X509Name<'_>) -> Result<Vec<String>, IdentityError> {
    let groups = subject.iter_organization().map(|group| group.as_str().map(str::to_owned));
    groups.collect::<Result<_, _>>().map_err(|_| IdentityError::Malformed)
}

fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, IdentityError> {
    let names = certificate.subject_alternative_name().map_err(|_| IdentityError::Malformed)?;
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    let uri = |name: &'a GeneralName<'_>| if let GeneralName::URI(uri) = name { Some(*uri) } else { None };
    Ok(names.iter().filter_map(uri).collect())
}

/// The uid in a user's one URI.
fn user_uid(uris: &[&str]) -> Option<String> {
    let [uri] = uris else { return None };
    let uid = uri.strip_prefix(&user_uri(""))?;
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ((1..=64).contains(&uid.len()) && uid.bytes().all(inner)).then(|| uid.to_owned())
}

fn agent(name: &str, groups: &[String], uris: &[&str]) -> Result<Identity, IdentityError> {
    let parts = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':'));
    let (cluster, agent) = parts.ok_or(IdentityError::Contradiction)?;
    let cluster: ClusterName = cluster.parse().map_err(|_| IdentityError::Contradiction)?;
    let agent: AgentName = agent.parse().map_err(|_| IdentityError::Contradiction)?;
    let expected = agent_groups(&cluster);
    let same_groups = groups.len() == expected.len() && expected.iter().all(|group| groups.contains(group));
    if !same_groups || uris != [agent_uri(&cluster, &agent)] {
        return Err(IdentityError::Contradiction);
    }
    Ok(Identity::Agent { cluster, agent })
}

/// An agent's common name.
pub(crate) fn agent_common_name(cluster: &ClusterName, agent: &AgentName) -> String {
    format!("{PREFIX}{cluster}:{agent}")
}

/// An agent's organizations.
pub(crate) fn agent_groups(cluster: &ClusterName) -> [String; 2] {
    [format!("{PREFIX}{cluster}"), MANAGED_CLUSTERS.to_owned()]
}

/// A user's SPIFFE id, by the uid of its registration: one who was registered later under the same name is another.
pub(crate) fn user_uri(uid: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/user/{uid}")
}

/// An agent's SPIFFE id.
pub(crate) fn agent_uri(cluster: &ClusterName, agent: &AgentName) -> String {
    format!("spiffe://{TRUST_DOMAIN}/cluster/{cluster}/agent/{agent}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose as Eku, IsCa, KeyPair, SanType};

    use super::*;

    struct Leaf {
        names: Vec<&'static str>,
        groups: Vec<&'static str>,
        uris: Vec<&'static str>,
        usages: Vec<Eku>,
        ca: bool,
    }

    fn agent_leaf() -> Leaf {
        Leaf {
            names: vec!["system:open-cluster-management:c1:a1"],
            groups: vec!["system:open-cluster-management:c1", "system:open-cluster-management:managed-clusters"],
            uris: vec!["spiffe://cluster-proxy.internal/cluster/c1/agent/a1"],
            usages: vec![Eku::ClientAuth],
            ca: false,
        }
    }

    fn user_leaf() -> Leaf {
        Leaf {
            names: vec!["alice"],
            groups: vec!["dev", "ops"],
            uris: vec![],
            usages: vec![Eku::ClientAuth],
            ca: false,
        }
    }

    impl Leaf {
        fn der(&self) -> CertificateDer<'static> {
            let mut params = CertificateParams::default();
            params.distinguished_name = rcgen::DistinguishedName::new();
            // rcgen keeps one value per type: further ones go in as custom types of the same number.
            for (at, name) in self.names.iter().enumerate() {
                let kind = if at == 0 { DnType::CommonName } else { DnType::CustomDnType(vec![2, 5, 4, 3]) };
                params.distinguished_name.push(kind, *name);
            }
            for (at, group) in self.groups.iter().enumerate() {
                let kind = if at == 0 { DnType::OrganizationName } else { DnType::CustomDnType(vec![2, 5, 4, 10]) };
                params.distinguished_name.push(kind, *group);
            }
            params.subject_alt_names = self.uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
            params.extended_key_usages = self.usages.clone();
            if self.ca {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
            params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
        }

        fn identity(&self) -> Result<Identity, IdentityError> {
            Identity::from_certificate(&self.der())
        }
    }

    #[test]
    fn an_agent_and_a_user_are_read() {
        let identity = agent_leaf().identity().unwrap();
        assert_eq!(identity, Identity::Agent { cluster: "c1".parse().unwrap(), agent: "a1".parse().unwrap() });
        let identity = user_leaf().identity().unwrap();
        assert_eq!(
            identity,
            Identity::User { user: "alice".parse().unwrap(), groups: vec!["dev".into(), "ops".into()], uid: None }
        );
    }

    #[test]
    fn a_users_uid_is_its_one_uri_and_makes_no_agent_a_user() {
        let uid = "3d6a5ef0-2f34-4c4e-9d77-0c7cf1a3b6a1";
        let uri: &str = Box::leak(user_uri(uid).into_boxed_str());
        let mut leaf = user_leaf();
        leaf.uris = vec![uri];
        let Ok(Identity::User { uid: Some(read), .. }) = leaf.identity() else { panic!("no user") };
        assert_eq!(read, uid);
        let bad: [fn(&mut Leaf); 5] = [
            |leaf| leaf.uris.push("spiffe://cluster-proxy.internal/user/other"),
            |leaf| leaf.uris = vec!["spiffe://cluster-proxy.internal/user/"],
            |leaf| leaf.uris = vec!["spiffe://cluster-proxy.internal/user/a/b"],
            |leaf| leaf.uris = vec!["spiffe://elsewhere.internal/user/a"],
            |leaf| leaf.names = vec!["system:open-cluster-management:c1:a1"],
        ];
        for (at, change) in bad.iter().enumerate() {
            let mut leaf = user_leaf();
            leaf.uris = vec![uri];
            change(&mut leaf);
            assert_eq!(leaf.identity(), Err(IdentityError::Contradiction), "case {at}");
        }
    }

    #[test]
    fn an_agent_whose_parts_disagree_is_refused() {
        let bad: [fn(&mut Leaf); 10] = [
            |leaf| leaf.names = vec!["system:open-cluster-management:c2:a1"],
            |leaf| leaf.names = vec!["system:open-cluster-management:c1:a2"],
            |leaf| leaf.names = vec!["system:open-cluster-management:c1"],
            |leaf| leaf.names = vec!["system:open-cluster-management:c1:a1:x"],
            |leaf| leaf.names = vec!["alice"],
            |leaf| leaf.groups = vec!["system:open-cluster-management:c2", MANAGED_CLUSTERS],
            |leaf| leaf.groups = vec!["system:open-cluster-management:c1"],
            |leaf| leaf.groups.push("system:masters"),
            |leaf| leaf.uris = vec!["spiffe://cluster-proxy.internal/cluster/c2/agent/a1"],
            |leaf| leaf.uris = vec![],
        ];
        for (at, change) in bad.iter().enumerate() {
            let mut leaf = agent_leaf();
            change(&mut leaf);
            assert_eq!(leaf.identity(), Err(IdentityError::Contradiction), "case {at}");
        }
    }

    #[test]
    fn what_is_no_clients_leaf_is_refused() {
        let bad: [(fn(&mut Leaf), IdentityError); 5] = [
            (|leaf| leaf.usages = vec![Eku::ServerAuth], IdentityError::NotAClient),
            (|leaf| leaf.usages = vec![Eku::ClientAuth, Eku::ServerAuth], IdentityError::NotAClient),
            (|leaf| leaf.usages = vec![], IdentityError::NotAClient),
            (|leaf| leaf.ca = true, IdentityError::NotAClient),
            (|leaf| leaf.names = vec!["alice", "bob"], IdentityError::CommonName),
        ];
        for (change, expected) in bad {
            let mut leaf = user_leaf();
            change(&mut leaf);
            assert_eq!(leaf.identity(), Err(expected));
        }
        let mut leaf = user_leaf();
        leaf.names = vec!["system:admin"];
        assert_eq!(leaf.identity(), Err(IdentityError::NotAUser));
    }

    #[test]
    fn a_mutated_certificate_never_panics_nor_changes_its_cluster() {
        let der = agent_leaf().der();
        proptest!(|(at: prop::sample::Index, to: u8, cut: prop::sample::Index)| {
            let mut bytes = der.to_vec();
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = Identity::from_certificate(&CertificateDer::from(bytes.clone()));
            bytes.truncate(cut.index(bytes.len()));
            prop_assert_eq!(Identity::from_certificate(&CertificateDer::from(bytes)), Err(IdentityError::Malformed));
        });
    }

    #[test]
    fn no_changed_bit_makes_another_identity() {
        let der = agent_leaf().der();
        let expected = agent_leaf().identity().unwrap();
        for (at, bit) in (0..der.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut bytes = der.to_vec();
            bytes[at] ^= 1 << bit;
            if let Ok(read) = Identity::from_certificate(&bytes.into()) {
                assert_eq!(read, expected, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_cluster_called_like_the_agents_group_is_a_cluster() {
        let mut leaf = agent_leaf();
        leaf.names = vec!["system:open-cluster-management:managed-clusters:a1"];
        leaf.groups = vec![MANAGED_CLUSTERS, MANAGED_CLUSTERS];
        leaf.uris = vec!["spiffe://cluster-proxy.internal/cluster/managed-clusters/agent/a1"];
        let cluster = "managed-clusters".parse().unwrap();
        assert_eq!(leaf.identity(), Ok(Identity::Agent { cluster, agent: "a1".parse().unwrap() }));
    }

    #[test]
    fn one_mark_of_an_agent_makes_no_user() {
        let marks: [fn(&mut Leaf); 4] = [
            |leaf| leaf.names = vec!["system:open-cluster-management:"],
            |leaf| leaf.groups = vec![MANAGED_CLUSTERS],
            |leaf| leaf.groups = vec!["dev", "system:open-cluster-management:c1"],
            |leaf| leaf.uris = agent_leaf().uris,
        ];
        for (at, mark) in marks.iter().enumerate() {
            let mut leaf = user_leaf();
            mark(&mut leaf);
            assert_eq!(leaf.identity(), Err(IdentityError::Contradiction), "case {at}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_nobody(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(Identity::from_certificate(&bytes.into()).is_err());
        }
    }
}
