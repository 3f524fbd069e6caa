//! The server on a real store: what is answered to a request, and what holds afterwards.

mod admission;
mod decisions;
mod deletion;
mod documents;
mod grants;
mod growth;
mod membership;
mod reads;
mod rights;
mod scale;
mod truth;
mod turns;
mod visibility;
mod watches;
mod writes;

use std::time::Duration;

use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::kube::rbac::MASTERS;

const CLUSTERS: &str = "/apis/cluster.open-cluster-management.io/v1/managedclusters";
const SETS: &str = "/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const NAMESPACES: &str = "/api/v1/namespaces";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with what every hub has from its beginning.
struct Hub {
    _folder: TempDir,
    registry: Arc<Registry>,
    server: Server,
}

/// Somebody who asks.
struct Client<'a> {
    hub: &'a Hub,
    caller: Caller,
}

/// A whole answer.
#[derive(Debug)]
struct Reply {
    code: u16,
    headers: HeaderMap,
    /// Null where the answer is no JSON.
    body: Value,
}

/// A watch that was opened.
struct Watching(Box<Frames>);

impl Hub {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(folder.path().join("registry.redb")).unwrap());
        registry.bootstrap(now()).await.unwrap();
        let server = Server::new(Arc::clone(&registry), "1.2.3");
        Self { _folder: folder, registry, server }
    }

    /// The agent `a1` asks to join the cluster `c1`, by a token that is bound to it.
    async fn join_c1(&self, auto_accept: bool) {
        let new = crate::NewToken {
            cluster: Some("c1".parse().unwrap()),
            auto_accept,
            reusable: false,
            time_to_live: Duration::from_secs(60),
            created_by: "root".to_owned(),
        };
        let ask = crate::join::JoinAsk {
            token: self.registry.create_token(new, now()).await.unwrap().1,
            cluster: None,
            agent: "a1".parse().unwrap(),
            key: format!("sha256:{:064x}", 1).parse().unwrap(),
            version: String::new(),
            request: Vec::new(),
            address: None,
        };
        self.registry.request_join(ask, now()).await.unwrap();
    }

    fn admin(&self) -> Client<'_> {
        self.client("root", &[MASTERS])
    }

    /// A user without rights of their own.
    fn user(&self, name: &str) -> Client<'_> {
        self.client(name, &[])
    }

    fn client(&self, name: &str, groups: &[&str]) -> Client<'_> {
        let groups = groups.iter().chain(&["system:authenticated"]).map(|&group| group.to_owned()).collect();
        Client { hub: self, caller: Caller { user: name.to_owned(), groups, ..Caller::default() } }
    }

    /// Gives a user rights in a namespace; everywhere, when it is empty. What they had from an earlier call is replaced.
    async fn grant(&self, user: &str, namespace: &str, rules: Value) {
        let (at, role, binding) = match namespace {
            "" => (RBAC.to_owned(), "ClusterRole", "ClusterRoleBinding"),
            own => (format!("{RBAC}/namespaces/{own}"), "Role", "RoleBinding"),
        };
        let admin = self.admin();
        let kind = role.to_lowercase();
        admin.put(&format!("{at}/{kind}s/{user}"), json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": role, "metadata": {"name": user}, "rules": rules,
        })).await.or_create(&admin, &format!("{at}/{kind}s")).await;
        admin
            .put(
                &format!("{at}/{}s/{user}", binding.to_lowercase()),
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": binding, "metadata": {"name": user},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": user},
                    "subjects": [{"kind": "User", "name": user}],
                }),
            )
            .await
            .or_create(&admin, &format!("{at}/{}s", binding.to_lowercase()))
            .await;
    }
}

impl Client<'_> {
    /// One request; a watch is an error here.
    async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Reply {
        match self.answer(method, uri, headers, body).await {
            Answer::Whole(response) => {
                let (head, body) = response.into_parts();
                let body = serde_json::from_slice(&body).unwrap_or_default();
                Reply { code: head.status.as_u16(), headers: head.headers, body }
            }
            Answer::Watch(..) => panic!("{method} {uri} is a watch"),
        }
    }

    async fn answer(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let still = StillValid(&|| true);
        self.hub.server.answer(&request.body(body.into()).unwrap(), &self.caller, still, now()).await
    }

    async fn get(&self, uri: &str) -> Reply {
        self.send("GET", uri, &[], "").await
    }

    async fn post(&self, uri: &str, body: Value) -> Reply {
        self.send("POST", uri, &[("content-type", "application/json")], body.to_string()).await
    }

    async fn put(&self, uri: &str, body: Value) -> Reply {
        let mut reply = self.send("PUT", uri, &[("content-type", "application/json")], body.to_string()).await;
        if reply.code == 404 {
            reply.headers.clear();
            reply.body["sent"] = body;
        }
        reply
    }

    async fn patch(&self, uri: &str, patch: Value) -> Reply {
        self.send("PATCH", uri, &[("content-type", MERGE)], patch.to_string()).await
    }

    async fn apply(&self, uri: &str, object: Value) -> Reply {
        self.send("PATCH", uri, &[("content-type", APPLY)], object.to_string()).await
    }

    async fn delete(&self, uri: &str) -> Reply {
        self.send("DELETE", uri, &[], "").await
    }

    async fn watch(&self, uri: &str) -> Result<Watching, Reply> {
        let mark = if uri.contains('?') { '&' } else { '?' };
        match self.answer("GET", &format!("{uri}{mark}watch=true"), &[], "").await {
            Answer::Watch(_, frames) => Ok(Watching(frames)),
            Answer::Whole(response) => {
                let code = response.status().as_u16();
                let body = serde_json::from_slice(response.body()).unwrap_or_default();
                Err(Reply { code, headers: HeaderMap::new(), body })
            }
        }
    }

    async fn opened(&self, uri: &str) -> Watching {
        self.watch(uri).await.unwrap_or_else(|reply| panic!("{uri}: {reply:?}"))
    }

    /// The names in a list.
    async fn names(&self, uri: &str) -> Vec<String> {
        names(&self.get(uri).await.ok())
    }
}

impl Reply {
    /// The body of a success.
    #[track_caller]
    fn ok(self) -> Value {
        assert!((200..300).contains(&self.code), "{} {}", self.code, self.body);
        self.body
    }

    /// Code, reason and message of a failure.
    #[track_caller]
    fn failed(&self) -> (u16, &str, &str) {
        assert_eq!(self.body["kind"], "Status", "{self:?}");
        assert_eq!(self.body["code"], self.code);
        (self.code, self.body["reason"].as_str().unwrap(), self.body["message"].as_str().unwrap())
    }

    #[track_caller]
    fn refused(&self, code: u16, reason: &str) {
        let (found, said, message) = self.failed();
        assert_eq!((found, said), (code, reason), "{message}");
    }

    /// Makes what a PUT has not found.
    async fn or_create(self, client: &Client<'_>, uri: &str) {
        if self.code == 404 {
            client.post(uri, self.body["sent"].clone()).await.ok();
        } else {
            self.ok();
        }
    }
}

impl Watching {
    /// The next event: its type and its object.
    async fn next(&mut self) -> (String, Value) {
        let frame = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("an event in time");
        event(&frame.expect("an event before the end"))
    }

    /// The events that are there already.
    async fn told(&mut self) -> Vec<(String, Value)> {
        let mut told = Vec::new();
        while let Ok(frame) = tokio::time::timeout(Duration::ZERO, self.0.next()).await {
            told.push(event(&frame.expect("an event before the end")));
        }
        told
    }

    /// The same, as types and names.
    async fn said(&mut self) -> Vec<String> {
        self.told().await.iter().map(|(kind, object)| format!("{kind} {}", object::name(object))).collect()
    }
}

fn event(frame: &[u8]) -> (String, Value) {
    assert!(frame.ends_with(b"\n"));
    let mut frame: Value = serde_json::from_slice(frame).unwrap();
    (frame["type"].as_str().unwrap().to_owned(), frame["object"].take())
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn names(list: &Value) -> Vec<String> {
    list["items"].as_array().unwrap().iter().map(|item| object::name(item).to_owned()).collect()
}

fn cluster(name: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "cluster.open-cluster-management.io/v1", "kind": "ManagedCluster",
        "metadata": {"name": name, "labels": labels}, "spec": {},
    })
}

/// A set that holds the clusters with all these labels.
fn set(name: &str, labels: Value) -> Value {
    json!({
        "apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSet",
        "metadata": {"name": name},
        "spec": {"clusterSelector": {"selectorType": "LabelSelector", "labelSelector": {"matchLabels": labels}}},
    })
}

fn set_binding(set: &str) -> Value {
    json!({
        "apiVersion": "cluster.open-cluster-management.io/v1beta2", "kind": "ManagedClusterSetBinding",
        "metadata": {"name": set}, "spec": {"clusterSet": set},
    })
}

fn secret(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}})
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn rule(group: &str, resources: &[&str], verbs: &[&str], names: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs, "resourceNames": names})
}

fn resource_version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}
