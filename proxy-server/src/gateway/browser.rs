//! What a page in a browser may ask of the hub. A browser shows its user's certificate for whoever asks it to, and a page from
//! anywhere, from a spoke's service too, must not act with it.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header, uri::Authority};
use registry::is_user_token;

use crate::{config::ServiceUrls, proxy::caller::Credentials};

/// What a browser says of a request's page; no script can set or remove it (Fetch Metadata). Handshakes of WebSockets are
/// without, and have an `Origin` always.
const SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// How a browser asks for the script of a service worker.
const SERVICE_WORKER: HeaderName = HeaderName::from_static("service-worker");

/// The rule, with the hub's names.
#[derive(Debug)]
pub(crate) struct Browsers {
    /// As in the hub's certificate, lower case; one may begin with `*.`.
    names: Vec<String>,
    services: ServiceUrls,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// The hub's own API, or a cluster's Kubernetes API.
    Api,
    /// A service by its URL, below this path.
    Service(&'a str),
}

/// Why a request is not for its page to make.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PageError {
    /// A page whose name was made to lead here asks for what it takes for its own (DNS rebinding).
    #[error(
        "the hub does not know itself as {0:?}; ask it by a name of its certificate, or add this one with --api-name"
    )]
    Host(String),
    #[error(
        "a page in a browser may not ask this of the hub; open the address by itself, or send no Origin (a token as Bearer \
         may come with one)"
    )]
    Api,
    #[error("a page of another site may not ask this of a service; open its address by itself")]
    Foreign,
    #[error("services are not for browsers on this hub (--service-urls); use 'cluster-proxy port-forward'")]
    Services,
    #[error("a service worker's script must lie below the service's own path")]
    Worker,
}

impl PageError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Host(_) => StatusCode::MISDIRECTED_REQUEST,
            Self::Api | Self::Foreign | Self::Services | Self::Worker => StatusCode::FORBIDDEN,
        }
    }
}

impl Browsers {
    /// The rule of a hub with these names.
    pub(crate) fn new(names: Vec<String>, services: ServiceUrls) -> Self {
        Self { names: names.into_iter().map(|name| name.to_ascii_lowercase()).collect(), services }
    }

    /// Refuses what a page may not ask.
    pub(crate) fn admit<B>(&self, request: &Request<B>, asked: Asked<'_>) -> Result<(), PageError> {
        let headers = request.headers();
        self.check_name(request)?;
        // No browser adds a token by itself as it adds a certificate, and a page that has one needs no browser.
        if shows_token(headers) {
            return Ok(());
        }
        let site = headers.get(SITE).map(HeaderValue::as_bytes);
        let has_origin = headers.contains_key(header::ORIGIN);
        let Asked::Service(prefix) = asked else {
            return if has_origin || !matches!(site, None | Some(b"none")) { Err(PageError::Api) } else { Ok(()) };
        };
        if self.services == ServiceUrls::NoBrowsers && (has_origin || site.is_some()) {
            return Err(PageError::Services);
        }
        // A form of a page that tells no referrer has the origin "null"; that it is the same site's only the browser can say.
        let of_nobody = |origin: &HeaderValue| origin == "null" && site.is_some_and(|site| site == b"same-origin");
        let is_own = |origin: &HeaderValue| {
            of_nobody(origin) || host(request).is_some_and(|host| is_origin_of(origin.as_bytes(), &host))
        };
        if !headers.get_all(header::ORIGIN).iter().all(is_own) {
            return Err(PageError::Foreign);
        }
        if !matches!(site, None | Some(b"none" | b"same-origin")) && !is_link(request) {
            return Err(PageError::Foreign);
        }
        if headers.contains_key(SERVICE_WORKER) && !is_below(request.uri().path(), prefix) {
            return Err(PageError::Worker);
        }
        Ok(())
    }

    /// Refuses a request that calls the hub by another name.
    pub(crate) fn check_name<B>(&self, request: &Request<B>) -> Result<(), PageError> {
        match named(request).find(|name| !self.is_ours(name)) {
            Some(stranger) => Err(PageError::Host(stranger.chars().take(128).collect())),
            None => Ok(()),
        }
    }

    /// Whether the hub is asked by a name of its own. Addresses and `localhost` are nobody's to lead elsewhere.
    fn is_ours(&self, name: &str) -> bool {
        let Ok(authority) = name.parse::<Authority>() else { return false };
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let is_named = |name: &String| match name.strip_prefix("*.") {
            Some(domain) => host.split_once('.').is_some_and(|(_, rest)| rest == domain),
            None => *name == host,
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
        bare.parse::<std::net::IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.names.iter().any(is_named)
    }
}

/// The names by which a request calls the hub.
fn named<B>(request: &Request<B>) -> impl Iterator<Item = String> {
    let fields = request.headers().get_all(header::HOST).iter();
    let fields = fields.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    request.uri().authority().map(Authority::to_string).into_iter().chain(fields)
}

/// The host and port of a request's URL, as its client wrote them.
pub(crate) fn host<B>(request: &Request<B>) -> Option<String> {
    named(request).next()
}

/// Whether the page's origin is this host and port by https.
fn is_origin_of(origin: &[u8], host: &str) -> bool {
    let without_default = |text: &str| text.strip_suffix(":443").unwrap_or(text).to_ascii_lowercase();
    let origin = std::str::from_utf8(origin).ok().and_then(|origin| origin.strip_prefix("https://"));
    origin.is_some_and(|origin| without_default(origin) == without_default(host))
}

/// A link that the user has followed to a page of its own.
fn is_link<B>(request: &Request<B>) -> bool {
    let said = |name: HeaderName| request.headers().get(name).map(HeaderValue::as_bytes);
    request.method() == Method::GET && said(MODE) == Some(b"navigate") && matches!(said(DEST), None | Some(b"document"))
}

fn is_below(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a token of the hub's users is shown as `Bearer`: then that alone says who asks.
fn shows_token(headers: &HeaderMap) -> bool {
    let value = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let is_bearer = value.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer "));
    is_bearer && Credentials::parse(value).is_ok_and(|shown| shown.token().is_some_and(is_user_token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/clusters/c1/services/mon/web:80";

    fn browsers() -> Browsers {
        Browsers::new(["Hub.example", "*.clusters.internal"].map(str::to_owned).into(), ServiceUrls::All)
    }

    fn request(method: &Method, path: &str, fields: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn service(method: &Method, fields: &[(&str, &str)]) -> Result<(), PageError> {
        let request = request(method, &format!("{PREFIX}/x"), &[&[("host", "hub.example:8443")], fields].concat());
        browsers().admit(&request, Asked::Service(PREFIX))
    }

    #[test]
    fn the_hub_is_asked_by_its_names_and_by_addresses() {
        for name in
            ["hub.example", "HUB.example.:8443", "10.9.9.9:1", "[::1]:8443", "localhost:1", "a.clusters.internal"]
        {
            assert!(browsers().is_ours(name), "{name}");
        }
        for name in
            ["evil.example", "hub.example.evil.example", "a.b.clusters.internal", "", "127.1", "clusters.internal"]
        {
            assert!(!browsers().is_ours(name), "{name}");
        }
        let by_both = request(&Method::GET, "https://hub.example/version", &[("host", "evil.example")]);
        assert_eq!(browsers().admit(&by_both, Asked::Api), Err(PageError::Host("evil.example".into())));
        assert_eq!(browsers().admit(&request(&Method::GET, "/version", &[]), Asked::Api), Ok(()));
    }

    #[test]
    fn no_page_asks_the_api() {
        let ask = |fields: &[(&str, &str)]| browsers().admit(&request(&Method::GET, "/c1/api", fields), Asked::Api);
        for origin in ["https://evil.example", "null", "", "https://hub.example"] {
            assert_eq!(ask(&[("host", "hub.example"), ("origin", origin)]), Err(PageError::Api), "{origin}");
        }
        for site in ["same-origin", "same-site", "cross-site", "other"] {
            assert_eq!(ask(&[("sec-fetch-site", site), ("sec-fetch-mode", "navigate")]), Err(PageError::Api), "{site}");
        }
        assert_eq!(ask(&[("sec-fetch-site", "none")]), Ok(()));
        for (shown, may) in [
            ("Bearer cpu-abc-def", true),
            ("bearer cpu-abc-def", true),
            ("Bearer of.the.spoke", false),
            ("Basic eDpjcHUtYWJjLWRlZg==", false),
        ] {
            let asked = ask(&[("origin", "https://hub.example"), ("authorization", shown)]);
            assert_eq!(asked.is_ok(), may, "{shown}");
        }
    }

    #[test]
    fn a_service_is_asked_by_pages_of_the_hubs_origin() {
        for (origin, own) in [
            ("https://hub.example:8443", true),
            ("https://HUB.example:8443", true),
            ("http://hub.example:8443", false),
            ("https://hub.example", false),
            ("https://hub.example:8444", false),
            ("https://evil.example", false),
            ("null", false),
        ] {
            assert_eq!(service(&Method::POST, &[("origin", origin)]).is_ok(), own, "{origin}");
        }
        // A page of no-referrer sends its own forms so.
        for (site, own) in [("same-origin", true), ("same-site", false), ("cross-site", false), ("none", false)] {
            let form = [("origin", "null"), ("sec-fetch-site", site), ("sec-fetch-mode", "navigate")];
            assert_eq!(service(&Method::POST, &form).is_ok(), own, "null, {site}");
        }
        let twice = [("origin", "https://hub.example:8443"), ("origin", "https://evil.example")];
        assert_eq!(service(&Method::POST, &twice), Err(PageError::Foreign));
        let default = [("host", "hub.example"), ("origin", "https://hub.example:443")];
        assert_eq!(browsers().admit(&request(&Method::POST, "/", &default), Asked::Service("")), Ok(()));
    }

    #[test]
    fn other_sites_lead_to_a_service_by_links_alone() {
        let from = |method: &Method, mode, dest| {
            service(method, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", mode), ("sec-fetch-dest", dest)])
        };
        assert_eq!(from(&Method::GET, "navigate", "document"), Ok(()));
        for (method, mode, dest) in [
            (Method::GET, "navigate", "iframe"),
            (Method::GET, "no-cors", "image"),
            (Method::GET, "cors", "empty"),
            (Method::POST, "navigate", "document"),
        ] {
            assert_eq!(from(&method, mode, dest), Err(PageError::Foreign), "{method} {mode} {dest}");
        }
    }

    #[test]
    fn a_service_workers_script_lies_below_its_service() {
        let script = |path: &str| {
            let request = request(&Method::GET, path, &[("service-worker", "script")]);
            browsers().admit(&request, Asked::Service(PREFIX))
        };
        assert_eq!(script(&format!("{PREFIX}/a/worker.js")), Ok(()));
        // Its folder, which is what it may serve, would be that of all services of the namespace.
        assert_eq!(script(PREFIX), Err(PageError::Worker));
    }

    #[test]
    fn a_setting_keeps_browsers_from_services() {
        let browsers = Browsers::new(Vec::new(), ServiceUrls::NoBrowsers);
        let ask = |fields: &[(&str, &str)]| browsers.admit(&request(&Method::GET, "/", fields), Asked::Service(""));
        assert_eq!(ask(&[("sec-fetch-site", "none"), ("sec-fetch-mode", "navigate")]), Err(PageError::Services));
        assert_eq!(ask(&[("host", "10.0.0.1"), ("origin", "https://10.0.0.1")]), Err(PageError::Services));
        assert_eq!(ask(&[("host", "10.0.0.1")]), Ok(()));
    }
}
