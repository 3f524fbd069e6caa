//! Discovery: what is served, told to clients in the old form, a document a group, and in the aggregated one.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::accept;
use super::document::Document;
use super::resource::{self, Resource};

const JSON: &str = "application/json";
const AGGREGATED_V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const AGGREGATED_V2BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// The minor version of Kubernetes whose API machinery is spoken here; clients compare it with their own.
const KUBERNETES_MINOR: &str = "32";

/// The three forms of `/api` or `/apis`.
struct Root {
    plain: Document,
    v2: Document,
    v2beta1: Document,
}

static API: LazyLock<Root> = LazyLock::new(|| Root {
    plain: Document::json(
        JSON,
        &json!({"kind": "APIVersions", "versions": core_versions(), "serverAddressByClientCIDRs": []}),
    ),
    v2: aggregated(AGGREGATED_V2, "v2", true),
    v2beta1: aggregated(AGGREGATED_V2BETA1, "v2beta1", true),
});

static APIS: LazyLock<Root> = LazyLock::new(|| Root {
    plain: Document::json(
        JSON,
        &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": named_groups().map(group).collect::<Vec<_>>()}),
    ),
    v2: aggregated(AGGREGATED_V2, "v2", false),
    v2beta1: aggregated(AGGREGATED_V2BETA1, "v2beta1", false),
});

/// The document at `path`: `/api`, `/apis`, `/api/<version>`, `/apis/<group>` or `/apis/<group>/<version>`. `accept` is
/// the header: it chooses the form of the first two. `None` when the path is none of these or nothing is served there.
pub fn document(path: &str, accept: &str) -> Option<Document> {
    let parts: Vec<_> = path.strip_prefix('/')?.trim_end_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api"] => Some(API.choose(accept).clone()),
        ["apis"] => Some(APIS.choose(accept).clone()),
        ["api", version] => resources("", version),
        ["apis", name] => {
            let mut found = named_groups().find(|(known, _)| known == name).map(group)?;
            found["kind"] = json!("APIGroup");
            found["apiVersion"] = json!("v1");
            Some(Document::json(JSON, &found))
        }
        ["apis", group, version] if !group.is_empty() => resources(group, version),
        _ => None,
    }
}

/// The document at `/version`; `own` is this program's version.
pub fn version(own: &str) -> Document {
    // Build metadata has letters, digits, dots and dashes only; kubectl reads it as a semantic version.
    let build: String = own.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let info = json!({
        "major": "1",
        "minor": KUBERNETES_MINOR,
        "gitVersion": format!("v1.{KUBERNETES_MINOR}.0+cluster-proxy.{build}"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    Document::json(JSON, &info)
}

impl Root {
    fn choose(&self, header: &str) -> &Document {
        let ranges = accept::parse(header);
        let chosen = ranges.iter().filter(|range| range.allows_json()).find_map(|range| {
            let aggregated = range.parameter("g") == Some("apidiscovery.k8s.io")
                && range.parameter("as") == Some("APIGroupDiscoveryList");
            match (aggregated, range.parameter("v")) {
                (true, Some("v2")) => Some(&self.v2),
                (true, Some("v2beta1")) => Some(&self.v2beta1),
                (false, _) if range.parameter("as").is_none() => Some(&self.plain),
                (_, _) => None,
            }
        });
        chosen.unwrap_or(&self.plain)
    }
}

type Group = (&'static str, Vec<&'static str>);

fn named_groups() -> impl Iterator<Item = Group> {
    resource::groups().into_iter().filter(|(name, _)| !name.is_empty())
}

fn core_versions() -> Vec<&'static str> {
    resource::groups().into_iter().find(|(name, _)| name.is_empty()).map(|(_, versions)| versions).unwrap_or_default()
}

fn group((name, versions): Group) -> Value {
    let versions: Vec<_> = versions
        .iter()
        .map(|version| json!({"groupVersion": resource::api_version(name, version), "version": version}))
        .collect();
    json!({"name": name, "preferredVersion": versions.first(), "versions": versions})
}

/// The old form of one version: an APIResourceList.
fn resources(group: &str, version: &str) -> Option<Document> {
    let served = resource::of_version(group, version);
    if served.is_empty() {
        return None;
    }
    let mut entries = Vec::new();
    for resource in served {
        let mut entry = verbs_and_names(resource);
        entry.insert("name".to_owned(), json!(resource.plural));
        entry.insert("singularName".to_owned(), json!(resource.singular));
        entry.insert("namespaced".to_owned(), json!(resource.namespaced));
        entry.insert("kind".to_owned(), json!(resource.kind));
        entries.push(Value::Object(entry));
        for subresource in resource.subresources {
            entries.push(json!({
                "name": format!("{}/{}", resource.plural, subresource.name),
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": subresource.verbs,
            }));
        }
    }
    let list = json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": resource::api_version(group, version),
        "resources": entries,
    });
    Some(Document::json(JSON, &list))
}

/// The aggregated form: everything of the core group, or of the others, in one document.
fn aggregated(content_type: &'static str, version: &str, core: bool) -> Document {
    let groups = resource::groups().into_iter().filter(|(name, _)| name.is_empty() == core);
    let items: Vec<_> = groups
        .map(|(name, versions)| {
            let versions: Vec<_> = versions
                .iter()
                .map(|version| {
                    let served: Vec<_> =
                        resource::of_version(name, version).into_iter().map(aggregated_resource).collect();
                    json!({"version": version, "freshness": "Current", "resources": served})
                })
                .collect();
            let metadata = if core { json!({}) } else { json!({"name": name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {},
        "items": items,
    });
    Document::json(content_type, &list)
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = json!({"group": resource.group, "version": resource.version, "kind": resource.kind});
    let mut entry = verbs_and_names(resource);
    entry.insert("resource".to_owned(), json!(resource.plural));
    entry.insert("responseKind".to_owned(), kind.clone());
    entry.insert("scope".to_owned(), json!(if resource.namespaced { "Namespaced" } else { "Cluster" }));
    entry.insert("singularResource".to_owned(), json!(resource.singular));
    if !resource.subresources.is_empty() {
        // Old clients crash on a subresource without a kind.
        let subresources = resource.subresources.iter().map(
            |subresource| json!({"subresource": subresource.name, "responseKind": kind, "verbs": subresource.verbs}),
        );
        entry.insert("subresources".to_owned(), subresources.collect());
    }
    Value::Object(entry)
}

/// The fields that both forms have; empty lists are left out.
fn verbs_and_names(resource: &Resource) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("verbs".to_owned(), json!(resource.verbs));
    for (field, names) in [("shortNames", resource.short_names), ("categories", resource.categories)] {
        if !names.is_empty() {
            fields.insert(field.to_owned(), json!(names));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECTL: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                           application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

    fn at(path: &str, accept: &str) -> Value {
        serde_json::from_slice(&document(path, accept).unwrap().body).unwrap()
    }

    #[test]
    fn the_accept_header_chooses_the_form() {
        for path in ["/api", "/apis"] {
            assert_eq!(document(path, KUBECTL).unwrap().content_type, AGGREGATED_V2);
            let older = "application/json;as=APIGroupDiscoveryList;v=v2beta1;g=apidiscovery.k8s.io,application/json";
            assert_eq!(document(path, older).unwrap().content_type, AGGREGATED_V2BETA1);
            assert_eq!(at(path, older)["apiVersion"], "apidiscovery.k8s.io/v2beta1");
            for plain in ["application/json", "", "*/*", "application/json, */*"] {
                assert_eq!(document(path, plain).unwrap().content_type, JSON);
            }
        }
    }

    #[test]
    fn every_resource_is_in_every_form() {
        for resource in resource::all() {
            let (root, path) = match resource.group {
                "" => ("/api", format!("/api/{}", resource.version)),
                group => ("/apis", format!("/apis/{group}/{}", resource.version)),
            };
            let list = at(&path, "");
            assert_eq!(list["groupVersion"], resource.api_version());
            let entry = |name: &str| {
                list["resources"].as_array().unwrap().iter().find(|entry| entry["name"] == name).unwrap().clone()
            };
            let plain = entry(resource.plural);
            assert_eq!(plain["kind"], resource.kind);
            assert_eq!(plain["namespaced"], resource.namespaced);
            assert_eq!(plain["verbs"], json!(resource.verbs));
            for subresource in resource.subresources {
                entry(&format!("{}/{}", resource.plural, subresource.name));
            }
            let all = at(root, KUBECTL);
            let group = all["items"].as_array().unwrap().iter().find(|item| {
                item["metadata"].get("name").and_then(Value::as_str).unwrap_or_default() == resource.group
            });
            let versions = group.unwrap()["versions"].as_array().unwrap();
            let version = versions.iter().find(|version| version["version"] == resource.version).unwrap();
            let entries = version["resources"].as_array().unwrap();
            let entry = entries.iter().find(|entry| entry["resource"] == resource.plural).unwrap();
            assert_eq!(entry["singularResource"], resource.singular);
            assert_eq!(entry["responseKind"]["kind"], resource.kind);
            for subresource in entry["subresources"].as_array().into_iter().flatten() {
                assert_eq!(subresource["responseKind"]["kind"], resource.kind);
                assert!(subresource["verbs"].is_array());
            }
        }
    }

    #[test]
    fn groups_name_their_preferred_version() {
        let list = at("/apis", "");
        assert_eq!(
            list["groups"][0],
            json!({
                "name": "cluster.open-cluster-management.io",
                "preferredVersion": {"groupVersion": "cluster.open-cluster-management.io/v1", "version": "v1"},
                "versions": [
                    {"groupVersion": "cluster.open-cluster-management.io/v1", "version": "v1"},
                    {"groupVersion": "cluster.open-cluster-management.io/v1beta2", "version": "v1beta2"},
                ],
            })
        );
        assert_eq!(at("/apis/rbac.authorization.k8s.io", "")["kind"], "APIGroup");
        assert_eq!(at("/api", "")["versions"], json!(["v1"]));
    }

    #[test]
    fn nothing_is_told_of_what_is_not_served() {
        for path in ["", "/", "/api/v2", "/apis/apps", "/apis/apps/v1", "/apis//v1", "/api/v1/namespaces", "/apisx"] {
            assert!(document(path, "").is_none(), "{path}");
        }
    }

    #[test]
    fn old_and_new_clients_read_the_same_of_a_resource() {
        let plain = at("/api/v1", "");
        assert_eq!(
            plain["resources"][1],
            json!({
                "name": "namespaces", "singularName": "namespace", "namespaced": false, "kind": "Namespace",
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"], "shortNames": ["ns"],
            })
        );
        assert_eq!(
            plain["resources"][2],
            json!({
                "name": "namespaces/finalize", "singularName": "", "namespaced": false, "kind": "Namespace",
                "verbs": ["update"],
            })
        );
        let kind = json!({"group": "", "version": "v1", "kind": "Namespace"});
        assert_eq!(
            at("/api", KUBECTL)["items"][0]["versions"][0]["resources"][1],
            json!({
                "resource": "namespaces", "singularResource": "namespace", "scope": "Cluster", "responseKind": kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"], "shortNames": ["ns"],
                "subresources": [
                    {"subresource": "finalize", "responseKind": kind, "verbs": ["update"]},
                    {"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]},
                ],
            })
        );
    }

    #[test]
    fn kubectl_reads_the_version() {
        let info: Value = serde_json::from_slice(&version("0.1.0").body).unwrap();
        assert_eq!(info["gitVersion"], "v1.32.0+cluster-proxy.0.1.0");
        // These are strings in every version of the clients, also the numbers.
        for field in [
            "major",
            "minor",
            "gitVersion",
            "gitCommit",
            "gitTreeState",
            "buildDate",
            "goVersion",
            "compiler",
            "platform",
        ] {
            assert!(info[field].is_string(), "{field}");
        }
        let semantic = regex_lite::Regex::new(r"^v\d+\.\d+\.\d+\+[0-9A-Za-z.-]+$").unwrap();
        for own in ["0.1.0", "1.0.0-rc.1", "1.0.0+abc", "1.0 (dirty)"] {
            let info: Value = serde_json::from_slice(&version(own).body).unwrap();
            assert!(semantic.is_match(info["gitVersion"].as_str().unwrap()), "{own}");
        }
    }
}
