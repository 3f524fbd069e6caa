//! The head of a connection's first request: it ends where it ends however it arrives, and leads only to the cluster it names.

use certs::ClusterName;
use proxy_server::fuzzing::{First, credentials, first_head, host_and_port, route};

use crate::cost::{bounded, grown, repeated};

const DOMAIN: &str = "clusters.internal";

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "CONNECT c1:443 HTTP/1.1\r\nHost: c1:443\r\nProxy-Authorization: Basic YzE6dG9r\r\n\r\npayload",
        "CONNECT web.ns.svc.c1.clusters.internal:80 HTTP/1.1\r\nproxy-authorization: Bearer tok\r\n\r\n",
        "CONNECT [fd00::1]:443 HTTP/1.0\n\n",
        "GET http://web.c1.clusters.internal/ HTTP/1.1\r\nHost: x\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ]
    .map(Into::into)
    .into();
    seeds.push(repeated("CONNECT c1:1 HTTP/1.1\r\n", "a: b\r\n", "\r\n"));
    seeds.push(repeated("CONNECT ", "a.", "c1:1 HTTP/1.1\r\n\r\n"));
    seeds
}

pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    match bounded(input.len(), || first_head(&input)) {
        Err(_) => {
            assert!(first_head(&[&input, &b"\r\n\r\n"[..]].concat()).is_err(), "more bytes mend nothing");
        }
        Ok(None) => {}
        Ok(Some((length, first))) => {
            assert!(length <= input.len());
            let alone = if first == First::Http2 { &input[..24] } else { &input[..length] };
            assert_eq!(first_head(alone).as_ref(), Ok(&Some((length, first.clone()))), "what follows is not read");
            for cut in [alone.len() - 1, alone.len() / 2, usize::from(input[0]) % alone.len()] {
                assert_eq!(first_head(&alone[..cut]), Ok(None), "half a head is waited for");
            }
            if let First::Connect { authority, authorization } = first {
                let line = format!("CONNECT {authority} HTTP/1.");
                let text = String::from_utf8_lossy(alone);
                assert!(text.trim_start().starts_with(&line) && text.ends_with("\n"), "{line}");
                connect(&authority, authorization.as_deref());
            }
        }
    }
}

fn connect(authority: &str, authorization: Option<&[u8]>) {
    assert!(authority.bytes().all(|byte| byte > b' ' && byte != 0x7f), "{authority:?}");
    let user = authorization.and_then(|value| {
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)), "a field ends at its line's end");
        let (user, token) = credentials(value)?;
        assert!(token.is_none_or(|token| !token.is_empty()));
        user.inspect(|user| assert!(!user.is_empty() && !user.contains(':'), "{user:?}"))
    });
    let Some((host, port)) = host_and_port(authority) else { return };
    let digits = authority.rsplit(':').next().unwrap_or_default();
    assert_eq!(format!("{host}:{digits}"), authority);
    assert_eq!(digits.parse(), Ok(port));
    let listener: ClusterName = "c1".parse().expect("a name");
    for listener in [None, Some(&listener)] {
        for user in [None, user.as_deref()] {
            if let Some((cluster, inside)) = route(user, listener, host, port, DOMAIN) {
                assert_ne!(port, 0);
                named(&cluster, user, listener, host, inside.as_ref());
            }
        }
    }
}

/// Everything that names a cluster names this one.
fn named(
    cluster: &ClusterName,
    user: Option<&str>,
    listener: Option<&ClusterName>,
    host: &str,
    inside: Option<&(String, u16)>,
) {
    assert!(user.is_none_or(|user| user == cluster.as_ref()), "{user:?} is sent to {cluster}");
    assert!(listener.is_none_or(|listener| listener == cluster), "{listener:?} is sent to {cluster}");
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let labels = host.strip_suffix(DOMAIN).and_then(|rest| rest.strip_suffix('.'));
    match labels.map(|labels| labels.rsplit('.').next().unwrap_or_default()) {
        Some(label) if label.parse::<ClusterName>().is_ok() => assert_eq!(label, cluster.as_ref()),
        _ if user.is_none() && listener.is_none() => assert_eq!(host, cluster.as_ref()),
        _ => assert!(inside.is_some(), "a foreign name is no Kubernetes API"),
    }
    if let Some((inside, _)) = inside {
        assert!(inside.len() <= 253 && !inside.is_empty());
        assert!(inside.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte)), "{inside:?}");
        assert!(
            host.trim_matches(['[', ']']).starts_with(inside.as_str()) || inside.contains(':'),
            "{inside} of {host}"
        );
    }
}
