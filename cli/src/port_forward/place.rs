//! What a user forwards to, as people know it: a host of the cluster, or a service, pod or deployment of Kubernetes.

use std::{fmt, str::FromStr};

use super::{
    pair::{PairError, RemotePort},
    target::{Target, TargetError},
};

/// A place in a cluster, perhaps with a port of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) site: Site,
    pub(crate) port: Option<RemotePort>,
    /// As written.
    text: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    Host(Target),
    Resource(Resource),
}

/// An object of the cluster's Kubernetes API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) kind: Kind,
    /// Safe in a path and in a host name.
    pub(crate) name: String,
    /// Empty until [`Place::in_namespace`].
    pub(crate) namespace: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Service,
    Pod,
    Deployment,
}

/// Why a text names no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error(transparent)]
    Target(TargetError),
    #[error(transparent)]
    Port(PairError),
    #[error("{0:?} is no kind to forward to; there are svc/NAME, pod/NAME and deployment/NAME")]
    Kind(String),
    #[error("{0:?} is no name of Kubernetes")]
    Name(String),
    #[error("{0} is in namespace {1} by its name, and in {2} by --namespace; leave one out")]
    Namespaces(String, String, String),
    #[error("a host has no namespace; write svc/{0} for the service")]
    NoNamespace(String),
}

impl FromStr for Place {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        let (named, port) = split_port(text)?;
        let site = match named.split_once('/') {
            Some((kind, name)) => Site::Resource(Resource::new(kind.parse()?, name)?),
            None => Site::Host(named.parse().map_err(PlaceError::Target)?),
        };
        Ok(Self { site, port, text: text.to_owned() })
    }
}

/// `host:80`, `[::1]:80`, `svc/web:http`; but not an IPv6 address alone.
fn split_port(text: &str) -> Result<(&str, Option<RemotePort>), PlaceError> {
    match text.rsplit_once(':') {
        Some((rest, port)) if !rest.contains(':') || rest.ends_with(']') => {
            Ok((rest, Some(port.parse().map_err(PlaceError::Port)?)))
        }
        _ => Ok((text, None)),
    }
}

impl Place {
    /// In the namespace that is named beside it, or else in `default`.
    pub(crate) fn in_namespace(mut self, named: Option<&str>) -> Result<Self, PlaceError> {
        match (&mut self.site, named) {
            (Site::Host(_), None) => {}
            (Site::Host(_), Some(_)) => return Err(PlaceError::NoNamespace(self.text)),
            (Site::Resource(resource), named) => {
                let known = std::mem::take(&mut resource.namespace);
                resource.namespace = match named {
                    Some(named) if !is_name(named) => return Err(PlaceError::Name(named.into())),
                    Some(named) if !known.is_empty() && known != named => {
                        return Err(PlaceError::Namespaces(self.text, known, named.into()));
                    }
                    Some(named) => named.to_owned(),
                    None if known.is_empty() => "default".to_owned(),
                    None => known,
                };
            }
        }
        Ok(self)
    }
}

impl Resource {
    fn new(kind: Kind, text: &str) -> Result<Self, PlaceError> {
        // A service may be written by its DNS name; the names of pods may have dots of their own.
        let (name, namespace) = match (kind, text.split_once('.')) {
            (Kind::Service, Some((name, rest))) => {
                let (namespace, domain) = rest.split_once('.').unwrap_or((rest, "svc"));
                let is_service = domain == "svc" || domain.starts_with("svc.");
                (name, if is_service { namespace } else { "" })
            }
            _ => (text, "default"),
        };
        if !is_name(name) || !is_name(namespace) {
            return Err(PlaceError::Name(text.into()));
        }
        let namespace = if name.len() == text.len() { String::new() } else { namespace.to_owned() };
        Ok(Self { kind, name: name.to_owned(), namespace })
    }

    /// Of a service, in the cluster's DNS.
    pub(crate) fn dns_name(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// A DNS subdomain (RFC 1123), as Kubernetes' names are.
fn is_name(text: &str) -> bool {
    let byte = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    let end = |char: char| char.is_ascii_alphanumeric();
    text.bytes().all(byte) && text.starts_with(end) && text.ends_with(end) && !text.contains("..") && text.len() <= 253
}

impl FromStr for Kind {
    type Err = PlaceError;

    fn from_str(text: &str) -> Result<Self, PlaceError> {
        match text {
            "svc" | "service" | "services" => Ok(Self::Service),
            "po" | "pod" | "pods" => Ok(Self::Pod),
            "deploy" | "deployment" | "deployments" => Ok(Self::Deployment),
            _ => Err(PlaceError::Kind(text.into())),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "service",
            Self::Pod => "pod",
            Self::Deployment => "deployment",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(text: &str, namespace: Option<&str>) -> Result<(Kind, String, String), PlaceError> {
        match text.parse::<Place>()?.in_namespace(namespace)?.site {
            Site::Resource(Resource { kind, name, namespace }) => Ok((kind, name, namespace)),
            Site::Host(target) => panic!("{target:?}"),
        }
    }

    #[test]
    fn services_pods_and_deployments_are_named_as_kubectl_does() {
        let table = [
            ("svc/grafana.monitoring", None, (Kind::Service, "grafana", "monitoring")),
            ("service/grafana.monitoring.svc.cluster.local", None, (Kind::Service, "grafana", "monitoring")),
            ("svc/grafana", Some("monitoring"), (Kind::Service, "grafana", "monitoring")),
            ("svc/grafana.monitoring", Some("monitoring"), (Kind::Service, "grafana", "monitoring")),
            ("services/grafana", None, (Kind::Service, "grafana", "default")),
            ("pod/web-0.a", Some("x"), (Kind::Pod, "web-0.a", "x")),
            ("deploy/web", None, (Kind::Deployment, "web", "default")),
        ];
        for (text, named, (kind, name, namespace)) in table {
            assert_eq!(resource(text, named), Ok((kind, name.into(), namespace.into())), "{text}");
        }
    }

    #[test]
    fn a_port_may_stand_behind_the_place() {
        let parts = |text: &str| {
            let place: Place = text.parse().unwrap();
            (place.site, place.port)
        };
        let host = |text: &str| Site::Host(text.parse().unwrap());
        assert_eq!(parts("web:80"), (host("web"), Some(RemotePort::Number(80))));
        assert_eq!(parts("[fd00::7]:80"), (host("fd00::7"), Some(RemotePort::Number(80))));
        assert_eq!(parts("fd00::7"), (host("fd00::7"), None));
        assert_eq!(parts("kube-api"), (Site::Host(Target::KubeApi), None));
        assert_eq!(parts("svc/a.b:http").1, Some(RemotePort::Name("http".into())));
    }

    #[test]
    fn what_names_no_place_is_told_why() {
        let error = |text, namespace| resource(text, namespace).unwrap_err().to_string();
        assert!(error("cm/web", None).contains("svc/NAME"));
        assert!(error("svc/a.b", Some("c")).contains("leave one out"));
        for bad in ["svc/", "svc/a..b", "pod/../x", "pod/a b", "svc/a.b.c", "svc/A", "pod/-a"] {
            assert!(matches!(resource(bad, None), Err(PlaceError::Name(_))), "{bad}");
        }
        assert!(matches!("svc/a:0".parse::<Place>(), Err(PlaceError::Port(_))));
        assert!("web".parse::<Place>().unwrap().in_namespace(Some("x")).is_err());
    }
}
