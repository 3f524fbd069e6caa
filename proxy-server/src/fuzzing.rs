//! Doors for the fuzz targets to what reads strangers' bytes, in plain types. Only with the feature `fuzzing`.

use std::sync::Arc;

use certs::ClusterName;
use http::{Request, StatusCode};
use tokio::{net::UnixStream, sync::Semaphore};

use crate::{
    frontend::client::{Client, Transport},
    frontend::forward,
    frontend::head::{self, Head},
    frontend::socks5,
    proxy::caller::{Credentials, PresentedCredentials},
    proxy::route::{Naming, Target},
};

pub use crate::{
    frontend::konnectivity::fuzzing::{FuzzedEvent, FuzzedStream, correct_authorities, with_authorities_corrected},
    gateway::fuzzing::{Way, gateway_path},
};

/// What the first head of a connection says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    Connect { authority: String, authorization: Option<Vec<u8>> },
    Http2,
    Other,
}

/// What a SOCKS5 client has said when its target is known.
#[derive(Debug, PartialEq, Eq)]
pub struct Asked {
    pub host: String,
    pub port: u16,
    pub user: Option<String>,
    pub token: Option<String>,
    /// What it has sent beyond its request.
    pub ahead: Vec<u8>,
}

/// The first head and its length; `None` as long as it is not whole.
pub fn first_head(bytes: &[u8]) -> Result<Option<(usize, First)>, String> {
    let parsed = head::parse(bytes).map_err(|error| error.to_string())?;
    Ok(parsed.map(|(length, head)| {
        let first = match head {
            Head::Connect { authority, authorization } => First::Connect { authority, authorization },
            Head::Http2 => First::Http2,
            Head::Other => First::Other,
        };
        (length, first)
    }))
}

/// `host:port` of a request-target.
pub fn host_and_port(authority: &str) -> Option<(&str, u16)> {
    head::host_and_port(authority)
}

/// User name and token of an `Authorization` or `Proxy-Authorization`.
pub fn credentials(value: &[u8]) -> Option<(Option<String>, Option<String>)> {
    let credentials = Credentials::parse(value).ok()?;
    let token = credentials.token().map(str::to_owned);
    Some((credentials.name, token))
}

/// The cluster that a naming means and the host and port in it, none for its Kubernetes API.
pub fn route(
    proxy_user: Option<&str>,
    listener: Option<&ClusterName>,
    host: &str,
    port: u16,
    domain: &str,
) -> Option<(ClusterName, Option<(String, u16)>)> {
    let route = crate::proxy::route::route(Naming { proxy_user, listener, host, port }, domain).ok()?;
    let inside = match route.target {
        Target::Tcp { host, port } => Some((host, port)),
        Target::KubeApi | Target::KubeGateway(_) | Target::Tls { .. } => None,
    };
    Some((route.cluster, inside))
}

/// Where an absolute-form request goes, and what its target is sent.
pub fn forwarded(request: Request<()>, upgrade: bool) -> Result<((String, u16), Request<()>), StatusCode> {
    let target = forward::target(&request).map_err(|(status, _)| status)?;
    let request = forward::for_target(request, upgrade).map_err(|(status, _)| status)?;
    Ok((target, request))
}

/// A SOCKS5 conversation up to the dial; `known` is a client that its socket's permissions vouch for.
pub async fn socks5(socket: UnixStream, known: bool) -> Option<Asked> {
    let room = Arc::new(Semaphore::new(1)).try_acquire_owned().ok()?;
    let mut client = Client::new(Transport::Unix(socket), room);
    let mut shown = PresentedCredentials { uid: known.then_some(0), ..PresentedCredentials::default() };
    let (host, port) = socks5::negotiate(&mut client, &mut shown).await.ok()?;
    let token = shown.credentials.token().map(str::to_owned);
    Some(Asked { host, port, user: shown.credentials.name, token, ahead: client.ahead().to_vec() })
}
