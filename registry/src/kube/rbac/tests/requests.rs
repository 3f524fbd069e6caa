//! Whole requests against the oracle: the server says 403 exactly when nobody gave the right.

use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::json;

use super::super::{review::Caller, *};
use super::oracle::{Asker, Oracle};
use super::world::{MEMBERS, NAMES, NAMESPACES, RESOURCES, SET_NAMES, World, somebody, world};
use crate::kube::server::{Answer, Server, StillValid};
use crate::registry::Registry;
use store::Txn;

#[derive(Clone, Debug)]
struct Asked {
    verb: &'static str,
    resource: &'static str,
    status: bool,
    namespace: &'static str,
    name: &'static str,
}

impl Asked {
    /// Method and path; none where there is no such resource.
    fn request(&self) -> Option<(&'static str, String)> {
        let Self { verb, resource, status, namespace, name } = *self;
        let one = matches!(verb, "get" | "update");
        let secrets = resource == "secrets";
        // Nothing is got or updated over all namespaces, secrets have no status, and no collection has one.
        if secrets && (status || one && namespace.is_empty()) || status && !one {
            return None;
        }
        let group = if resource.starts_with("managed") { format!("/apis/{CLUSTER_GROUP}") } else { "/api".to_owned() };
        let version = if resource == SETS { "v1beta2" } else { "v1" };
        let place = if secrets && !namespace.is_empty() { format!("/namespaces/{namespace}") } else { String::new() };
        let object = if one { format!("/{name}") } else { String::new() };
        let part = if status { "/status" } else { "" };
        let query = if verb == "watch" { "?watch=true" } else { "" };
        let method = if verb == "update" { "PUT" } else { "GET" };
        Some((method, format!("{group}/{version}{place}/{resource}{object}{part}{query}")))
    }

    /// Whether the oracle lets it pass.
    fn is_allowed(&self, asker: &Asker<'_>) -> bool {
        let Self { verb, resource, status, namespace, name } = *self;
        let full = if status { format!("{resource}/status") } else { resource.to_owned() };
        let (group, place) = match resource {
            "namespaces" => ("", name),
            "secrets" => ("", namespace),
            _ => (CLUSTER_GROUP, ""),
        };
        if matches!(verb, "get" | "update") {
            let more = match resource {
                CLUSTERS if verb == "get" && !status => asker.sees_cluster(verb, name),
                SETS if verb == "get" && !status => asker.sees_set(verb, name),
                _ => false,
            };
            return more || asker.may(verb, group, &full, place, name);
        }
        // Who could see anything at all is shown what there is of it.
        let anything = |sees: &dyn Fn(&str) -> bool| NAMES.into_iter().any(sees);
        let within = |own: &str| anything(&|name| asker.may(verb, group, resource, own, name));
        asker.may(verb, group, resource, if resource == "secrets" { namespace } else { "" }, "")
            || match resource {
                CLUSTERS => anything(&|name| asker.sees_cluster(verb, name)) || asker.sees_some_set_of_clusters(verb),
                SETS => anything(&|name| asker.sees_set(verb, name)),
                "namespaces" => anything(&|name| asker.sees_namespace(verb, name)),
                _ if namespace.is_empty() => within("") || NAMESPACES.into_iter().any(within),
                _ => within(namespace),
            }
    }
}

fn asked() -> impl Strategy<Value = Asked> {
    let namespace = prop_oneof![Just(""), select(&NAMESPACES)];
    (select(&["get", "list", "watch", "update"]), select(&RESOURCES), any::<bool>(), namespace, select(&NAMES))
        .prop_map(|(verb, resource, status, namespace, name)| Asked { verb, resource, status, namespace, name })
}

/// Puts the world into the store, in the place of what was there.
async fn build(registry: &Registry, world: &World) {
    let mut txn = Txn::new();
    for prefix in
        ["/roles/", "/rolebindings/", "/clusterroles/", "/clusterrolebindings/", "/managedclustersetbindings/"]
    {
        for (key, _) in registry.store().list(prefix).0 {
            txn = txn.delete(key.to_string());
        }
    }
    for ((kind, namespace, name), object) in &world.objects {
        let plural = format!("{}s", kind.to_lowercase());
        let place = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        txn = txn.put(format!("/{plural}/{place}{name}"), object.to_string().into_bytes());
    }
    for name in MEMBERS {
        let sets = world.members.iter().filter(|member| member.0 == name).map(|member| (member.1, "yes"));
        let cluster = json!({
            "apiVersion": format!("{CLUSTER_GROUP}/v1"), "kind": "ManagedCluster",
            "metadata": {
                "name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": sets.collect::<std::collections::BTreeMap<_, _>>(),
            },
            "spec": {"hubAcceptsClient": false, "leaseDurationSeconds": 60}, "status": {"conditions": [], "agents": []},
        });
        txn = txn.put(format!("/managedclusters/{name}"), cluster.to_string().into_bytes());
    }
    for name in SET_NAMES {
        let set = json!({
            "apiVersion": format!("{CLUSTER_GROUP}/v1beta2"), "kind": "ManagedClusterSet", "metadata": {"name": name},
            "spec": {"clusterSelector": {"selectorType": "LabelSelector", "labelSelector": {"matchLabels": {name: "yes"}}}},
        });
        txn = txn.put(format!("/managedclustersets/{name}"), set.to_string().into_bytes());
    }
    registry.store().commit(txn).await.unwrap();
}

#[test]
fn requests_are_refused_exactly_when_the_oracle_denies_them() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Arc::new(Registry::open(folder.path().join("registry.redb")).unwrap());
    let server = Server::new(Arc::clone(&registry), "1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) };
    proptest!(config, |(world in world(), who in somebody(), requests in prop::collection::vec(asked(), 24))| {
        runtime.block_on(build(&registry, &world));
        let oracle = Oracle::new(&world);
        let (user, groups) = who;
        let asker = oracle.ask(&user, &groups);
        let caller = Caller { user, groups, ..Caller::default() };
        for asked in requests {
            let Some((method, uri)) = asked.request() else { continue };
            let request = Request::builder().method(method).uri(&uri).body(Bytes::new()).unwrap();
            let code = match runtime.block_on(server.answer(&request, &caller, StillValid(&|| true), Timestamp::UNIX_EPOCH)) {
                Answer::Whole(response) => response.status().as_u16(),
                Answer::Watch(response, _) => response.status().as_u16(),
            };
            prop_assert_eq!(code != 403, asked.is_allowed(&asker), "{} {} {:?}: {}", method, uri, asked, code);
        }
    });
    runtime.block_on(registry.close());
}
