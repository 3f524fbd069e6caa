//! Who asks, as the API server sees it: the token's user, or the one that it impersonates.

use hyper::HeaderMap;
use serde_json::{Map, Value, json};

/// The user whose token is known.
pub(super) const USER: &str = "user-of-the-spoke";
const GROUP: &str = "system:authenticated";

/// `userInfo` as reviews give it.
pub(super) fn user_info(headers: &HeaderMap) -> Value {
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let Some(user) = headers.get("impersonate-user") else {
        return json!({ "username": USER, "groups": ["spoke-administrators", GROUP] });
    };
    let mut groups: Vec<String> = headers.get_all("impersonate-group").into_iter().map(text).collect();
    groups.push(GROUP.to_owned());
    let mut info = json!({ "username": text(user), "groups": groups });
    if let Some(uid) = headers.get("impersonate-uid") {
        info["uid"] = json!(text(uid));
    }
    let mut extra = Map::new();
    for (name, value) in headers {
        if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
            // Keys are escaped as in a URL, because field names take fewer characters.
            let values = extra.entry(super::query::decode(&key.replace('+', "%2B"))).or_insert_with(|| json!([]));
            if let Some(values) = values.as_array_mut() {
                values.push(json!(text(value)));
            }
        }
    }
    if !extra.is_empty() {
        info["extra"] = Value::Object(extra);
    }
    info
}

/// The answer to a SelfSubjectReview.
pub(super) fn self_subject_review(version: &str, headers: &HeaderMap) -> Value {
    json!({
        "kind": "SelfSubjectReview",
        "apiVersion": format!("authentication.k8s.io/{version}"),
        "metadata": { "creationTimestamp": null },
        "status": { "userInfo": user_info(headers) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_impersonated_user_has_its_groups_and_its_extra() {
        let mut headers = HeaderMap::new();
        assert_eq!(user_info(&headers)["username"], USER);
        for (name, value) in [
            ("impersonate-user", "ann"),
            ("impersonate-group", "devs"),
            ("impersonate-group", "ops"),
            ("impersonate-extra-example.com%2fhub", "one"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let expected = json!({
            "username": "ann",
            "groups": ["devs", "ops", GROUP],
            "extra": { "example.com/hub": ["one"] },
        });
        assert_eq!(user_info(&headers), expected);
    }
}
