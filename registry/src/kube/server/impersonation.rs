//! Impersonation: who may speak as somebody else (`kubectl --as`), by Kubernetes' headers and rights.

use certs::is_field_text;
use http::HeaderMap;

use crate::kube::{
    rbac::{Attributes, Decision, review::Caller},
    status::Status,
};
use crate::registry::Registry;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The group of rights to impersonate anything but users and groups.
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Who the request is to be taken for.
pub(super) fn caller(registry: &Registry, headers: &HeaderMap, caller: &Caller) -> Result<Caller, Status> {
    let texts = |name: &str| -> Result<Vec<String>, Status> {
        // HTTP/2 brings white space that HTTP/1.1 trims: " system:masters" would be somebody else behind the next hop.
        let text =
            |value: &http::HeaderValue| value.to_str().ok().filter(|text| is_field_text(text)).map(str::to_owned);
        headers.get_all(name).iter().map(text).collect::<Option<_>>().ok_or_else(|| malformed(name))
    };
    let (users, groups, uids) = (texts(USER)?, texts(GROUP)?, texts(UID)?);
    let extra: Vec<(String, Vec<String>)> = headers
        .keys()
        .filter_map(|name| Some((name.as_str().strip_prefix(EXTRA)?, name)))
        .map(|(key, name)| {
            let key = percent_encoding::percent_decode_str(key).decode_utf8().ok();
            // A key in other letters would be the same field of the next hop, with a right of its own here.
            let key = key.filter(|key| is_field_text(key) && !key.bytes().any(|byte| byte.is_ascii_uppercase()));
            Ok((key.ok_or_else(|| malformed(name.as_str()))?.into_owned(), texts(name.as_str())?))
        })
        .collect::<Result<_, Status>>()?;
    let user = match users.as_slice() {
        [] if groups.is_empty() && uids.is_empty() && extra.is_empty() => return Ok(caller.clone()),
        [user] if uids.len() <= 1 => user,
        [] => return Err(Status::bad_request("requested impersonation without a user: send Impersonate-User")),
        [_] => return Err(malformed(UID)),
        _ => return Err(malformed(USER)),
    };
    let may = |group: &str, resource: &str, subresource: &str, name: &str| {
        let subresource = subresource.to_owned();
        let request = Attributes { subresource, ..Attributes::of(caller, "impersonate", group, resource, name) };
        match registry.with_policy(|policy| policy.authorize(&request)) {
            Decision::Allowed(_) => Ok(()),
            Decision::Denied(denial) => {
                Err(Status::impersonation_forbidden(group, resource, name, &denial.to_string()))
            }
        }
    };
    may("", "users", "", user)?;
    groups.iter().try_for_each(|group| may("", "groups", "", group))?;
    uids.iter().try_for_each(|uid| may(AUTHENTICATION, "uids", "", uid))?;
    for (key, values) in &extra {
        values.iter().try_for_each(|value| may(AUTHENTICATION, "userextras", key, value))?;
    }
    let mut taken = Caller {
        user: user.clone(),
        uid: uids.into_iter().next().unwrap_or_default(),
        groups,
        extra: extra.into_iter().collect(),
    };
    let authenticated = "system:authenticated".to_owned();
    if user != "system:anonymous" && !taken.groups.contains(&authenticated) {
        taken.groups.push(authenticated);
    }
    Ok(taken)
}

fn malformed(header: &str) -> Status {
    Status::bad_request(format!(
        "the header {header} cannot be read; send it once for each name, in printable ASCII with no space at its ends, and \
         the key of an extra in lower case"
    ))
}
