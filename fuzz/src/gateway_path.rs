//! The gateway's paths: whoever reads the part that names the cluster, decoded or not, reads the same; the rest stays as it was.

use http::Uri;
use proxy_server::fuzzing::{Way, gateway_path};

use crate::cost::{bounded, grown, repeated};

/// First segments that are the hub's own.
const OWN: [&str; 12] =
    ["", "api", "apis", "clusters", "healthz", "livez", "metrics", "openapi", "prometheus", "readyz", "v1", "version"];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "/clusters/c1/api/v1/namespaces/a%2Fb/pods/x%20y?watch=1",
        "/clusters/c1/../c2/api",
        "/clusters/c1/%2e%2e/c2/api/..;/%2F..%5c",
        "/c1//c2/api",
        "/clusters/c1/services/mon/https:web:443/x?y#z",
        "/c1/services/mon/http:web:8080?q",
        "/c1/api/v1/namespaces/mon/services/web:443/proxy-service/a?b=c",
        "/clusters/c1/clusters/c2/services/n/s:1",
        "/v1/status",
    ]
    .map(Into::into)
    .into();
    seeds.push(repeated("/clusters/c1", "/..", "/c2"));
    seeds
}

pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    // As hyper reads a request-target.
    let Ok(uri) = Uri::try_from(&*input) else { return };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let first = path.strip_prefix('/').unwrap_or_default().split(['/', '?']).next().unwrap_or_default();
    match bounded(path.len(), || gateway_path(path)) {
        None => assert!(OWN.contains(&first) || first.parse::<certs::ClusterName>().is_err(), "{path} is a cluster's"),
        Some(Err(sentence)) => assert!(sentence.len() <= 400 + 4 * path.len()),
        Some(Ok(way)) => {
            assert!(first == "clusters" || !OWN.contains(&first), "{path} is the hub's own");
            leads(path, &way);
        }
    }
}

fn leads(path: &str, way: &Way) {
    let Way { cluster, service, rest, prefix } = way;
    let segments: Vec<&str> = prefix.split('/').collect();
    assert_eq!(if segments[1] == "clusters" { segments[2] } else { segments[1] }, cluster);
    // What has neither '%' nor '.' nor an empty segment is the same to every reader, also to one that decodes and cleans it.
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-:".contains(&byte);
    assert!(segments[1..].iter().all(|segment| !segment.is_empty() && segment.bytes().all(plain)), "{prefix}");
    assert!(path == format!("{prefix}{rest}") || path == format!("{prefix}{}", &rest[1..]), "{prefix} and {rest}");
    if let Some((namespace, name, port, _)) = service {
        let shown = format!("{name}:{port}");
        assert!(segments.contains(&namespace.as_str()) && prefix.contains(name), "{prefix} names {namespace}/{shown}");
        assert_ne!(*port, 0);
    }
    // It is sent on as a path, whatever it looks like, and nothing is lost of it.
    let sent: Uri = rest.parse().expect("what was a path is a path");
    assert!(sent.scheme().is_none() && sent.authority().is_none(), "{rest} names a host");
    assert_eq!(sent.path_and_query().map(|path| path.as_str()), Some(rest.as_str()));
    // Neither the query nor what follows decides.
    for shorter in [path.split('?').next().unwrap_or_default(), prefix] {
        let Some(Ok(same)) = gateway_path(shorter) else { panic!("{shorter} leads nowhere, and {path} does") };
        assert_eq!((&same.cluster, &same.service, &same.prefix), (cluster, service, prefix), "{shorter}");
    }
}
