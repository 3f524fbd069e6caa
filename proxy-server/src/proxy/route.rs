//! Naming a target: what a client said, turned into a cluster and a target in it. One pure function.

use std::net::IpAddr;

use certs::ClusterName;
use tunnel::Identity;

/// What a client said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Naming<'a> {
    /// The proxy user name, unless it is empty or the authenticated user's own name: then it names a cluster.
    pub(crate) proxy_user: Option<&'a str>,
    /// The cluster that the listener means: the server name in TLS, or the Unix socket's. kube-apiserver's egress
    /// selector can say no more than this.
    pub(crate) listener: Option<&'a ClusterName>,
    /// Host name or address as given; an IPv6 address with or without brackets.
    pub(crate) host: &'a str,
    /// Port as given.
    pub(crate) port: u16,
}

/// Where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) cluster: ClusterName,
    pub(crate) target: Target,
}

/// What is meant inside the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// The cluster's Kubernetes API, wherever its agent knows it to be.
    KubeApi,
    /// The HTTP gateway to that API, as this user.
    KubeGateway(Identity),
    /// A TCP service; `host` is a name or an address without brackets, resolved in the spoke.
    Tcp { host: String, port: u16 },
    /// The same with TLS, which the agent ends.
    Tls { host: String, port: u16 },
}

/// Why a naming leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteError {
    #[error("the target has no host; name one as HOST:PORT")]
    EmptyHost,
    #[error("the target's host is neither a DNS name (RFC 1123) nor an address; check its spelling")]
    BadHost,
    #[error("port 0 cannot be dialled; name a port from 1 to 65535")]
    BadPort,
    #[error(
        "the proxy user name is no cluster name (lower-case letters, digits and '-', at most 63); use the cluster's name"
    )]
    BadProxyUser,
    #[error("two different clusters are named, {one} and {other}; name one")]
    TwoClusters { one: ClusterName, other: ClusterName },
    #[error(
        "no cluster is named: use the cluster's name as the proxy user, or <host>.<cluster>.{domain}:<port>, \
         or <cluster>.{domain} for its Kubernetes API"
    )]
    NoCluster { domain: String },
}

/// Where a naming leads, as in README's "Naming a target". `domain` is the clusters' domain, like `clusters.internal`.
///
/// A naming never reaches a cluster other than the one it names: where two are named, it is refused.
pub(crate) fn route(naming: Naming<'_>, domain: &str) -> Result<Route, RouteError> {
    let host = bare_host(naming.host)?;
    if naming.port == 0 {
        return Err(RouteError::BadPort);
    }
    let tcp = |host: &str| Target::Tcp { host: host.to_owned(), port: naming.port };
    let by_host = in_domain(&host, domain);
    if let Some(cluster) = said_beside_the_target(naming)? {
        return match by_host {
            None => Ok(Route { cluster, target: tcp(&host) }),
            Some((named, inner)) if named == cluster => {
                Ok(Route { cluster, target: inner.map_or(Target::KubeApi, tcp) })
            }
            Some((named, _)) => Err(RouteError::TwoClusters { one: cluster, other: named }),
        };
    }
    if let Some((cluster, inner)) = by_host {
        return Ok(Route { cluster, target: inner.map_or(Target::KubeApi, tcp) });
    }
    // OCM's form: the bare cluster name. It has no dots; an address is no cluster.
    match host.parse::<ClusterName>() {
        Ok(cluster) if host.parse::<IpAddr>().is_err() => Ok(Route { cluster, target: Target::KubeApi }),
        _ => Err(RouteError::NoCluster { domain: domain.to_owned() }),
    }
}

/// The cluster that the proxy user names, or the listener.
fn said_beside_the_target(naming: Naming<'_>) -> Result<Option<ClusterName>, RouteError> {
    let user = naming.proxy_user.map(str::parse).transpose().map_err(|_| RouteError::BadProxyUser)?;
    match (user, naming.listener) {
        (Some(one), Some(other)) if one != *other => Err(RouteError::TwoClusters { one, other: other.clone() }),
        (user, listener) => Ok(user.or_else(|| listener.cloned())),
    }
}

/// `host` in lower case without brackets or the root's dot, if it is a host at all.
fn bare_host(host: &str) -> Result<String, RouteError> {
    if host.is_empty() {
        return Err(RouteError::EmptyHost);
    }
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = inner.parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    if certs::is_host_name(&name) { Ok(name) } else { Err(RouteError::BadHost) }
}

/// `<host>.<cluster>.<domain>` or `<cluster>.<domain>`: the cluster, and the host if there is one.
fn in_domain<'a>(host: &'a str, domain: &str) -> Option<(ClusterName, Option<&'a str>)> {
    let rest = host.strip_suffix(domain)?.strip_suffix('.')?;
    let (inner, cluster) = match rest.rsplit_once('.') {
        Some((inner, cluster)) => (Some(inner), cluster),
        None => (None, rest),
    };
    Some((cluster.parse().ok()?, inner))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOMAIN: &str = "clusters.internal";

    fn routed(user: Option<&str>, host: &str, port: u16) -> Result<(String, Option<String>), RouteError> {
        route(Naming { proxy_user: user, listener: None, host, port }, DOMAIN).map(|route| {
            let target = match route.target {
                Target::KubeApi => None,
                Target::Tcp { host, port } => Some(format!("{host} {port}")),
                other @ (Target::KubeGateway(_) | Target::Tls { .. }) => panic!("no proxy's client asks for {other:?}"),
            };
            (route.cluster.to_string(), target)
        })
    }

    #[test]
    fn every_form_of_the_table_reaches_the_cluster_it_names() {
        let to = |cluster: &str, target: Option<&str>| Ok((cluster.to_owned(), target.map(str::to_owned)));
        let table = [
            (Some("c1"), "grafana.monitoring", 80, to("c1", Some("grafana.monitoring 80"))),
            (Some("c1"), "10.0.0.1", 443, to("c1", Some("10.0.0.1 443"))),
            (Some("c1"), "[FD00::1]", 443, to("c1", Some("fd00::1 443"))),
            (Some("c1"), "fd00::1", 443, to("c1", Some("fd00::1 443"))),
            (Some("c1"), "c2", 80, to("c1", Some("c2 80"))),
            (Some("c1"), "web.c1.clusters.internal", 80, to("c1", Some("web 80"))),
            (Some("c1"), "c1.clusters.internal", 443, to("c1", None)),
            (None, "web.c1.clusters.internal", 80, to("c1", Some("web 80"))),
            (None, "Web.NS.svc.C1.Clusters.Internal.", 80, to("c1", Some("web.ns.svc 80"))),
            (None, "10.0.0.1.c1.clusters.internal", 80, to("c1", Some("10.0.0.1 80"))),
            (None, "c1.clusters.internal", 6443, to("c1", None)),
            (None, "c1", 443, to("c1", None)),
        ];
        for (user, host, port, expected) in table {
            assert_eq!(routed(user, host, port), expected, "{user:?} {host} {port}");
        }
    }

    #[test]
    fn what_names_no_cluster_is_refused_with_the_known_forms() {
        for host in ["example.com", "10.0.0.1", "[::1]", "clusters.internal", "xclusters.internal", "a.b.c"] {
            let error = routed(None, host, 80).unwrap_err();
            assert_eq!(error, RouteError::NoCluster { domain: DOMAIN.into() }, "{host}");
            assert!(error.to_string().contains("<host>.<cluster>.clusters.internal:<port>"));
        }
    }

    #[test]
    fn a_listener_names_the_cluster_where_nothing_else_does() {
        let (c1, c2) = ("c1".parse().unwrap(), "c2".parse().unwrap());
        let naming = |proxy_user, host| Naming { proxy_user, listener: Some(&c1), host, port: 10250 };
        for host in ["10.0.0.7", "node-1", "web.ns.svc"] {
            let target = Target::Tcp { host: host.into(), port: 10250 };
            assert_eq!(route(naming(None, host), DOMAIN), Ok(Route { cluster: c1.clone(), target }));
        }
        let two = Err(RouteError::TwoClusters { one: c2, other: c1.clone() });
        assert_eq!(route(naming(Some("c2"), "10.0.0.7"), DOMAIN), two);
        assert!(route(naming(None, "web.c2.clusters.internal"), DOMAIN).is_err());
    }

    #[test]
    fn naming_two_clusters_is_refused() {
        let error = routed(Some("c1"), "web.c2.clusters.internal", 80).unwrap_err();
        assert!(matches!(error, RouteError::TwoClusters { .. }));
    }

    #[test]
    fn bad_hosts_ports_and_users_are_refused() {
        assert_eq!(routed(Some("c1"), "", 80), Err(RouteError::EmptyHost));
        assert_eq!(routed(Some("c1"), "web", 0), Err(RouteError::BadPort));
        assert_eq!(routed(Some("C 1"), "web", 80), Err(RouteError::BadProxyUser));
        let long = "a".repeat(254);
        for host in [".", "a..b", "-\u{e9}", "a b", "a/b", "a\r\nb", "[web]", "[::1", long.as_str()] {
            assert_eq!(routed(Some("c1"), host, 80), Err(RouteError::BadHost), "{host:?}");
        }
    }

    proptest! {
        #[test]
        fn no_input_panics_and_no_route_leaves_the_named_cluster(
            user in prop::option::of("[a-c.]{1,3}"), host in "\\PC{0,40}|[a-c]{1,2}(\\.[a-c]{1,2}){0,2}(\\.clusters\\.internal)?", port: u16
        ) {
            if let Ok(route) = route(Naming { proxy_user: user.as_deref(), listener: None, host: &host, port }, DOMAIN) {
                match user {
                    Some(user) => prop_assert_eq!(route.cluster.as_ref(), user),
                    None => {
                        let name = host.to_ascii_lowercase();
                        let name = name.trim_end_matches('.');
                        let name = name.strip_suffix(".clusters.internal").unwrap_or(name);
                        prop_assert_eq!(Some(route.cluster.as_ref()), name.rsplit('.').next());
                    }
                }
            }
        }
    }
}
