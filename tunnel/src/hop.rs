//! The fields of an HTTP message that concern one hop only (RFC 9110 section 7.6.1). Hub and agent are hops of their own.

use http::{
    HeaderMap, HeaderValue,
    header::{self, HeaderName},
};

/// Besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The fields that `Connection` names.
pub fn named(headers: &HeaderMap) -> Vec<HeaderName> {
    let listed = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    listed.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

/// Takes out what concerns one hop only; an upgrade concerns both.
pub fn strip(headers: &mut HeaderMap, upgrade: bool) {
    let protocol = headers.get(header::UPGRADE).cloned();
    for name in named(headers).iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if let Some(protocol) = protocol.filter(|_| upgrade) {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upgrade_stays_and_what_concerns_the_hop_goes() {
        let sent = [("connection", "Upgrade, X-Own"), ("upgrade", "SPDY/3.1"), ("x-own", "1"), ("te", "x"), ("a", "b")];
        let headers: HeaderMap =
            sent.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect();
        let stripped = |upgrade| {
            let mut headers = headers.clone();
            strip(&mut headers, upgrade);
            headers
        };
        assert_eq!(stripped(false).keys().collect::<Vec<_>>(), ["a"]);
        let upgraded = stripped(true);
        assert_eq!(
            (&upgraded["connection"], &upgraded["upgrade"], upgraded.len()),
            (&HeaderValue::from_static("upgrade"), &HeaderValue::from_static("SPDY/3.1"), 3)
        );
    }
}
