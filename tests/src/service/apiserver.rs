//! A double of a spoke's kube-apiserver: as much of it as stock kubectl needs to get, watch, follow logs and exec.
//!
//! It holds the pods of one namespace, `default`, which a scenario adds and deletes. Their containers can run the few commands of
//! [`exec`]. It speaks TLS with HTTP/1.1, and wants one bearer token.

mod answer;
mod discovery;
pub mod exec;
mod log;
mod pods;
mod query;
mod state;
mod watch;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::Service;
use super::authority::TargetAuthority;
use crate::kubeconfig::Kubeconfig;
use answer::Body;
use query::Query;
use state::State;

/// The one token it takes.
pub const TOKEN: &str = "token-of-the-spoke";

/// The server, with the commands by which a scenario changes what its clients see.
#[derive(Debug)]
pub struct ApiServer {
    service: Service,
    state: Arc<State>,
    authority: String,
}

/// A request it got.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The method.
    pub method: Method,
    /// Path and query, as they came.
    pub target: String,
    /// The header fields.
    pub headers: HeaderMap,
}

impl ApiServer {
    /// Starts one without pods, whose certificate says `names` besides this machine's.
    pub async fn start(authority: &TargetAuthority, names: &[&str]) -> anyhow::Result<Self> {
        let acceptor = TlsAcceptor::from(authority.server_config(names)?);
        let state = Arc::new(State::default());
        let served = Arc::clone(&state);
        let service = Service::start(move |stream| serve(stream, acceptor.clone(), Arc::clone(&served))).await?;
        Ok(Self { service, state, authority: authority.pem() })
    }

    /// The service itself.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.service.address()
    }

    /// A kubeconfig that calls it `https://HOST:PORT`, trusts its authority and carries [`TOKEN`].
    pub fn kubeconfig(&self, server: impl Into<String>) -> Kubeconfig {
        Kubeconfig::new(server, &self.authority, TOKEN)
    }

    /// Adds a running pod of that name; watchers see `ADDED`.
    pub fn add_pod(&self, name: &str) {
        self.state.add_pod(name);
    }

    /// Adds a service, a whole object of Kubernetes' v1. They are listed two at a time, whatever the selector.
    pub fn add_service(&self, service: Value) {
        self.state.add_service(service);
    }

    /// Deletes a pod; watchers see `DELETED`. Followers of its log are ended.
    pub fn delete_pod(&self, name: &str) {
        self.state.delete_pod(name);
    }

    /// Adds a line to a pod's log; followers see it at once.
    pub fn log(&self, pod: &str, line: &str) {
        self.state.log(pod, line);
    }

    /// Ends a pod's log: its followers end cleanly.
    pub fn end_log(&self, pod: &str) {
        self.state.end_log(pod);
    }

    /// The newest requests it got, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.requests()
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) -> io::Result<()> {
    let stream = acceptor.accept(stream).await?;
    // A connection is upgraded at most once; what then runs on it, runs here.
    let (upgrade, mut upgraded) = mpsc::channel(1);
    let service = service_fn(move |request| {
        let (state, upgrade) = (Arc::clone(&state), upgrade.clone());
        async move { Ok::<_, Infallible>(answer(request, &state, &upgrade)) }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    server.serve_connection(TokioIo::new(stream), service).with_upgrades().await.map_err(io::Error::other)?;
    match upgraded.recv().await {
        Some(session) => session.run().await.map_err(io::Error::other),
        None => Ok(()),
    }
}

fn answer(mut request: Request<Incoming>, state: &Arc<State>, upgrade: &mpsc::Sender<exec::Session>) -> Response<Body> {
    state.record(Seen {
        method: request.method().clone(),
        target: request.uri().to_string(),
        headers: request.headers().clone(),
    });
    if request.headers().get(header::AUTHORIZATION).is_none_or(|value| value != format!("Bearer {TOKEN}").as_str()) {
        return answer::failure(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized");
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let path = request.uri().path().trim_matches('/').to_owned();
    let path: Vec<&str> = path.split('/').collect();
    if let Some(document) = discovery::document(&path) {
        return answer::json(&document);
    }
    match *path.as_slice() {
        ["healthz" | "livez" | "readyz"] => answer::text("ok"),
        ["api", "v1", "pods"] | ["api", "v1", "namespaces", "default", "pods"] => list(&request, state, &query),
        ["api", "v1", "services"] => {
            let from = query.get("continue").and_then(|next| next.parse().ok()).unwrap_or_default();
            let (items, next) = state.services(from);
            let next = next.map(|next| next.to_string()).unwrap_or_default();
            let metadata = json!({ "continue": next });
            answer::json(&json!({ "kind": "ServiceList", "apiVersion": "v1", "metadata": metadata, "items": items }))
        }
        ["api", "v1", "namespaces", _, "pods"] => answer::json(&pods::list(&[], state.revision(), as_table(&request))),
        ["api", "v1", "namespaces", "default", "pods", name, ref rest @ ..] => {
            let Some(pod) = state.pod(name) else {
                return answer::failure(StatusCode::NOT_FOUND, "NotFound", &format!("pods \"{name}\" not found"));
            };
            match rest {
                [] => answer::json(&pods::one(&pod, state.revision(), as_table(&request))),
                ["log"] => log::answer(state.watch(), name, &query),
                ["exec"] => exec::answer(&mut request, &query, upgrade),
                _ => unknown(),
            }
        }
        _ => unknown(),
    }
}

fn list(request: &Request<Incoming>, state: &State, query: &Query) -> Response<Body> {
    let table = as_table(request);
    let name = query.get("fieldSelector").and_then(|selector| selector.strip_prefix("metadata.name="));
    if matches!(query.get("watch"), Some("true" | "1")) {
        let since = query.get("resourceVersion").and_then(|revision| revision.parse().ok());
        return watch::answer(state.watch(), since, name, table);
    }
    let mut found = state.pods();
    found.retain(|pod| name.is_none_or(|name| pod.name == name));
    answer::json(&pods::list(&found, state.revision(), table))
}

/// Whether the client wants rows to print instead of objects.
fn as_table(request: &Request<Incoming>) -> bool {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("as=Table"))
}

fn unknown() -> Response<Body> {
    answer::failure(StatusCode::NOT_FOUND, "NotFound", "the server could not find the requested resource")
}
