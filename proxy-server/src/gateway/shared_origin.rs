//! The origin that all services have in common in a browser: what a service's answer says for all of it is taken out, what it
//! says of paths is kept below its own, and no other site may show it in a frame.

use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode,
    header::{self, CONTENT_LOCATION, LOCATION, REFRESH},
};

use super::{
    cookie,
    path::{self, ParsedPath, PathTarget},
};

/// What holds for an origin, and longer than for the page that said it; and what lets other origins in.
const ORIGIN_WIDE: [&str; 21] = [
    "accept-ch",
    "activate-storage-access",
    "alt-svc",
    "clear-site-data",
    "critical-ch",
    "expect-ct",
    "nel",
    "observe-browsing-topics",
    "origin-agent-cluster",
    "public-key-pins",
    "public-key-pins-report-only",
    "report-to",
    "reporting-endpoints",
    "sec-session-registration",
    "secure-session-registration",
    "service-worker-allowed",
    "set-cookie2",
    "set-login",
    "strict-transport-security",
    "timing-allow-origin",
    "use-as-dictionary",
];
const ORIGIN_WIDE_BEGINNINGS: [&str; 2] = ["access-control-", "attribution-reporting-"];

/// Where in the origin an answer comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// The path below which all is the service's own.
    pub(super) prefix: &'a str,
    /// What was asked for below it.
    pub(super) rest: &'a str,
    /// The hosts that the service may call itself, with their ports: as it was asked, and as the spoke knows it.
    pub(super) hosts: [&'a str; 2],
}

/// What a browser may make of an answer that it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// A page of a service's, with its scripts.
    Live,
    /// Text: a cluster's API has no pages, and what it hands on of pods (`…/proxy/`) must be none of the hub's.
    Inert,
}

/// Confines an answer to its place.
pub(super) fn confine<B>(response: &mut Response<B>, place: Place<'_>, page: Page) {
    let status = response.status();
    let headers = response.headers_mut();
    let is_wide = |name: &HeaderName| {
        ORIGIN_WIDE.contains(&name.as_str())
            || ORIGIN_WIDE_BEGINNINGS.iter().any(|begin| name.as_str().starts_with(begin))
    };
    let wide: Vec<HeaderName> = headers.keys().filter(|name| is_wide(name)).cloned().collect();
    for name in wide {
        headers.remove(name);
    }
    cookie::keep_below(headers, place.prefix, place.rest);
    for name in [LOCATION, CONTENT_LOCATION] {
        let moved = headers.get(&name).and_then(|value| place.below(value.to_str().ok()?));
        if let Some(moved) = moved.and_then(|moved| HeaderValue::try_from(moved).ok()) {
            headers.insert(name, moved);
        }
    }
    let refresh = headers.get(REFRESH).and_then(|value| place.refreshed(value.to_str().ok()?));
    if let Some(refresh) = refresh.and_then(|refresh| HeaderValue::try_from(refresh).ok()) {
        headers.insert(REFRESH, refresh);
    }
    forbid_frames(status, headers, page);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// Policies add up, so that a service's own stay as strict as they are. One of this kind has browsers pass over
/// `X-Frame-Options`, and takes its refusal over.
fn forbid_frames(status: StatusCode, headers: &mut HeaderMap, page: Page) {
    let options = headers.get_all(header::X_FRAME_OPTIONS);
    let none = options.iter().any(|value| value.as_bytes().to_ascii_lowercase().windows(4).any(|word| word == b"deny"));
    let policy = match page {
        Page::Live if none => "frame-ancestors 'none'",
        Page::Live => "frame-ancestors 'self'",
        Page::Inert => "sandbox; frame-ancestors 'none'",
    };
    headers.entry(header::X_FRAME_OPTIONS).or_insert(HeaderValue::from_static("SAMEORIGIN"));
    // That answer's policies would replace those of the one that the browser has kept.
    if status != StatusCode::NOT_MODIFIED {
        headers.append(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    }
}

impl Place<'_> {
    /// A reference to a path of the service's own, as one of the hub; `None` where it can stay as it is.
    fn below(&self, reference: &str) -> Option<String> {
        let path = self.own_path(reference)?;
        // One who knows of the prefix has said it, or means another service.
        if matches!(path::parse(path), Some(Ok(ParsedPath { to: PathTarget::Service(_), .. }))) {
            return Some(path.to_owned());
        }
        Some(format!("{}{}{path}", self.prefix, if path.starts_with('/') { "" } else { "/" }))
    }

    /// The path, query and fragment of a reference that names no other host.
    fn own_path<'r>(&self, reference: &'r str) -> Option<&'r str> {
        let scheme = reference.find("//").map(|end| reference[..end].to_ascii_lowercase());
        match scheme.as_deref() {
            Some("" | "http:" | "https:") => {
                let (_, rest) = reference.split_once("//")?;
                let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
                self.hosts.iter().any(|own| is_same_host(own, host)).then_some(path)
            }
            _ => reference.starts_with('/').then_some(reference),
        }
    }

    /// `SECONDS;url=REFERENCE`.
    fn refreshed(&self, value: &str) -> Option<String> {
        let at = value.to_ascii_lowercase().find("url=")? + "url=".len();
        let reference = value[at..].trim().trim_matches(['"', '\'']);
        Some(format!("{}{}", &value[..at], self.below(reference)?))
    }
}

/// Whether they are the same but for a port that need not be written.
fn is_same_host(one: &str, other: &str) -> bool {
    let bare = |host: &str| {
        let host = host.to_ascii_lowercase();
        [":443", ":80"].iter().find_map(|port| host.strip_suffix(port).map(str::to_owned)).unwrap_or(host)
    };
    bare(one) == bare(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/clusters/c1/services/mon/web:80";
    const PLACE: Place<'_> = Place { prefix: PREFIX, rest: "/a/b?c", hosts: ["hub.example:8443", "web.mon.svc:80"] };

    fn confined(status: u16, fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        *response.headers_mut() = headers;
        confine(&mut response, PLACE, Page::Live);
        response.headers().clone()
    }

    fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn references_stay_below_the_service_and_others_are_let_be() {
        for (reference, below) in [
            ("/login?x", Some("/clusters/c1/services/mon/web:80/login?x")),
            ("https://HUB.example:8443/login", Some("/clusters/c1/services/mon/web:80/login")),
            ("http://hub.example:8443", Some("/clusters/c1/services/mon/web:80/")),
            ("//hub.example:8443?q", Some("/clusters/c1/services/mon/web:80/?q")),
            ("http://web.mon.svc/#top", Some("/clusters/c1/services/mon/web:80/#top")),
            ("/clusters/c1/services/mon/web:80/x", Some("/clusters/c1/services/mon/web:80/x")),
            ("https://hub.example:8443/clusters/c2/services/a/b:1/", Some("/clusters/c2/services/a/b:1/")),
            ("/?next=//evil.example", Some("/clusters/c1/services/mon/web:80/?next=//evil.example")),
            ("next", None),
            ("?page=2", None),
            ("//evil.example/x", None),
            ("https://sso.example/auth?to=https://hub.example:8443/", None),
            ("https://hub.example.evil.example/", None),
        ] {
            assert_eq!(PLACE.below(reference).as_deref(), below, "{reference}");
        }
        let headers = confined(302, &[("location", "/x"), ("content-location", "/y"), ("refresh", "3; URL='/z'")]);
        assert_eq!(headers["location"], format!("{PREFIX}/x"));
        assert_eq!(headers["content-location"], format!("{PREFIX}/y"));
        assert_eq!(headers["refresh"], format!("3; URL={PREFIX}/z"));
    }

    #[test]
    fn what_holds_for_the_origin_is_taken_out() {
        let headers = confined(
            200,
            &[
                ("service-worker-allowed", "/"),
                ("clear-site-data", "\"*\""),
                ("strict-transport-security", "max-age=1"),
                ("access-control-allow-origin", "*"),
                ("access-control-allow-credentials", "true"),
                ("alt-svc", "h3=\":443\""),
                ("etag", "x"),
            ],
        );
        let left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["etag", "x-frame-options", "content-security-policy", "x-content-type-options"]);
    }

    #[test]
    fn no_other_site_shows_it_in_a_frame_and_a_stricter_word_stays() {
        let plain = confined(200, &[]);
        assert_eq!(all(&plain, "content-security-policy"), ["frame-ancestors 'self'"]);
        assert_eq!(all(&plain, "x-frame-options"), ["SAMEORIGIN"]);
        let strict = confined(200, &[("x-frame-options", "Deny"), ("content-security-policy", "default-src 'none'")]);
        assert_eq!(all(&strict, "content-security-policy"), ["default-src 'none'", "frame-ancestors 'none'"]);
        assert_eq!(all(&strict, "x-frame-options"), ["Deny"]);
        assert!(all(&confined(304, &[]), "content-security-policy").is_empty());
    }
}
