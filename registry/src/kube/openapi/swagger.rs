//! OpenAPI v2, from which kubectl before 1.27 learns which kinds take dry runs and have their fields validated here.
//!
//! It has no schemas: such a kubectl then leaves all validation to the server, but cannot explain fields.

use std::sync::LazyLock;

use prost::Message;
use serde_json::{Map, Value, json};

use super::{JSON, kind, operation};
use crate::kube::accept;
use crate::kube::document::Document;
use crate::kube::resource::{self, Resource};

const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const TITLE: &str = "cluster-proxy";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const KIND: &str = "x-kubernetes-group-version-kind";
/// The parameters that kubectl looks for.
const PARAMETERS: [&str; 4] = ["dryRun", "fieldManager", "fieldValidation", "force"];

static AS_JSON: LazyLock<Document> = LazyLock::new(|| {
    let parameter = |name: &&str| json!({"name": name, "in": "query", "type": type_of(name)});
    let parameters: Vec<_> = PARAMETERS.iter().map(parameter).collect();
    let paths: Map<_, _> = patchable()
        .map(|resource| {
            let responses = json!({"200": {"description": "OK"}});
            let patch = json!({"parameters": parameters, "responses": responses, KIND: kind(resource, resource.kind)});
            (operation::object_path(resource), json!({"patch": patch}))
        })
        .collect();
    let info = json!({"title": TITLE, "version": VERSION});
    Document::json(JSON, &json!({"swagger": "2.0", "info": info, "paths": paths, "definitions": {}}))
});

static AS_PROTOBUF: LazyLock<Document> = LazyLock::new(|| {
    let paths = Paths { path: patchable().map(NamedPathItem::of).collect() };
    let info = Info { title: TITLE.to_owned(), version: VERSION.to_owned() };
    let swagger = Swagger { swagger: "2.0".to_owned(), info: Some(info), paths: Some(paths) };
    Document::new(PROTOBUF, swagger.encode_to_vec())
});

/// The document at `/openapi/v2`: protobuf for the clients that ask for it, else JSON.
pub fn v2(accept: &str) -> &'static Document {
    // kubectl's name for the type has an `@` in it, which no media type may have.
    let wanted = accept::parse(accept)
        .into_iter()
        .find(|range| range.allows_json() || range.kind.starts_with("application/com.github.proto-openapi.spec.v2"));
    if wanted.is_some_and(|range| !range.allows_json()) { &AS_PROTOBUF } else { &AS_JSON }
}

fn patchable() -> impl Iterator<Item = &'static Resource> {
    resource::all().iter().filter(|resource| resource.has_verb("patch"))
}

fn type_of(parameter: &str) -> &'static str {
    if parameter == "force" { "boolean" } else { "string" }
}

// The messages of gnostic's openapi.v2, with the fields that are used here.

#[derive(Clone, PartialEq, Message)]
struct Swagger {
    #[prost(string, tag = "1")]
    swagger: String,
    #[prost(message, optional, tag = "2")]
    info: Option<Info>,
    #[prost(message, optional, tag = "8")]
    paths: Option<Paths>,
}

#[derive(Clone, PartialEq, Message)]
struct Info {
    #[prost(string, tag = "1")]
    title: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct Paths {
    #[prost(message, repeated, tag = "2")]
    path: Vec<NamedPathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct NamedPathItem {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<PathItem>,
}

#[derive(Clone, PartialEq, Message)]
struct PathItem {
    #[prost(message, optional, tag = "8")]
    patch: Option<Operation>,
}

#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(message, repeated, tag = "8")]
    parameters: Vec<ParametersItem>,
    #[prost(message, repeated, tag = "13")]
    vendor_extension: Vec<NamedAny>,
}

#[derive(Clone, PartialEq, Message)]
struct ParametersItem {
    #[prost(message, optional, tag = "1")]
    parameter: Option<Parameter>,
}

#[derive(Clone, PartialEq, Message)]
struct Parameter {
    #[prost(message, optional, tag = "2")]
    non_body: Option<NonBodyParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct NonBodyParameter {
    #[prost(message, optional, tag = "3")]
    query: Option<QueryParameter>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryParameter {
    #[prost(string, tag = "2")]
    place: String,
    #[prost(string, tag = "4")]
    name: String,
    #[prost(string, tag = "6")]
    kind: String,
}

#[derive(Clone, PartialEq, Message)]
struct NamedAny {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "2")]
    yaml: String,
}

impl NamedPathItem {
    fn of(resource: &Resource) -> Self {
        let patch = Operation {
            parameters: PARAMETERS.into_iter().map(ParametersItem::query).collect(),
            vendor_extension: vec![NamedAny::of(KIND, &kind(resource, resource.kind))],
        };
        Self { name: operation::object_path(resource), value: Some(PathItem { patch: Some(patch) }) }
    }
}

impl ParametersItem {
    fn query(name: &str) -> Self {
        let (place, kind) = ("query".to_owned(), type_of(name).to_owned());
        let query = Some(QueryParameter { place, name: name.to_owned(), kind });
        Self { parameter: Some(Parameter { non_body: Some(NonBodyParameter { query }) }) }
    }
}

impl NamedAny {
    /// JSON is YAML, too.
    fn of(name: &str, value: &Value) -> Self {
        Self { name: name.to_owned(), value: Some(Any { yaml: value.to_string() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECTL: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

    /// What kubectl finds at the PATCH of a kind: the names of the query parameters.
    fn found(swagger: &Swagger, wanted: &Value) -> Option<Vec<String>> {
        let paths = swagger.paths.iter().flat_map(|paths| &paths.path);
        let mut patches = paths.filter_map(|path| path.value.as_ref()?.patch.as_ref());
        let patch = patches.find(|patch| {
            let extension = patch.vendor_extension.iter().find(|extension| extension.name == KIND);
            let yaml = &extension.unwrap().value.as_ref().unwrap().yaml;
            serde_json::from_str::<Value>(yaml).unwrap() == *wanted
        })?;
        let query = |item: &ParametersItem| item.parameter.clone()?.non_body?.query.map(|query| query.name);
        Some(patch.parameters.iter().filter_map(query).collect())
    }

    #[test]
    fn old_kubectl_finds_what_the_server_does_for_it() {
        let document = v2(KUBECTL);
        assert_eq!(document.content_type, PROTOBUF);
        assert!(document.body.starts_with(b"\x0a\x032.0\x12"));
        let swagger = Swagger::decode(document.body.as_slice()).unwrap();
        for resource in resource::all() {
            let expected = resource.has_verb("patch").then(|| PARAMETERS.map(str::to_owned).to_vec());
            assert_eq!(found(&swagger, &kind(resource, resource.kind)), expected, "{}", resource.kind);
        }
    }

    #[test]
    fn everybody_else_reads_the_same_as_json() {
        for accept in ["application/json", "", "*/*"] {
            assert_eq!(v2(accept).content_type, JSON);
        }
        let document: Value = serde_json::from_slice(&v2("").body).unwrap();
        let path = "/apis/cluster.open-cluster-management.io/v1/managedclusters/{name}";
        assert_eq!(document["paths"][path]["patch"]["parameters"][0]["name"], "dryRun");
        let swagger = Swagger::decode(v2(KUBECTL).body.as_slice()).unwrap();
        let paths: Vec<_> = swagger.paths.unwrap().path.into_iter().map(|path| path.name).collect();
        assert_eq!(paths.len(), document["paths"].as_object().unwrap().len());
        assert!(paths.contains(&path.to_owned()));
    }
}
