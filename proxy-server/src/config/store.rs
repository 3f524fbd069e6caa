//! Where the registry is kept: a file in the state folder, or etcd.

use std::path::PathBuf;

use registry::store::Etcd;

use super::Problems;

/// What flags, environment and file say about it together.
pub(super) struct StoreSettings {
    pub(super) kind: Option<String>,
    pub(super) endpoints: Vec<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) prefix: Option<String>,
}

impl StoreSettings {
    /// The etcd, if it is to be one. What is wrong is added to `problems`.
    pub(super) fn resolve(self, problems: &mut Problems) -> Option<Etcd> {
        let Self { kind, endpoints, ca, cert, key, prefix } = self;
        let mut wrong = |problem: &str| problems.0.push(problem.to_owned());
        match kind.as_deref() {
            Some("etcd") => {}
            None | Some("redb") => {
                if !endpoints.is_empty() || ca.is_some() || cert.is_some() || key.is_some() || prefix.is_some() {
                    wrong("store: etcd is described but not used; add --store etcd");
                }
                return None;
            }
            Some(other) => {
                wrong(&format!("store: {other:?}: must be redb or etcd"));
                return None;
            }
        }
        if endpoints.is_empty() {
            wrong("etcd-endpoint: none is given; name at least one, like https://etcd-0:2379");
        }
        for endpoint in &endpoints {
            // Not shown: it is a secret.
            if endpoint.contains('@') {
                wrong("etcd-endpoint: a user and a password in it are not taken; use --etcd-cert and --etcd-key");
                continue;
            }
            if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
                wrong(&format!("etcd-endpoint: {endpoint:?}: must begin with http:// or https://"));
            }
        }
        if ca.is_none() && endpoints.iter().any(|endpoint| endpoint.starts_with("https://")) {
            wrong("etcd-ca: an https endpoint needs the CA of etcd's certificate");
        }
        let identity = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) => {
                wrong("etcd-key: etcd-cert needs its key");
                None
            }
            (None, Some(_)) => {
                wrong("etcd-cert: etcd-key needs its certificate");
                None
            }
        };
        let prefix = prefix.unwrap_or_else(|| Etcd::PREFIX.to_owned());
        if prefix.len() > Etcd::MAX_PREFIX {
            wrong(&format!("etcd-prefix: is longer than {} bytes", Etcd::MAX_PREFIX));
        }
        Some(Etcd { endpoints, ca, identity, prefix })
    }
}
