//! Absolute-form requests: the target is the host that the URI names and the `Host` it is sent, and no field of one hop passes.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use proxy_server::fuzzing::forwarded;

use crate::cost::{bounded, grown, repeated};

/// Fields of one hop (RFC 9110 section 7.6.1), and those that the hub sets itself.
const NOT_PASSED: [&str; 10] = [
    "connection",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "via",
];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = [
        "GET http://web.c1.clusters.internal:8080/a%2Fb?q HTTP/1.1\r\nHost: other\r\nProxy-Authorization: Bearer t\r\n\r\n",
        "GET http://user:pass@10.0.0.1/ HTTP/1.1\r\nConnection: close, x-own\r\nX-Own: 1\r\nA: 1\r\nA: 2\r\n\r\n",
        "GET http://h?q HTTP/1.1\r\n\r\n",
        "POST http://[fd00::1]:80/ HTTP/1.1\r\nConnection: Upgrade, Host\r\nUpgrade: websocket\r\nTE: trailers\r\n\r\n",
        "GET https://h/ HTTP/1.1\r\n\r\n",
        "GET /api HTTP/1.1\r\nHost: h\r\nVia: 1.1 other\r\n\r\n",
        "OPTIONS http://h:0080 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ]
    .map(Into::into)
    .into();
    seeds.push(repeated("GET http://h/ HTTP/1.1\r\nConnection: ", "a,", "\r\n\r\n"));
    seeds.push(repeated("GET http://", "a@", "h/ HTTP/1.1\r\n\r\n"));
    seeds
}

pub(crate) fn check(input: &[u8]) {
    let input = grown(input);
    let Some(request) = request(&input) else { return };
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let (uri, came) = (request.uri().clone(), request.headers().clone());
    let Ok(((host, port), sent)) = bounded(input.len(), || forwarded(request, upgrade)) else { return };
    assert_eq!((uri.scheme_str(), uri.host()), (Some("http"), Some(host.as_str())));
    assert_eq!(uri.port_u16().unwrap_or(80), port, "{uri}");
    assert!(sent.uri().scheme().is_none() && sent.uri().authority().is_none(), "{} is no path", sent.uri());
    assert_eq!((sent.uri().path(), sent.uri().query()), (uri.path(), uri.query()));
    let headers = sent.headers();
    let named = one(headers, &header::HOST);
    let said = named.strip_prefix(host.as_str()).expect("Host is the host that is dialled");
    assert!(
        said.is_empty()
            || said.strip_prefix(':').is_some_and(|port| port.is_empty() || port.parse() == Ok(port_of(&uri)))
    );
    let expected = if upgrade { "upgrade" } else { "close" };
    assert_eq!(one(headers, &header::CONNECTION), expected);
    assert_eq!(headers.contains_key(header::UPGRADE), upgrade);
    passed(&came, headers);
}

/// What concerns one hop does not go on, and all else does as it came.
fn passed(came: &HeaderMap, sent: &HeaderMap) {
    let listed = came.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let listed: Vec<HeaderName> =
        listed.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
    for name in came.keys().chain(&listed).filter(|name| !NOT_PASSED.contains(&name.as_str())) {
        let values = |headers: &HeaderMap| headers.get_all(name).iter().cloned().collect::<Vec<HeaderValue>>();
        let expected = if listed.contains(name) { Vec::new() } else { values(came) };
        assert_eq!(values(sent), expected, "{name}");
    }
    let own = ["connection", "host", "upgrade", "via"];
    let passes = |name: &HeaderName| came.contains_key(name) || own.contains(&name.as_str());
    assert!(sent.keys().all(passes), "made up: {sent:?}");
    let kept = NOT_PASSED.iter().filter(|name| !own.contains(name)).find(|name| sent.contains_key(**name));
    assert_eq!(kept, None);
}

fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(80)
}

fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let all: Vec<_> = headers.get_all(name).iter().collect();
    assert_eq!(all.len(), 1, "{name}: {all:?}");
    all[0].to_str().expect("what the hub says is text")
}

/// A request as hyper makes one of a head.
fn request(head: &[u8]) -> Option<Request<()>> {
    let mut fields = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Request::new(&mut fields);
    parsed.parse(head).ok()?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = parsed.path?.parse().ok()?;
    for field in parsed.headers.iter() {
        request
            .headers_mut()
            .append(HeaderName::from_bytes(field.name.as_bytes()).ok()?, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some(request)
}
