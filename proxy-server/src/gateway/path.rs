//! Which cluster and what in it a URL's path means. One pure function.

use certs::ClusterName;

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ParsedPath {
    pub(super) cluster: ClusterName,
    pub(super) to: PathTarget,
    /// Path and query as the target is to see them: what the client sent, percent-escapes and all.
    pub(super) rest: String,
    /// The part of the path that the target does not see.
    pub(super) prefix: String,
}

/// What is meant inside the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PathTarget {
    KubeApi,
    Service(Service),
}

/// A service by its Kubernetes name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

/// Why a path that begins like ours leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PathError {
    #[error("{0:?} is no cluster's name; the path is /clusters/<name>/…")]
    Cluster(String),
    #[error("{0:?} is no service; write [http:|https:]<service>:<port>, the port as a number from 1 to 65535")]
    Service(String),
    #[error("{0:?} is no namespace; the path is /clusters/<name>/services/<namespace>/<service>:<port>/…")]
    Namespace(String),
}

/// Where the hub's own paths begin, so that no cluster of such a name is meant by Open Cluster Management's short form.
const OWN: [&str; 11] =
    ["", "api", "apis", "clusters", "healthz", "livez", "metrics", "openapi", "prometheus", "readyz", "version"];

/// What `path` (with its query) means; `None` for the hub's own paths.
///
/// | path | means |
/// |---|---|
/// | `/clusters/<c>/<path>`, `/<c>/<path>` (OCM's user-server) | the cluster's Kubernetes API |
/// | `/clusters/<c>/services/<ns>/[http:\|https:]<svc>:<port>/<path>` | a service |
/// | `…/api/v1/namespaces/<ns>/services/[http:\|https:]<svc>:<port>/proxy-service/<path>` | the same in OCM's form, where `https` is the default |
pub(super) fn parse(path: &str) -> Option<Result<ParsedPath, PathError>> {
    let (first, after) = segment(path.strip_prefix('/')?);
    if first == "clusters" {
        let (name, after) = segment(after.strip_prefix('/')?);
        let cluster = name.parse().map_err(|_| PathError::Cluster(name.to_owned()));
        return Some(cluster.and_then(|cluster| within(cluster, path, after)));
    }
    // The command line's own API.
    if OWN.contains(&first) || first == "v1" {
        return None;
    }
    Some(within(first.parse().ok()?, path, after))
}

/// What `after`, the rest of `path` behind the cluster's name, means.
fn within(cluster: ClusterName, path: &str, after: &str) -> Result<ParsedPath, PathError> {
    let way = |to, rest: &str| {
        let prefix = path[..path.len() - rest.len()].to_owned();
        let rest = if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") };
        Ok(ParsedPath { cluster, to, rest, prefix })
    };
    match service(after) {
        Some((service, rest)) => way(PathTarget::Service(service?), rest),
        None => way(PathTarget::KubeApi, after),
    }
}

/// The service that a path within a cluster names, in either form, and what follows.
fn service(after: &str) -> Option<(Result<Service, PathError>, &str)> {
    if let Some(within) = after.strip_prefix("/services/") {
        let (namespace, rest) = segment(within);
        let (service, rest) = segment(rest.strip_prefix('/').unwrap_or(rest));
        return Some((named(namespace, service, false), rest));
    }
    let (namespace, rest) = segment(after.strip_prefix("/api/v1/namespaces/")?);
    let (service, rest) = segment(rest.strip_prefix("/services/")?);
    let (marker, rest) = segment(rest.strip_prefix('/')?);
    (marker == "proxy-service").then(|| (named(namespace, service, true), rest))
}

fn named(namespace: &str, text: &str, tls: bool) -> Result<Service, PathError> {
    let (tls, bare) = match text.split_once(':') {
        Some(("http", bare)) => (false, bare),
        Some(("https", bare)) => (true, bare),
        _ => (tls, text),
    };
    let service = || PathError::Service(text.to_owned());
    let (name, port) = bare.split_once(':').ok_or_else(service)?;
    // A number's sign would be taken by its parser.
    let digits = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let port = digits.and_then(|port| port.parse().ok()).filter(|port| *port != 0).ok_or_else(service)?;
    if !certs::is_dns_label(name) {
        return Err(service());
    }
    if !certs::is_dns_label(namespace) {
        return Err(PathError::Namespace(namespace.to_owned()));
    }
    Ok(Service { namespace: namespace.to_owned(), name: name.to_owned(), port, tls })
}

impl ParsedPath {
    /// Whether it is in Open Cluster Management's form for a service.
    pub(super) fn is_ocms(&self) -> bool {
        self.prefix.ends_with("/proxy-service")
    }
}

impl Service {
    /// Its name in the cluster's DNS.
    pub(super) fn host(&self) -> String {
        format!("{}.{}.svc", self.name, self.namespace)
    }
}

/// The first segment, and what follows it: nothing, or from the next `/` or `?` on.
fn segment(path: &str) -> (&str, &str) {
    path.split_at(path.find(['/', '?']).unwrap_or(path.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn kube(path: &str) -> (String, String) {
        let way = parse(path).unwrap().unwrap();
        assert_eq!(way.to, PathTarget::KubeApi, "{path}");
        (way.cluster.to_string(), way.rest)
    }

    fn service(path: &str) -> (String, u16, bool, String) {
        let way = parse(path).unwrap().unwrap();
        let PathTarget::Service(service) = way.to else { panic!("{path}") };
        (service.host(), service.port, service.tls, way.rest)
    }

    #[test]
    fn both_forms_reach_the_kubernetes_api() {
        for (path, rest) in [
            ("/clusters/c1", "/"),
            ("/clusters/c1/", "/"),
            ("/clusters/c1?a=b", "/?a=b"),
            ("/clusters/c1/api/v1/pods?watch=1", "/api/v1/pods?watch=1"),
            ("/c1/api/v1/namespaces/a%2Fb/pods/x%20y", "/api/v1/namespaces/a%2Fb/pods/x%20y"),
            ("/c1", "/"),
            ("/c1/api/v1/namespaces/ns/services/web:80/proxy/x", "/api/v1/namespaces/ns/services/web:80/proxy/x"),
            ("/clusters/c1/clusters/c2/api", "/clusters/c2/api"),
        ] {
            assert_eq!(kube(path), ("c1".into(), rest.into()), "{path}");
        }
        assert_eq!(kube("/clusters/api/version").0, "api");
    }

    #[test]
    fn services_are_named_in_two_forms() {
        let ocm = "/c1/api/v1/namespaces/mon/services";
        for (path, port, tls, rest) in [
            ("/clusters/c1/services/mon/web:80", 80, false, "/"),
            ("/clusters/c1/services/mon/web:80/", 80, false, "/"),
            ("/c1/services/mon/web:80/a%2Fb?q=%20", 80, false, "/a%2Fb?q=%20"),
            ("/clusters/c1/services/mon/https:web:443/x", 443, true, "/x"),
            ("/clusters/c1/services/mon/http:web:8080?q", 8080, false, "/?q"),
            (&format!("{ocm}/web:443/proxy-service"), 443, true, "/"),
            (&format!("{ocm}/web:443/proxy-service/"), 443, true, "/"),
            (&format!("{ocm}/http:web:80/proxy-service/a?b=c"), 80, false, "/a?b=c"),
            (&format!("/clusters{ocm}/https:web:1/proxy-service/a"), 1, true, "/a"),
        ] {
            assert_eq!(service(path), ("web.mon.svc".into(), port, tls, rest.into()), "{path}");
        }
        let way = parse("/clusters/c1/services/mon/web:80/x?y").unwrap().unwrap();
        assert_eq!((way.prefix.as_str(), way.rest.as_str()), ("/clusters/c1/services/mon/web:80", "/x?y"));
    }

    #[test]
    fn the_hubs_own_paths_are_its_own_and_bad_ones_say_why() {
        for path in
            ["/", "", "/api", "/apis/x", "/v1/status", "/healthz", "/version?x", "/clusters", "/UPPER/x", "/a_b"]
        {
            assert_eq!(parse(path), None, "{path}");
        }
        for (path, why) in [
            ("/clusters//api", "no cluster's name"),
            ("/clusters/C1/api", "no cluster's name"),
            ("/clusters/c1/services/mon/web", "no service"),
            ("/clusters/c1/services/mon/web:0", "no service"),
            ("/clusters/c1/services/mon/web:65536/", "no service"),
            ("/clusters/c1/services/mon/web:+80/", "no service"),
            ("/clusters/c1/services/mon/web.evil:80/", "no service"),
            ("/clusters/c1/services/m%2Fn/web:80/", "no namespace"),
            ("/clusters/c1/services/", "no service"),
        ] {
            let error = parse(path).unwrap().unwrap_err().to_string();
            assert!(error.contains(why), "{path}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_path_is_never_lost_or_made_up(path in "/?(clusters/)?[a-c/:?%.]{0,30}(/services/)?[a-c/:?%0-9]{0,20}") {
            if let Some(Ok(way)) = parse(&path) {
                prop_assert!(way.rest.starts_with('/'));
                let whole = [&*way.rest, &way.rest[1..]].map(|rest| format!("{}{rest}", way.prefix));
                prop_assert!(whole.contains(&path));
            }
        }
    }
}
