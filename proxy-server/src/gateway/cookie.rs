//! Services' cookies: kept below the service's path, so that none goes to another service or another cluster.

use http::{HeaderMap, HeaderValue, header};

/// Cookies of such names must be the whole host's, which is not a service's to give. They are kept under another name.
const WHOLE_HOST: &[u8] = b"__Host-";
const RENAMED: &[u8] = b"__Secure-";

/// The longest value of an attribute that browsers read (RFC 6265bis section 5.6); a longer path would be none.
const LONGEST: usize = 1024;

/// Keeps what an answer to a request for `rest` sets below `prefix`.
pub(super) fn keep_below(headers: &mut HeaderMap, prefix: &str, rest: &str) {
    if !headers.contains_key(header::SET_COOKIE) {
        return;
    }
    let cookies: Vec<_> = headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies {
        if let Ok(kept) = HeaderValue::from_bytes(&kept(cookie.as_bytes(), prefix, rest)) {
            headers.append(header::SET_COOKIE, kept);
        }
    }
}

/// Gives the cookies of a request the names that the service knows, in one field: HTTP/2's clients may split it.
pub(super) fn give_back(headers: &mut HeaderMap) {
    let is_renamed = |cookie: &[u8]| cookie.strip_prefix(RENAMED).is_some_and(is_whole_hosts);
    let fields = headers.get_all(header::COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let cookies = fields.map(<[u8]>::trim_ascii).filter(|cookie| !cookie.is_empty());
    let named = cookies.map(|cookie| if is_renamed(cookie) { &cookie[RENAMED.len()..] } else { cookie });
    let joined = named.collect::<Vec<_>>().join(&b"; "[..]);
    headers.remove(header::COOKIE);
    if let Some(joined) = HeaderValue::from_bytes(&joined).ok().filter(|joined| !joined.is_empty()) {
        headers.insert(header::COOKIE, joined);
    }
}

fn kept(cookie: &[u8], prefix: &str, rest: &str) -> Vec<u8> {
    let mut parts = cookie.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let mut kept = Vec::with_capacity(cookie.len() + prefix.len() + 16);
    let pair = parts.next().unwrap_or_default();
    if is_whole_hosts(pair) {
        kept.extend_from_slice(RENAMED);
    }
    kept.extend_from_slice(pair);
    let mut path = None;
    for attribute in parts {
        let (name, value) = match attribute.iter().position(|byte| *byte == b'=') {
            Some(at) => (attribute[..at].trim_ascii(), attribute[at + 1..].trim_ascii()),
            None => (attribute, &b""[..]),
        };
        if name.eq_ignore_ascii_case(b"path") {
            path = Some(value);
        } else if !name.eq_ignore_ascii_case(b"domain") {
            kept.extend_from_slice(b"; ");
            kept.extend_from_slice(attribute);
        }
    }
    kept.extend_from_slice(b"; Path=");
    kept.extend_from_slice(&below(path.filter(|path| path.starts_with(b"/")), prefix, rest));
    kept
}

/// The path of a cookie that has said this one: without one, it is the folder of what was asked for (RFC 6265 section 5.1.4).
fn below(path: Option<&[u8]>, prefix: &str, rest: &str) -> Vec<u8> {
    let prefix = prefix.as_bytes();
    let path = path.unwrap_or_else(|| {
        let path = rest.split('?').next().unwrap_or_default();
        &path.as_bytes()[..path.rfind('/').unwrap_or_default()]
    });
    // One who knows of the prefix has said it.
    let own = path.strip_prefix(prefix).filter(|own| own.is_empty() || own.starts_with(b"/")).unwrap_or(path);
    let own = if own == b"/" || prefix.len() + own.len() > LONGEST { b"" } else { own };
    [prefix, own].concat()
}

fn is_whole_hosts(cookie: &[u8]) -> bool {
    cookie.get(..WHOLE_HOST.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(WHOLE_HOST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PREFIX: &str = "/clusters/c1/services/mon/web:80";

    fn set(cookie: &str) -> String {
        String::from_utf8(kept(cookie.as_bytes(), PREFIX, "/a/b?c/d")).unwrap()
    }

    #[test]
    fn a_cookie_stays_below_the_service_that_sets_it() {
        for (said, path) in [
            ("s=1; Path=/", ""),
            ("s=1; path=/x/", "/x/"),
            ("s=1", "/a"),
            ("s=1; Path=", "/a"),
            ("s=1; Path=x", "/a"),
            ("s=1; Path=/x; Path=/y", "/y"),
            ("s=1; Domain=hub.example; PATH = /z", "/z"),
            ("s=1; Path=/clusters/c1/services/mon/web:80/x", "/x"),
            ("s=1; Path=/clusters/c1/services/mon/web:8", "/clusters/c1/services/mon/web:8"),
        ] {
            assert_eq!(set(said), format!("s=1; Path={PREFIX}{path}"), "{said}");
        }
        assert_eq!(
            set("s=1; HttpOnly;Secure ; Max-Age=5"),
            format!("s=1; HttpOnly; Secure; Max-Age=5; Path={PREFIX}/a")
        );
        assert_eq!(set(&format!("s=1; Path=/{}", "x".repeat(LONGEST))), format!("s=1; Path={PREFIX}"));
    }

    #[test]
    fn one_of_the_whole_host_has_another_name_in_the_browser() {
        assert_eq!(set("__Host-s=1; Secure; Path=/"), format!("__Secure-__Host-s=1; Secure; Path={PREFIX}"));
        assert_eq!(set("__HOST-s=1; Secure; Path=/"), format!("__Secure-__HOST-s=1; Secure; Path={PREFIX}"));
        let mut headers = HeaderMap::new();
        for cookies in ["a=1; __Secure-__Host-s=2;b=3", "__Secure-c=4", "a=__Secure-__Host-"] {
            headers.append(header::COOKIE, HeaderValue::from_static(cookies));
        }
        give_back(&mut headers);
        let given: Vec<_> = headers.get_all(header::COOKIE).iter().collect();
        assert_eq!(given, ["a=1; __Host-s=2; b=3; __Secure-c=4; a=__Secure-__Host-"]);
    }

    proptest! {
        /// As browsers read it (RFC 6265 section 5.2): the last `Path` counts, and what has a `Domain` is for others too.
        #[test]
        fn whatever_is_set_stays_below(cookie in "[a-z_=]{0,5}(;[ \t]{0,2}([Pp]ath|[Dd]omain|[A-Z]{1,3})[ \t]{0,2}=?[ \t]{0,2}[/a-z.%\"]{0,8}){0,5}") {
            let kept = set(&cookie);
            let attributes = kept.split(';').skip(1).map(|part| part.split_once('=').unwrap_or((part, "")));
            let attributes: Vec<_> = attributes.map(|(name, value)| (name.trim().to_lowercase(), value.trim())).collect();
            prop_assert!(attributes.iter().all(|(name, _)| name != "domain"));
            let paths: Vec<_> = attributes.iter().filter(|(name, _)| name == "path").map(|(_, value)| *value).collect();
            prop_assert!(paths.len() == 1 && (paths[0] == PREFIX || paths[0].starts_with(&format!("{PREFIX}/"))), "{kept}");
        }
    }
}
