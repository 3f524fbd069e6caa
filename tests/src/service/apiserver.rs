//! A double of a spoke's kube-apiserver: as much of it as stock kubectl needs for what an operator does all day.
//!
//! It holds the pods of one namespace, `default`, which a scenario adds and deletes, on one node, and the ConfigMaps that clients
//! write. A command in a pod is a process of this machine, in a folder that is the pod's file system, and a port of a pod is a
//! service of this machine; only its relative paths are in that folder. It speaks TLS with HTTP/1.1 and HTTP/2, WebSockets and SPDY/3.1, and wants one bearer token.

mod answer;
mod attach;
mod config_maps;
mod discovery;
mod identity;
mod log;
mod nodes;
mod pods;
mod port_forward;
mod process;
mod query;
mod routes;
mod session;
mod spdy;
mod state;
mod status;
mod streams;
mod terminal;
mod watch;
mod websocket;

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, StatusCode, Version};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::Service;
use super::authority::TargetAuthority;
use crate::kubeconfig::Kubeconfig;
use state::State;

/// The one token it takes.
pub const TOKEN: &str = "token-of-the-spoke";

/// HTTP/2's name in TLS.
const HTTP2: &[u8] = b"h2";

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
    /// The version of HTTP.
    pub version: Version,
    /// The method.
    pub method: Method,
    /// Path and query, as they came.
    pub target: String,
    /// The header fields.
    pub headers: HeaderMap,
}

/// Lets HTTP/2's requests run; they end with their connection.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}

impl ApiServer {
    /// Starts one without pods, whose certificate says `names` besides this machine's.
    pub async fn start(authority: &TargetAuthority, names: &[&str]) -> anyhow::Result<Self> {
        let mut config = Arc::unwrap_or_clone(authority.server_config(names)?);
        config.alpn_protocols.insert(0, HTTP2.to_vec());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let state = Arc::new(State::new()?);
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

    /// Makes a port of a pod this service.
    pub fn forward(&self, pod: &str, port: u16, target: SocketAddr) {
        self.state.forward(pod, port, target);
    }

    /// The folder that is a pod's file system and its commands' working directory.
    pub fn folder(&self, pod: &str) -> io::Result<PathBuf> {
        self.state.folder(pod)
    }

    /// Refuses WebSockets from now on, as old servers do with 400 and some proxies with 403; clients may fall back to SPDY.
    pub fn refuse_websockets(&self, status: StatusCode) {
        self.state.change(|cluster| cluster.websockets_refused = Some(status));
    }

    /// The newest requests it got, oldest first.
    pub fn requests(&self) -> Vec<Seen> {
        self.state.requests()
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<State>) -> io::Result<()> {
    let stream = acceptor.accept(stream).await?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
    // A connection is upgraded at most once; what then runs on it, runs here.
    let (upgrades, mut upgraded) = mpsc::channel(1);
    let service = service_fn(move |request| {
        let (state, upgrades) = (Arc::clone(&state), upgrades.clone());
        async move { Ok::<_, Infallible>(routes::answer(request, &state, &upgrades).await) }
    });
    if http2 {
        let tasks = TaskTracker::new();
        let mut server = http2::Builder::new(Tracked(tasks));
        server.timer(TokioTimer::new());
        return server.serve_connection(TokioIo::new(stream), service).await.map_err(io::Error::other);
    }
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    server.serve_connection(TokioIo::new(stream), service).with_upgrades().await.map_err(io::Error::other)?;
    match upgraded.recv().await {
        Some(session) => session.run().await,
        None => Ok(()),
    }
}
