//! What a request's header tells the kube-apiserver about who asks: the hub's word, and nothing of the client's.

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{self, InvalidHeaderName, InvalidHeaderValue},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tunnel::Identity;

use super::groups::{GroupPattern, RESERVED, is_believed};

/// How the fields begin by which Kubernetes is told who asks: impersonation, and a front proxy's word
/// (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/>).
const IDENTITY: [&str; 2] = ["impersonate-", "x-remote-"];
const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");

/// What may stand in a field's name as it is (RFC 9110 section 5.6.2), but for `%`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Why nobody can be spoken for.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the hub did not say who asks; upgrade it")]
    NoUser,
    #[error("user {0:?} of the hub has a name that Kubernetes reserves; the spoke's agent speaks for no such user")]
    ReservedUser(String),
    #[error("the name of the user or of a group cannot be written into a header")]
    Value(#[from] InvalidHeaderValue),
    #[error("a key of the user's extra cannot be written into a header")]
    Name(#[from] InvalidHeaderName),
}

/// Makes the request one of the agent's account on behalf of `identity`. Comes last: nothing that the client named may
/// take these fields out again.
pub(super) fn impersonate(
    headers: &mut HeaderMap,
    bearer: HeaderValue,
    identity: &Identity,
    groups: &[GroupPattern],
) -> Result<(), HeaderError> {
    drop_identity(headers);
    if identity.user.is_empty() {
        return Err(HeaderError::NoUser);
    }
    if identity.user.starts_with(RESERVED) {
        return Err(HeaderError::ReservedUser(identity.user.clone()));
    }
    headers.insert(header::AUTHORIZATION, bearer);
    headers.insert(USER, HeaderValue::from_bytes(identity.user.as_bytes())?);
    for group in identity.groups.iter().filter(|group| is_believed(group, groups)) {
        headers.append(GROUP, HeaderValue::from_bytes(group.as_bytes())?);
    }
    for extra in &identity.extra {
        let key = utf8_percent_encode(&extra.key.to_ascii_lowercase(), ENCODED).to_string();
        let name = HeaderName::try_from(format!("impersonate-extra-{key}"))?;
        for value in &extra.values {
            headers.append(&name, HeaderValue::from_bytes(value.as_bytes())?);
        }
    }
    Ok(())
}

/// Takes out what the client says about who asks, but for a token of its own.
pub(super) fn drop_identity(headers: &mut HeaderMap) {
    let told: Vec<HeaderName> =
        headers.keys().filter(|name| IDENTITY.iter().any(|begin| name.as_str().starts_with(begin))).cloned().collect();
    for name in told {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use tunnel::{Extra, hop};

    use super::*;

    fn identity(groups: &[&str]) -> Identity {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let extra = vec![Extra { key: "Example.com/Scope".into(), values: vec!["a".into(), "b".into()] }];
        Identity { user: "alice".into(), groups, extra }
    }

    fn sent(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_static(value));
        }
        headers
    }

    fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
        headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn nothing_that_a_client_sends_says_who_it_is() {
        let bearer = HeaderValue::from_static("Bearer agent");
        let mut headers = sent(&[
            ("Authorization", "Bearer client"),
            ("Impersonate-User", "root"),
            ("impersonate-user", "root2"),
            ("IMPERSONATE-GROUP", "system:masters"),
            ("Impersonate-Uid", "0"),
            ("Impersonate-Extra-Scopes", "all"),
            ("X-Remote-User", "root"),
            ("X-Remote-Group", "system:masters"),
            ("Connection", "Impersonate-User, impersonate-group , Authorization, keep-alive"),
            ("Accept", "application/json"),
        ]);
        hop::strip(&mut headers, false);
        impersonate(&mut headers, bearer, &identity(&["dev", "system:masters"]), &[]).unwrap();
        assert_eq!(all(&headers, "authorization"), ["Bearer agent"]);
        assert_eq!(all(&headers, "impersonate-user"), ["alice"]);
        assert_eq!(all(&headers, "impersonate-group"), ["dev"]);
        assert_eq!(all(&headers, "impersonate-extra-example.com%2fscope"), ["a", "b"]);
        assert_eq!(all(&headers, "accept"), ["application/json"]);
        assert_eq!(headers.keys_len(), 5, "{headers:?}");
    }

    #[test]
    fn users_that_kubernetes_reserves_and_nobody_are_refused() {
        for (user, shown) in [("", "hub"), ("system:admin", "reserves"), ("a\nb", "header")] {
            let identity = Identity { user: user.into(), ..Identity::default() };
            let refused = impersonate(&mut HeaderMap::new(), HeaderValue::from_static("x"), &identity, &[]);
            assert!(refused.unwrap_err().to_string().contains(shown), "{user:?}");
        }
    }

    #[test]
    fn a_clients_own_token_is_kept_where_the_spoke_wants_it() {
        let mut headers = sent(&[("Authorization", "Bearer own"), ("Impersonate-User", "root")]);
        drop_identity(&mut headers);
        assert_eq!((all(&headers, "authorization"), headers.keys_len()), (vec!["Bearer own".into()], 1));
    }
}
