//! Which answer a request gets, by its method and its path.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::answer::{self, Body};
use super::pods::{self, Selector};
use super::query::Query;
use super::session::{self, Session, Work};
use super::state::{Pod, State};
use super::streams::Wanted;
use super::{Seen, TOKEN, config_maps, discovery, identity, log, nodes, watch};

/// The most that a body may hold.
const LARGEST_BODY: usize = 1024 * 1024;

/// Answers a request, and hands a connection that is to be upgraded to `upgrades`.
pub(super) async fn answer(
    mut request: Request<Incoming>,
    state: &Arc<State>,
    upgrades: &mpsc::Sender<Session>,
) -> Response<Body> {
    state.record(Seen {
        version: request.version(),
        method: request.method().clone(),
        target: request.uri().to_string(),
        headers: request.headers().clone(),
    });
    if request.headers().get(header::AUTHORIZATION).is_none_or(|value| value != format!("Bearer {TOKEN}").as_str()) {
        return answer::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
    }
    // What asks for an upgrade has no body that ends.
    let upgrade = request.headers().contains_key(header::UPGRADE);
    let body = if upgrade { Bytes::new() } else { body(&mut request).await };
    route(&mut request, &body, state, upgrades)
}

fn route(
    request: &mut Request<Incoming>,
    body: &[u8],
    state: &Arc<State>,
    upgrades: &mpsc::Sender<Session>,
) -> Response<Body> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let path = request.uri().path().trim_matches('/').to_owned();
    let path: Vec<&str> = path.split('/').collect();
    if let ["api", "v1", "namespaces", "default", "pods", name, rest @ ..] = path.as_slice() {
        let Some(found) = state.pod(name) else {
            return answer::failure(StatusCode::NOT_FOUND, "NotFound", &format!("pods \"{name}\" not found"));
        };
        return pod(request, rest, &found, body, state, &query, upgrades);
    }
    if let Some(document) = discovery::document(&path) {
        return answer::json(&document);
    }
    let method = request.method().clone();
    match *path.as_slice() {
        ["healthz" | "livez" | "readyz"] => answer::text("ok"),
        ["openapi", "v2"] => answer::openapi_v2(discovery::OPENAPI_V2),
        ["api", "v1", "pods"] | ["api", "v1", "namespaces", "default", "pods"] => list(request, state, &query),
        ["api", "v1", "namespaces", _, "pods"] => answer::json(&pods::list(&[], state.revision(), as_table(request))),
        ["api", "v1", "namespaces", "default", "configmaps", ref name @ ..] if name.len() < 2 => {
            config_maps::answer(state, &method, name.first().copied(), body)
        }
        ["api", "v1", "namespaces", "default"] => answer::json(&json!({
            "kind": "Namespace", "apiVersion": "v1", "metadata": { "name": "default" }, "status": { "phase": "Active" },
        })),
        ["api", "v1", "namespaces", _, "events"] => {
            answer::json(&json!({ "kind": "EventList", "apiVersion": "v1", "metadata": {}, "items": [] }))
        }
        ["api", "v1", "services"] => {
            let from = query.get("continue").and_then(|next| next.parse().ok()).unwrap_or_default();
            let (items, next) = state.services(from);
            let next = next.map(|next| next.to_string()).unwrap_or_default();
            let metadata = json!({ "continue": next });
            answer::json(&json!({ "kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": items }))
        }
        ["api", "v1", "nodes"] => answer::json(&nodes::list(state)),
        ["api", "v1", "nodes", nodes::NODE] if method == Method::PATCH => {
            answer::json(&nodes::patch(state, &object(body)))
        }
        ["api", "v1", "nodes", nodes::NODE] => answer::json(&nodes::object(state)),
        ["apis", "metrics.k8s.io", "v1beta1", "nodes"] => answer::json(&nodes::metrics()),
        ["apis", "metrics.k8s.io", "v1beta1", "pods"]
        | ["apis", "metrics.k8s.io", "v1beta1", "namespaces", "default", "pods"] => {
            answer::json(&nodes::pod_metrics(&state.pods()))
        }
        ["apis", "authentication.k8s.io", version, "selfsubjectreviews"] if method == Method::POST => {
            answer::created(&identity::self_subject_review(version, request.headers()))
        }
        _ => unknown(),
    }
}

/// What concerns one pod.
fn pod(
    request: &mut Request<Incoming>,
    rest: &[&str],
    pod: &Pod,
    body: &[u8],
    state: &Arc<State>,
    query: &Query,
    upgrades: &mpsc::Sender<Session>,
) -> Response<Body> {
    let method = request.method().clone();
    let refused = state.websockets_refused();
    match rest {
        [] if method == Method::DELETE => {
            state.delete_pod(&pod.name);
            answer::json(&pods::object(pod))
        }
        [] => answer::json(&pods::one(pod, state.revision(), as_table(request))),
        ["log"] => log::answer(state.watch(), &pod.name, query),
        ["eviction"] if method == Method::POST => {
            state.delete_pod(&pod.name);
            answer::created(&json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" }))
        }
        ["ephemeralcontainers"] if method == Method::PATCH => {
            state.set_ephemeral(&pod.name, &pods::with_ephemeral(pod, &object(body)));
            state.pod(&pod.name).map_or_else(unknown, |pod| answer::json(&pods::object(&pod)))
        }
        ["exec"] => {
            let command = query.all("command").map(str::to_owned).collect();
            exec(request, pod, command, state, query, upgrades)
        }
        ["attach"] => {
            let container = query.get("container").unwrap_or_default();
            if let Some(command) = pods::ephemeral_command(pod, container) {
                return exec(request, pod, command, state, query, upgrades);
            }
            let wanted = Wanted::parse(query);
            let work = Work::Attach { state: Arc::clone(state), pod: pod.name.clone(), wanted };
            session::answer(request, work, refused, upgrades)
        }
        ["portforward"] => session::answer(request, Work::Forward(pod.ports.clone()), refused, upgrades),
        _ => unknown(),
    }
}

fn exec(
    request: &mut Request<Incoming>,
    pod: &Pod,
    command: Vec<String>,
    state: &State,
    query: &Query,
    upgrades: &mpsc::Sender<Session>,
) -> Response<Body> {
    match state.folder(&pod.name) {
        Ok(folder) => {
            let work = Work::Exec { command, folder, wanted: Wanted::parse(query) };
            session::answer(request, work, state.websockets_refused(), upgrades)
        }
        Err(error) => {
            let message = format!("the pod has no file system: {error}");
            answer::failure(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", &message)
        }
    }
}

fn list(request: &Request<Incoming>, state: &State, query: &Query) -> Response<Body> {
    let table = as_table(request);
    let selector = Selector::parse(query);
    if matches!(query.get("watch"), Some("true" | "1")) {
        if query.get("sendInitialEvents").is_some() {
            // As servers without streamed lists say it, so that clients list instead.
            let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch";
            return answer::failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message);
        }
        let since = query.get("resourceVersion").and_then(|revision| revision.parse().ok());
        return watch::answer(state.watch(), since, selector, table);
    }
    let mut found = state.pods();
    found.retain(|pod| selector.takes(pod));
    answer::json(&pods::list(&found, state.revision(), table))
}

/// Whether the client wants rows to print instead of objects.
fn as_table(request: &Request<Incoming>) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("as=Table"))
}

/// The body; empty where it does not come or is too large.
async fn body(request: &mut Request<Incoming>) -> Bytes {
    let body = Limited::new(request.body_mut(), LARGEST_BODY).collect().await;
    body.map(|body| body.to_bytes()).unwrap_or_default()
}

/// A body as JSON; null where it is none.
fn object(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_default()
}

fn unknown() -> Response<Body> {
    answer::failure(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
}
