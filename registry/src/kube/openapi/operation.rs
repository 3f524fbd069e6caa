//! The operations: which HTTP methods each path of a resource takes, with which parameters and bodies.

use serde_json::{Map, Value, json};

use super::{JSON, component, kind, list_component, reference, root};
use crate::kube::resource::Resource;

/// What a method does: HTTP method, Kubernetes' action, RBAC verb.
struct Method {
    http: &'static str,
    action: &'static str,
    verb: &'static str,
}

const ON_COLLECTION: [Method; 3] = [
    Method { http: "get", action: "list", verb: "list" },
    Method { http: "post", action: "post", verb: "create" },
    Method { http: "delete", action: "deletecollection", verb: "deletecollection" },
];

const ON_OBJECT: [Method; 4] = [
    Method { http: "get", action: "get", verb: "get" },
    Method { http: "put", action: "put", verb: "update" },
    Method { http: "patch", action: "patch", verb: "patch" },
    Method { http: "delete", action: "delete", verb: "delete" },
];

/// The path of the collection, as `/apis/<group>/<version>/managedclusters`.
fn collection_path(resource: &Resource) -> String {
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("/{}{scope}/{}", root(resource.group, resource.version), resource.plural)
}

/// The path of an object, as `/apis/<group>/<version>/managedclusters/{name}`.
pub(super) fn object_path(resource: &Resource) -> String {
    format!("{}/{{name}}", collection_path(resource))
}

/// Adds all paths of `resource`.
pub(super) fn add_paths(resource: &Resource, paths: &mut Map<String, Value>) {
    let parameters = if resource.namespaced { vec![in_path("namespace")] } else { Vec::new() };
    let object = object_path(resource);
    let named: Vec<_> = parameters.iter().cloned().chain([in_path("name")]).collect();
    let mut add = |path: String, methods: &[Method], verbs: &[&str], parameters: &[Value], what: &str| {
        let mut item = Map::new();
        for method in methods.iter().filter(|method| verbs.contains(&method.verb)) {
            item.insert(method.http.to_owned(), operation(resource, method, what));
        }
        if !item.is_empty() {
            item.insert("parameters".to_owned(), json!(parameters));
            paths.insert(path, Value::Object(item));
        }
    };
    if resource.namespaced && resource.has_verb("list") {
        let everywhere = format!("/{}/{}", root(resource.group, resource.version), resource.plural);
        add(everywhere, &ON_COLLECTION, &["list"], &[], "ForAllNamespaces");
    }
    add(collection_path(resource), &ON_COLLECTION, resource.verbs, &parameters, "");
    add(object.clone(), &ON_OBJECT, resource.verbs, &named, "");
    for subresource in resource.subresources {
        let path = format!("{object}/{}", subresource.name);
        add(path, &ON_OBJECT, subresource.verbs, &named, &capitalised(subresource.name));
    }
}

fn operation(resource: &Resource, method: &Method, what: &str) -> Value {
    let component = if method.action == "list" { list_component(resource) } else { component(resource) };
    let answer = match method.action {
        "delete" | "deletecollection" => json!({"type": "object", "description": "A Status, or the object."}),
        _ => json!({"$ref": reference(&component)}),
    };
    let mut operation = json!({
        "operationId": format!("{}{}{}{}", method.action, capitalised(resource.version), resource.kind, what),
        "parameters": parameters(method.action),
        "responses": {"200": {"description": "OK", "content": {JSON: {"schema": answer}}}},
        "x-kubernetes-action": method.action,
        "x-kubernetes-group-version-kind": kind(resource, resource.kind),
    });
    if let Some(body) = body(resource, method.action, &component) {
        operation["requestBody"] = body;
    }
    operation
}

fn body(resource: &Resource, action: &str, component: &str) -> Option<Value> {
    let object = json!({"schema": {"$ref": reference(component)}});
    let patch = json!({"schema": {"type": "object"}});
    let content = match action {
        "post" | "put" => json!({"application/json": object, "application/yaml": object}),
        "patch" => {
            let mut content = json!({
                "application/apply-patch+yaml": patch,
                // A JSON patch is a list of operations.
                "application/json-patch+json": {"schema": {"type": "array", "items": {"type": "object"}}},
                "application/merge-patch+json": patch,
            });
            // kubectl sends what is listed here; a strategic patch of our own kinds would be refused.
            if resource.built_in {
                content["application/strategic-merge-patch+json"] = patch;
            }
            content
        }
        _ => return None,
    };
    Some(json!({"required": true, "content": content}))
}

fn parameters(action: &str) -> Vec<Value> {
    let dry_run = || query("dryRun", "string", "All checks everything and stores nothing.");
    let writing = || {
        vec![
            dry_run(),
            query("fieldManager", "string", "Who makes the change."),
            query("fieldValidation", "string", "What becomes of unknown fields: Strict, Warn or Ignore."),
        ]
    };
    let choosing = || {
        vec![
            query("continue", "string", "Token of the next page."),
            query("fieldSelector", "string", "Limits the objects by fields."),
            query("labelSelector", "string", "Limits the objects by labels."),
            query("limit", "integer", "Most objects on a page."),
            query("resourceVersion", "string", "Version to read at."),
            query("resourceVersionMatch", "string", "How resourceVersion is meant."),
        ]
    };
    let deleting = || {
        vec![
            dry_run(),
            query("gracePeriodSeconds", "integer", "Seconds the object has to end."),
            query("propagationPolicy", "string", "What becomes of dependents."),
        ]
    };
    match action {
        "list" => {
            let mut all = choosing();
            all.extend([
                query("allowWatchBookmarks", "boolean", "Whether a watch may send bookmarks."),
                query("sendInitialEvents", "boolean", "Whether a watch begins with what there is."),
                query("timeoutSeconds", "integer", "Longest life of a watch."),
                query("watch", "boolean", "Sends changes instead of a list."),
            ]);
            all
        }
        "post" | "put" => writing(),
        "patch" => {
            let mut all = writing();
            all.push(query("force", "boolean", "Whether an apply takes over the fields of others."));
            all
        }
        "delete" => deleting(),
        "deletecollection" => deleting().into_iter().chain(choosing()).collect(),
        _ => Vec::new(),
    }
}

fn query(name: &str, kind: &str, description: &str) -> Value {
    json!({"name": name, "in": "query", "description": description, "schema": {"type": kind, "uniqueItems": true}})
}

fn in_path(name: &str) -> Value {
    json!({
        "name": name,
        "in": "path",
        "description": format!("The {name}."),
        "required": true,
        "schema": {"type": "string", "uniqueItems": true},
    })
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
