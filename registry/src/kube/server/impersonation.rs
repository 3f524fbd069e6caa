//! Impersonation: who may speak as somebody else (`kubectl --as`), by Kubernetes' headers and rights.

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
        let text = |value: &http::HeaderValue| value.to_str().map(str::to_owned);
        headers.get_all(name).iter().map(text).collect::<Result<_, _>>().map_err(|_| malformed(name))
    };
    let (users, groups, uids) = (texts(USER)?, texts(GROUP)?, texts(UID)?);
    let extra: Vec<(String, Vec<String>)> = headers
        .keys()
        .filter_map(|name| Some((name.as_str().strip_prefix(EXTRA)?, name)))
        .map(|(key, name)| {
            let key = percent_encoding::percent_decode_str(key).decode_utf8().map_err(|_| malformed(name.as_str()))?;
            Ok((key.into_owned(), texts(name.as_str())?))
        })
        .collect::<Result<_, Status>>()?;
    let user = match users.as_slice() {
        [] if groups.is_empty() && uids.is_empty() && extra.is_empty() => return Ok(caller.clone()),
        [user] if !user.is_empty() => user,
        [] => return Err(Status::bad_request("requested impersonation without a user: send Impersonate-User")),
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
    Status::bad_request(format!("the header {header} cannot be read"))
}
