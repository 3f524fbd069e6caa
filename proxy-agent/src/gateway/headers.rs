//! What a request's header tells the kube-apiserver about who asks: the hub's word, and nothing of the client's.

use std::collections::BTreeSet;

use certs::is_field_text;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tunnel::Identity;

use super::groups::{GroupPattern, is_believed, is_everybodys, is_reserved};

/// How the fields begin by which Kubernetes is told who asks: impersonation, and a front proxy's word
/// (<https://kubernetes.io/docs/reference/access-authn-authz/authentication/>).
const IDENTITY: [&str; 2] = ["impersonate-", "x-remote-"];
const USER: HeaderName = HeaderName::from_static("impersonate-user");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");

/// The domain of keys by which Kubernetes tells itself of a user, like the node of a pod's account.
const KUBERNETES: &str = "kubernetes.io";

/// How much of a bad name is shown.
const SHOWN: usize = 64;

/// What may stand in a field's name as it is (RFC 9110 section 5.6.2), but for `%`.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// Why nobody can be spoken for.
#[derive(Debug, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the hub did not say who asks; upgrade it")]
    NoUser,
    #[error("user {0:?} of the hub has a name that Kubernetes reserves; the spoke's agent speaks for no such user")]
    ReservedUser(String),
    #[error(
        "the spoke's agent does not speak for a member of group {0:?}; leave it out, or name it with --gateway-groups at the agent"
    )]
    Group(String),
    #[error("{0:?} in the user's extra is a key that Kubernetes reserves; the spoke's agent hands no such key on")]
    ReservedExtra(String),
    #[error("the user's extra has the key {0:?} in large and small letters, which are one to Kubernetes")]
    ExtraTwice(String),
    #[error(
        "{0:?} cannot be the name of a user or group or a part of a user's extra: HTTP does not carry it unchanged; use \
         printable ASCII with no space at its ends"
    )]
    Changed(String),
}

impl HeaderError {
    /// The spoke does not want it, however it is written.
    pub(super) fn is_forbidden(&self) -> bool {
        matches!(self, Self::ReservedUser(_) | Self::Group(_) | Self::ReservedExtra(_))
    }
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
    let user = unchanged(&identity.user)?;
    if is_reserved(&identity.user) {
        return Err(HeaderError::ReservedUser(identity.user.clone()));
    }
    headers.insert(header::AUTHORIZATION, bearer);
    headers.insert(USER, user);
    for group in &identity.groups {
        let value = unchanged(group)?;
        if is_believed(group, groups) {
            headers.append(GROUP, value);
        } else if identity.asked && !is_everybodys(group) {
            return Err(HeaderError::Group(group.clone()));
        }
    }
    let mut keys = BTreeSet::new();
    for extra in &identity.extra {
        let key = extra.key.to_ascii_lowercase();
        let name = extra_field(&key)?;
        for value in &extra.values {
            headers.append(&name, unchanged(value)?);
        }
        if !keys.insert(key) {
            return Err(HeaderError::ExtraTwice(extra.key.clone()));
        }
    }
    Ok(())
}

/// `text` as a field's value that means `text` by every version of HTTP.
fn unchanged(text: &str) -> Result<HeaderValue, HeaderError> {
    let changed = || HeaderError::Changed(text.chars().take(SHOWN).collect());
    if !is_field_text(text) {
        return Err(changed());
    }
    HeaderValue::from_str(text).map_err(|_| changed())
}

/// The field of the extra `key`, which is in small letters.
fn extra_field(key: &str) -> Result<HeaderName, HeaderError> {
    unchanged(key)?;
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    if domain == KUBERNETES || domain.strip_suffix(KUBERNETES).is_some_and(|above| above.ends_with('.')) {
        return Err(HeaderError::ReservedExtra(key.to_owned()));
    }
    let name = format!("impersonate-extra-{}", utf8_percent_encode(key, ENCODED));
    HeaderName::try_from(name).map_err(|_| HeaderError::Changed(key.chars().take(SHOWN).collect()))
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
    use proptest::prelude::*;
    use tunnel::{Extra, hop};

    use super::*;

    fn identity(groups: &[&str]) -> Identity {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let extra = vec![Extra { key: "Example.com/Scope".into(), values: vec!["a".into(), "b".into()] }];
        Identity { user: "alice".into(), groups, extra, asked: false }
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
        for (user, shown) in [("", "hub"), ("system:admin", "reserves"), ("a\nb", "HTTP")] {
            let identity = Identity { user: user.into(), ..Identity::default() };
            let refused = impersonate(&mut HeaderMap::new(), HeaderValue::from_static("x"), &identity, &[]);
            assert!(refused.unwrap_err().to_string().contains(shown), "{user:?}");
        }
    }

    #[test]
    fn a_name_that_another_hop_would_change_is_refused_wherever_it_stands() {
        let bearer = HeaderValue::from_static("x");
        let refused = |identity: &Identity, text: &str| {
            let mut headers = HeaderMap::new();
            let error = impersonate(&mut headers, bearer.clone(), identity, &[]).unwrap_err();
            assert!(error.to_string().contains("HTTP"), "{text:?}: {error}");
        };
        let own = identity(&[]);
        let bad = [
            " system:masters",
            "system:masters ",
            "\tsystem:masters",
            "dev\r\n system:masters",
            "dev\nImpersonate-Group: a",
            "",
            "\0dev",
            "\u{a0}system:masters",
            "\u{2003}dev",
            "d\u{e9}v",
            "\u{feff}dev",
            "dev\u{7f}",
        ];
        for text in bad {
            refused(&Identity { groups: vec!["dev".into(), text.into()], ..own.clone() }, text);
            if !text.is_empty() {
                refused(&Identity { user: text.into(), ..own.clone() }, text);
            }
            let of = |key: &str, value: &str| vec![Extra { key: key.into(), values: vec![value.into()] }];
            refused(&Identity { extra: of(text, "v"), ..own.clone() }, text);
            refused(&Identity { extra: of("k", text), ..own.clone() }, text);
        }
    }

    #[test]
    fn what_kubernetes_keeps_for_itself_is_nobodys_to_ask_for() {
        let said = |identity: Identity, groups: &[&str]| {
            let groups: Vec<GroupPattern> = groups.iter().map(|text| text.parse().unwrap()).collect();
            let mut headers = HeaderMap::new();
            impersonate(&mut headers, HeaderValue::from_static("x"), &identity, &groups)
                .map(|()| all(&headers, "impersonate-group"))
                .map_err(|error| (error.is_forbidden(), error.to_string()))
        };
        for user in ["System:admin", "a,system:admin", "system:serviceaccount:kube-system:default"] {
            assert!(said(Identity { user: user.into(), ..identity(&[]) }, &["system:*"]).unwrap_err().0, "{user}");
        }
        for key in ["kubernetes.io/a", "authentication.kubernetes.io/node-name", "Authentication.Kubernetes.IO/pod-uid"]
        {
            let extra = vec![Extra { key: key.into(), values: vec!["v".into()] }];
            assert!(said(Identity { extra, ..identity(&[]) }, &[]).unwrap_err().0, "{key}");
        }
        let twice = ["Scopes", "scopes"].map(|key| Extra { key: key.into(), values: vec!["v".into()] }).to_vec();
        assert!(said(Identity { extra: twice, ..identity(&[]) }, &[]).unwrap_err().1.contains("one to Kubernetes"));
        // What the hub itself says of its user is left out; what the user asks for is refused.
        let own = identity(&["dev", "system:masters", "system:authenticated"]);
        assert_eq!(said(own.clone(), &[]).unwrap(), ["dev"]);
        let asked = Identity { asked: true, ..own };
        assert!(said(asked.clone(), &[]).unwrap_err().1.contains("--gateway-groups"));
        assert_eq!(said(asked.clone(), &["dev", "system:masters"]).unwrap(), ["dev", "system:masters"]);
        assert!(said(asked, &["system:masters"]).unwrap_err().0);
    }

    proptest! {
        /// As a server of HTTP/1.1 reads a field: what follows the colon, trimmed.
        #[test]
        fn who_is_told_is_who_is_read(
            user in "[ \ta-z:]{0,4}(system:)?[ -~\u{80}-\u{100}\u{0}-\u{20}]{0,6}",
            group in "[ \t]{0,2}([a-z]{0,2}|[Ss]ystem:masters)[ \t\r\n,]{0,2}(system:masters)?",
            asked: bool,
        ) {
            let own = Identity { user: user.clone(), groups: vec![group.clone()], extra: Vec::new(), asked };
            let mut headers = HeaderMap::new();
            if impersonate(&mut headers, HeaderValue::from_static("x"), &own, &[]).is_ok() {
                let read = |name: &str| all(&headers, name).iter().map(|value| value.trim().to_owned()).collect::<Vec<_>>();
                prop_assert_eq!(read("impersonate-user"), [user.clone()]);
                prop_assert!(!user.to_lowercase().starts_with("system:"));
                let groups = read("impersonate-group");
                prop_assert!(groups.is_empty() || groups == [group.clone()]);
                let parts = groups.iter().flat_map(|group| group.split(','));
                prop_assert!(!parts.map(|part| part.trim().to_lowercase()).any(|part| part.starts_with("system:")));
            }
        }
    }

    #[test]
    fn a_clients_own_token_is_kept_where_the_spoke_wants_it() {
        let mut headers = sent(&[("Authorization", "Bearer own"), ("Impersonate-User", "root")]);
        drop_identity(&mut headers);
        assert_eq!((all(&headers, "authorization"), headers.keys_len()), (vec!["Bearer own".into()], 1));
    }
}
