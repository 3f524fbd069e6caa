//! The cluster that an agent runs in: its API, and the names by which its Services are reached from a pod.

use std::collections::BTreeSet;

use crate::target::Target;

/// The DNS domain of a cluster that was given no other.
const DOMAIN: &str = "cluster.local";

/// The longest host name (RFC 1035 section 2.3.4).
const NAME_LIMIT: usize = 253;

/// What a pod is told of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    api: Target,
    domain: String,
    namespace: Option<String>,
}

impl Cluster {
    /// From the resolver's configuration, whose search list is `<namespace>.svc.<domain> svc.<domain> <domain> …` in a pod
    /// (<https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>).
    pub fn new(api: Target, resolv_conf: &str) -> Self {
        let mut lines = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("search"));
        let search: Vec<String> = lines
            .next_back()
            .map(|list| list.split_whitespace().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect())
            .unwrap_or_default();
        let domain = search.iter().find_map(|name| name.strip_prefix("svc.")).unwrap_or(DOMAIN).to_owned();
        let own = format!(".svc.{domain}");
        let namespace = search.iter().find_map(|name| name.strip_suffix(&own)).map(str::to_owned);
        Self { api, domain, namespace }
    }

    /// Its Kubernetes API is `target`.
    pub(super) fn is_api(&self, target: &Target) -> bool {
        self.api == *target
    }

    /// The full name of the Service, or of a pod under one, that `name` is in this cluster, if there is such a one. No name of
    /// the `pod` zone: its answer is whatever address the name spells.
    pub(super) fn service(&self, name: &str) -> Option<String> {
        let full = match name.strip_suffix(&format!(".{}", self.domain)) {
            Some(rest) => format!("{}.svc.{}", rest.strip_suffix(".svc")?, self.domain),
            None => match (name.strip_suffix(".svc"), &self.namespace) {
                (Some(stem), _) => format!("{stem}.svc.{}", self.domain),
                (None, Some(namespace)) if !name.contains('.') => format!("{name}.{namespace}.svc.{}", self.domain),
                (None, _) => format!("{name}.svc.{}", self.domain),
            },
        };
        (full.len() <= NAME_LIMIT).then_some(full)
    }

    /// The forms of a full name, of which a rule may have any.
    pub(super) fn forms(&self, full: &str) -> Vec<String> {
        let stem = full.strip_suffix(&format!(".svc.{}", self.domain)).unwrap_or(full);
        let own = self.namespace.as_ref().and_then(|namespace| stem.strip_suffix(&format!(".{namespace}")));
        let own = own.filter(|name| !name.contains('.')).map(str::to_owned);
        [full.to_owned(), format!("{stem}.svc"), stem.to_owned()].into_iter().chain(own).collect()
    }
}

/// Everything that `name` may be called in a cluster, whatever its domain: what denies by one of the names denies by all of them.
/// It may be more than is meant, and must not be less.
pub(super) fn aliases(name: &str, cluster: Option<&Cluster>) -> BTreeSet<String> {
    let stem = name.rfind(".svc.").map(|at| &name[..at]).or_else(|| name.strip_suffix(".svc"));
    let domain = cluster.map_or(DOMAIN, |cluster| &cluster.domain);
    let namespace = cluster.and_then(|cluster| cluster.namespace.as_deref());
    let mut all = BTreeSet::new();
    for stem in [Some(name), stem].into_iter().flatten() {
        let within = namespace.filter(|_| !stem.contains('.')).map(|namespace| format!("{stem}.{namespace}"));
        for stem in [Some(stem.to_owned()), within].into_iter().flatten() {
            all.extend([format!("{stem}.svc"), format!("{stem}.svc.{domain}"), stem]);
        }
    }
    all
}
