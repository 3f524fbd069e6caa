//! What a forwarded port leads to.

use std::{net::IpAddr, str::FromStr};

use certs::ClusterName;

/// A host in a cluster, or the cluster's Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    KubeApi,
    Name(String),
    Address(IpAddr),
}

/// Why a text is no target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("name a host in the cluster, like grafana.monitoring or 10.0.0.7, or kube-api")]
    Empty,
    #[error("{0:?} is no host name and no address")]
    Host(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.is_empty() {
            return Err(TargetError::Empty);
        }
        if text == "kube-api" {
            return Ok(Self::KubeApi);
        }
        let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = inner.parse() {
            return Ok(Self::Address(address));
        }
        // The hub and the agent decide what a name may be; this only keeps it one word of a request.
        let word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if word && text.len() <= 253 { Ok(Self::Name(text.into())) } else { Err(TargetError::Host(text.into())) }
    }
}

impl Target {
    /// The authority of the CONNECT, and the proxy user name of its credentials.
    ///
    /// The bare cluster name, with no proxy user beside it, is the cluster's Kubernetes API.
    pub(super) fn naming<'a>(&self, cluster: &'a ClusterName, port: u16) -> (String, &'a str) {
        match self {
            Self::KubeApi => (format!("{cluster}:{port}"), ""),
            Self::Name(name) => (format!("{name}:{port}"), cluster.as_ref()),
            Self::Address(IpAddr::V6(address)) => (format!("[{address}]:{port}"), cluster.as_ref()),
            Self::Address(IpAddr::V4(address)) => (format!("{address}:{port}"), cluster.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_named_to_the_hub_together_with_its_cluster() {
        let cluster: ClusterName = "c1".parse().unwrap();
        let table = [
            ("grafana.monitoring", "grafana.monitoring:80", "c1"),
            ("10.0.0.7", "10.0.0.7:80", "c1"),
            ("fd00::7", "[fd00::7]:80", "c1"),
            ("[fd00::7]", "[fd00::7]:80", "c1"),
            ("kube-api", "c1:80", ""),
        ];
        for (text, authority, user) in table {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.naming(&cluster, 80), (authority.to_owned(), user));
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["", "a b", "a\r\nb", "[::1", "svc/grafana", "web:80"] {
            assert!(bad.parse::<Target>().is_err(), "{bad:?}");
        }
    }
}
