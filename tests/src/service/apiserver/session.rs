//! A connection that is being upgraded: what was negotiated, and what runs on it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::answer::{self, Body};
use super::port_forward::{self, Ports};
use super::spdy::{self, Connection};
use super::state::State;
use super::streams::{Streams, Wanted};
use super::websocket::{self, channels, tunnel};
use super::{attach, process, status};

/// Subprotocols of WebSockets for commands, newest first: the first that a client offers is taken.
const COMMAND_WEBSOCKET: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const COMMAND_SPDY: [&str; 1] = ["v4.channel.k8s.io"];
const FORWARD_WEBSOCKET: [&str; 1] = ["SPDY/3.1+portforward.k8s.io"];
const FORWARD_SPDY: [&str; 1] = ["portforward.k8s.io"];
const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");

/// What runs on a connection.
pub(super) enum Work {
    /// A command of a container.
    Exec { command: Vec<String>, folder: PathBuf, wanted: Wanted },
    /// The main process of a pod.
    Attach { state: Arc<State>, pod: String, wanted: Wanted },
    /// Connections to ports of a pod.
    Forward(Ports),
}

/// What carries it.
enum Transport {
    WebSocket { accept: HeaderValue, protocol: &'static str },
    Spdy { protocol: &'static str },
}

/// Work about to be done on a connection that is being upgraded.
pub(super) struct Session {
    upgrade: OnUpgrade,
    websocket: bool,
    work: Work,
}

/// Answers a request for `work`; the session runs when the connection has been upgraded.
pub(super) fn answer(
    request: &mut Request<Incoming>,
    work: Work,
    refused: Option<StatusCode>,
    upgrades: &mpsc::Sender<Session>,
) -> Response<Body> {
    let Some(transport) = negotiate(request.headers(), &work) else {
        let message = "this is served over a WebSocket or SPDY/3.1, with a subprotocol that both know";
        return answer::failure(StatusCode::BAD_REQUEST, "BadRequest", message);
    };
    let websocket = matches!(transport, Transport::WebSocket { .. });
    if let Some(refused) = refused.filter(|_| websocket) {
        return answer::failure(refused, "BadRequest", "you must specify an upgrade to SPDY/3.1");
    }
    let session = Session { upgrade: hyper::upgrade::on(&mut *request), websocket, work };
    if upgrades.try_send(session).is_err() {
        return answer::failure(StatusCode::BAD_REQUEST, "BadRequest", "this connection cannot be upgraded");
    }
    let mut response = answer::text("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    match transport {
        Transport::WebSocket { accept, protocol } => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        Transport::Spdy { protocol } => {
            headers.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
            headers.insert(STREAM_PROTOCOL, HeaderValue::from_static(protocol));
        }
    }
    response
}

/// What the client offers that is spoken here for such work.
fn negotiate(headers: &HeaderMap, work: &Work) -> Option<Transport> {
    let (websocket, spdy) = match work {
        Work::Exec { .. } | Work::Attach { .. } => (COMMAND_WEBSOCKET.as_slice(), COMMAND_SPDY.as_slice()),
        Work::Forward(_) => (FORWARD_WEBSOCKET.as_slice(), FORWARD_SPDY.as_slice()),
    };
    let upgrade = headers.get(header::UPGRADE)?.to_str().ok()?;
    if upgrade.eq_ignore_ascii_case("websocket") {
        let accept = derive_accept_key(headers.get(header::SEC_WEBSOCKET_KEY)?.as_bytes()).parse().ok()?;
        return Some(Transport::WebSocket {
            accept,
            protocol: chosen(headers, &header::SEC_WEBSOCKET_PROTOCOL, websocket)?,
        });
    }
    upgrade.eq_ignore_ascii_case("SPDY/3.1").then_some(())?;
    Some(Transport::Spdy { protocol: chosen(headers, &STREAM_PROTOCOL, spdy)? })
}

/// The first of `known` among the comma-separated values of a field.
fn chosen(headers: &HeaderMap, field: &HeaderName, known: &[&'static str]) -> Option<&'static str> {
    let values = headers.get_all(field).into_iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
    known.iter().copied().find(|known| offered.contains(known))
}

impl Session {
    /// Runs it to its end, or until the client leaves.
    pub(super) async fn run(self) -> io::Result<()> {
        let upgraded = self.upgrade.await.map_err(io::Error::other)?;
        let (wanted, work) = match self.work {
            Work::Forward(ports) => {
                let connection = match self.websocket {
                    true => Connection::start(tunnel::open(websocket::accept(upgraded).await))?,
                    false => Connection::start(TokioIo::new(upgraded))?,
                };
                return port_forward::serve(connection, ports).await;
            }
            Work::Exec { wanted, .. } | Work::Attach { wanted, .. } => (wanted, self.work),
        };
        let run = |streams| work.run(streams);
        if self.websocket {
            channels::serve(websocket::accept(upgraded).await, wanted, run).await.map_err(io::Error::other)
        } else {
            spdy::channels::serve(Connection::start(TokioIo::new(upgraded))?, wanted, run).await
        }
    }
}

impl Work {
    fn run(self, streams: Streams) -> BoxFuture<'static, Value> {
        let status = async move {
            match self {
                Self::Exec { command, folder, .. } => match process::run(&command, &folder, streams).await {
                    Ok(code) => status::exited(code),
                    Err(error) => status::failed(&format!("error executing command {command:?} in container: {error}")),
                },
                Self::Attach { state, pod, .. } => {
                    attach::run(state, &pod, streams).await;
                    status::exited(0)
                }
                Self::Forward(_) => status::exited(0),
            }
        };
        status.boxed()
    }
}

#[cfg(test)]
mod tests;
