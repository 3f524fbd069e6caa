//! OpenAPI: how clients may call each resource and what its objects look like, for `kubectl apply` and `explain`.

mod operation;
mod swagger;

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::document::Document;
use super::resource::{self, Resource};
pub use swagger::v2;

const JSON: &str = "application/json";

/// `/openapi/v3` and what is below it, by path.
static DOCUMENTS: LazyLock<Vec<(String, Document)>> = LazyLock::new(|| {
    let mut documents = Vec::new();
    let mut paths = Map::new();
    for (group, versions) in resource::groups() {
        for version in versions {
            let root = root(group, version);
            let document = Document::json(JSON, &version_document(group, version));
            // A client's cache keys on the hash; the prefix keeps clients of path-prefixed servers on their prefix.
            let url = format!("/openapi/v3/{root}?hash={}", document.hash);
            documents.push((format!("/openapi/v3/{root}"), document));
            paths.insert(root, json!({"serverRelativeURL": url}));
        }
    }
    documents.push(("/openapi/v3".to_owned(), Document::json(JSON, &json!({"paths": paths}))));
    documents
});

/// The document at `path`: `/openapi/v3`, or `/openapi/v3/apis/<group>/<version>` without the query.
pub fn v3(path: &str) -> Option<&'static Document> {
    DOCUMENTS.iter().find(|(known, _)| known == path.trim_end_matches('/')).map(|(_, document)| document)
}

/// `api/v1` for the core group, else `apis/<group>/<version>`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

fn version_document(group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in resource::of_version(group, version) {
        operation::add_paths(resource, &mut paths);
        schemas.insert(component(resource), schema(resource));
        if resource.has_verb("list") {
            schemas.insert(list_component(resource), list_schema(resource));
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "cluster-proxy", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// The name of a kind's schema: the group's domain backwards, as `io.open-cluster-management.cluster.v1.ManagedCluster`.
fn component(resource: &Resource) -> String {
    let group = match resource.group {
        // Kubernetes' own kinds are named after its Go packages.
        "" => "io.k8s.api.core".to_owned(),
        group if resource.built_in => format!("io.k8s.api.{}", group.split('.').next().unwrap_or_default()),
        group => group.split('.').rev().collect::<Vec<_>>().join("."),
    };
    format!("{group}.{}.{}", resource.version, resource.kind)
}

fn list_component(resource: &Resource) -> String {
    format!("{}List", component(resource))
}

fn schema(resource: &Resource) -> Value {
    let mut schema = resource.schema().document().clone();
    schema["x-kubernetes-group-version-kind"] = json!([kind(resource, resource.kind)]);
    schema
}

fn list_schema(resource: &Resource) -> Value {
    let text = |description: &str| json!({"description": description, "type": "string"});
    json!({
        "description": format!("A list of {}.", resource.plural),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text("Group and version of the list's kind."),
            "kind": text("What the list is, in CamelCase."),
            "metadata": {
                "description": "Where the list stands.",
                "type": "object",
                "properties": {
                    "continue": text("Token for the next page; empty on the last one."),
                    "remainingItemCount": {
                        "description": "How many more objects there are, where known.",
                        "type": "integer",
                        "format": "int64",
                    },
                    "resourceVersion": text("Version to watch from."),
                    "selfLink": text("Not filled any more."),
                },
            },
            "items": {
                "description": "The objects.",
                "type": "array",
                "items": {"$ref": reference(&component(resource))},
            },
        },
        "x-kubernetes-group-version-kind": [kind(resource, &resource.list_kind())],
    })
}

fn kind(resource: &Resource, kind: &str) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": kind})
}

fn reference(component: &str) -> String {
    format!("#/components/schemas/{component}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Value {
        serde_json::from_slice(&v3(path).unwrap().body).unwrap()
    }

    fn documents() -> impl Iterator<Item = (&'static Resource, Value)> {
        resource::all()
            .iter()
            .map(|resource| (resource, at(&format!("/openapi/v3/{}", root(resource.group, resource.version)))))
    }

    #[test]
    fn the_index_names_every_version_by_the_hash_of_its_document() {
        let index = at("/openapi/v3");
        for resource in resource::all() {
            let root = root(resource.group, resource.version);
            let url = index["paths"][&root]["serverRelativeURL"].as_str().unwrap();
            let (path, hash) = url.split_once("?hash=").unwrap();
            assert_eq!(path, format!("/openapi/v3/{root}"));
            assert_eq!(v3(path).unwrap().hash, hash);
        }
        assert!(v3("/openapi/v3/apis/apps/v1").is_none());
    }

    #[test]
    fn kubectl_finds_that_the_server_validates_fields() {
        for (resource, document) in documents().filter(|(resource, _)| resource.has_verb("patch")) {
            let wanted = kind(resource, resource.kind);
            let patches = document["paths"].as_object().unwrap().values().filter_map(|path| path.get("patch"));
            let mut found = patches.filter(|patch| patch["x-kubernetes-group-version-kind"] == wanted);
            let parameters = found.next().unwrap()["parameters"].as_array().unwrap();
            for name in ["fieldValidation", "dryRun", "fieldManager", "force"] {
                assert!(parameters.iter().any(|parameter| parameter["name"] == name && parameter["in"] == "query"));
            }
        }
    }

    #[test]
    fn only_built_in_kinds_take_strategic_merge_patches() {
        for (resource, document) in documents() {
            for path in document["paths"].as_object().unwrap().values() {
                let Some(patch) = path.get("patch") else { continue };
                if patch["x-kubernetes-group-version-kind"]["kind"] != resource.kind {
                    continue;
                }
                let content = &patch["requestBody"]["content"];
                assert_eq!(content.get("application/strategic-merge-patch+json").is_some(), resource.built_in);
                for kind in ["json-patch+json", "merge-patch+json", "apply-patch+yaml"] {
                    assert!(content.get(format!("application/{kind}")).is_some());
                }
            }
        }
    }

    #[test]
    fn kubectl_explain_finds_every_kind() {
        for (resource, document) in documents() {
            let wanted = json!([kind(resource, resource.kind)]);
            let schemas = document["components"]["schemas"].as_object().unwrap();
            let schema = schemas.values().find(|schema| schema["x-kubernetes-group-version-kind"] == wanted).unwrap();
            assert!(schema["properties"]["metadata"]["properties"]["labels"].is_object());
            let method = if resource.has_verb("get") { "get" } else { "post" };
            assert!(document["paths"].as_object().unwrap().values().any(|path| {
                path.get(method)
                    .is_some_and(|method| method["x-kubernetes-group-version-kind"] == kind(resource, resource.kind))
            }));
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for (_, document) in documents() {
            let text = document.to_string();
            for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                assert!(document.pointer(reference).is_some(), "{reference}");
            }
        }
    }
}
