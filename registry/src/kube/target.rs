//! What a request is about: the resource, the object and the verb, read from method and path as kube-apiserver does.

/// A request on a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Empty for the core group.
    pub group: &'a str,
    pub version: &'a str,
    pub namespace: Option<&'a str>,
    /// The plural, as in `managedclusters`.
    pub resource: &'a str,
    /// `None` for the collection.
    pub name: Option<&'a str>,
    pub subresource: Option<&'a str>,
}

/// What is done, in RBAC's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl<'a> Target<'a> {
    /// Reads `/api/v1/…` and `/apis/<group>/<version>/…`; `None` for what is no resource.
    pub fn parse(path: &'a str) -> Option<Self> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let (group, version, rest) = match segments.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        // A namespace is a resource, too, and the scope of others.
        let (namespace, rest) = match rest {
            ["namespaces", _, "status" | "finalize"] => (None, rest),
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let (resource, name, subresource) = match rest {
            [resource] => (*resource, None, None),
            [resource, name] => (*resource, Some(*name), None),
            [resource, name, subresource] => (*resource, Some(*name), Some(*subresource)),
            _ => return None,
        };
        let given = [Some(resource), name, subresource, namespace];
        if group.is_empty() && segments[0] == "apis" || given.iter().flatten().any(|part| part.is_empty()) {
            return None;
        }
        Some(Self { group, version, namespace, resource, name, subresource })
    }
}

impl Verb {
    /// The verb of a method; `watch` is the query parameter. `None` for a method that no resource has.
    pub fn of(method: &http::Method, named: bool, watch: bool) -> Option<Self> {
        Some(match (method.as_str(), named) {
            ("GET" | "HEAD", true) => Self::Get,
            ("GET" | "HEAD", false) if watch => Self::Watch,
            ("GET" | "HEAD", false) => Self::List,
            ("POST", _) => Self::Create,
            ("PUT", true) => Self::Update,
            ("PATCH", true) => Self::Patch,
            ("DELETE", true) => Self::Delete,
            ("DELETE", false) => Self::DeleteCollection,
            _ => return None,
        })
    }

    /// As in a rule.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<[String; 6]> {
        let target = Target::parse(path)?;
        let or_dash = |part: Option<&str>| part.unwrap_or("-").to_owned();
        Some([
            target.group.to_owned(),
            target.version.to_owned(),
            or_dash(target.namespace),
            target.resource.to_owned(),
            or_dash(target.name),
            or_dash(target.subresource),
        ])
    }

    #[test]
    fn paths_name_a_resource_an_object_and_its_part() {
        for (path, expected) in [
            ("/apis/g/v1/managedclusters", ["g", "v1", "-", "managedclusters", "-", "-"]),
            ("/apis/g/v1/managedclusters/c1", ["g", "v1", "-", "managedclusters", "c1", "-"]),
            ("/apis/g/v1/managedclusters/c1/status", ["g", "v1", "-", "managedclusters", "c1", "status"]),
            ("/apis/g/v1/namespaces/n/bindings/b", ["g", "v1", "n", "bindings", "b", "-"]),
            ("/api/v1/namespaces", ["", "v1", "-", "namespaces", "-", "-"]),
            ("/api/v1/namespaces/n", ["", "v1", "-", "namespaces", "n", "-"]),
            ("/api/v1/namespaces/n/status", ["", "v1", "-", "namespaces", "n", "status"]),
            ("/api/v1/namespaces/n/finalize", ["", "v1", "-", "namespaces", "n", "finalize"]),
            ("/api/v1/namespaces/n/events", ["", "v1", "n", "events", "-", "-"]),
            ("/api/v1/namespaces/n/events/e", ["", "v1", "n", "events", "e", "-"]),
        ] {
            assert_eq!(parsed(path).expect(path), expected, "{path}");
        }
    }

    #[test]
    fn what_is_no_resource_is_none() {
        for path in [
            "",
            "/",
            "/api",
            "/api/v1",
            "/apis",
            "/apis/g",
            "/apis/g/v1",
            "/version",
            "/apis//v1/x",
            "/api/v1//x",
            "/apis/g/v1/x/",
            "/apis/g/v1/x/y/z/more",
            "api/v1/x",
        ] {
            assert_eq!(parsed(path), None, "{path}");
        }
    }

    #[test]
    fn verbs_are_those_of_rbac() {
        let verb = |method: http::Method, named, watch| Verb::of(&method, named, watch).map(Verb::as_str);
        assert_eq!(verb(http::Method::GET, true, true), Some("get"));
        assert_eq!(verb(http::Method::GET, false, true), Some("watch"));
        assert_eq!(verb(http::Method::GET, false, false), Some("list"));
        assert_eq!(verb(http::Method::DELETE, false, false), Some("deletecollection"));
        assert_eq!(verb(http::Method::OPTIONS, true, false), None);
        assert_eq!(verb(http::Method::PUT, false, false), None);
    }
}
