//! The kube gateway: hubs' HTTP requests, sent on to the spoke's kube-apiserver as the user whom the hub has authenticated.
//!
//! The spoke's credential never leaves the spoke, and the spoke's own RBAC decides. Who the user is comes from the hub's
//! [`Identity`], never from a header of the request.

mod account;
mod groups;
mod headers;
mod upstream;

use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full, Limited, combinators::UnsyncBoxBody};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::service_fn,
    upgrade::{OnUpgrade, Parts},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tunnel::{Identity, Metered, Reason, Refusal, RelayEnd, Stream, Traffic, hop, relay_upgraded};

use crate::{cause::with_cause, policy::Policy, target::Target, target::dial::Dialer};

use account::Account;
pub use groups::{GroupPattern, GroupPatternError};
use headers::HeaderError;
use upstream::{Upstream, UpstreamError};

/// Where Kubernetes puts a pod's own credentials
/// (<https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/>).
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// How long the hub may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// What the agent itself asks: how long an answer may take, and how large it may be.
const GET_TIMEOUT: Duration = Duration::from_secs(20);
const GET_LIMIT: usize = 8 * 1024 * 1024;

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// How the gateway works.
#[derive(Clone, Debug)]
pub struct GatewayConfig {
    pub mode: GatewayMode,
    /// PEM file with the CA of the kube-apiserver.
    pub ca: PathBuf,
    /// File with the token of a service account that may impersonate.
    pub token: PathBuf,
    /// The groups of the hub's users that are handed on; empty for all that Kubernetes does not reserve (`system:`).
    pub groups: Vec<GroupPattern>,
}

/// As for any pod.
impl Default for GatewayConfig {
    fn default() -> Self {
        let file = |name| PathBuf::from(SERVICE_ACCOUNT).join(name);
        Self { mode: GatewayMode::default(), ca: file("ca.crt"), token: file("token"), groups: Vec::new() }
    }
}

/// With whose rights requests reach the kube-apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum GatewayMode {
    /// The hub's user is impersonated by the agent's service account.
    #[default]
    Impersonate,
    /// The user's own token for the spoke is handed on.
    Token,
    /// There is no gateway.
    Off,
}

/// What serves the streams of kind [`tunnel::TargetKind::KubeGateway`].
#[derive(Debug)]
pub(crate) struct Gateway {
    mode: GatewayMode,
    account: Account,
    groups: Vec<GroupPattern>,
    upstream: Upstream,
}

/// Why a request was not sent on, or got no answer.
#[derive(Debug, thiserror::Error)]
enum GatewayError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error(
        "this cluster takes users by tokens of their own (the agent's --gateway token), and nobody speaks for another; leave \
         --as out"
    )]
    OwnToken,
    #[error(transparent)]
    Account(#[from] account::AccountError),
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
}

/// Why the agent itself got no answer from the kube-apiserver.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    #[error(transparent)]
    Account(account::AccountError),
    #[error(transparent)]
    Upstream(UpstreamError),
    #[error("the request cannot be made")]
    Request(#[source] http::Error),
    #[error("the kube-apiserver answered {0}")]
    Status(StatusCode),
    #[error("the kube-apiserver's answer broke off, or is larger than {} MiB", GET_LIMIT >> 20)]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the kube-apiserver did not answer within {} s", GET_TIMEOUT.as_secs())]
    TimedOut,
}

/// Both ends of an upgraded connection.
type Upgraded = [OnUpgrade; 2];

impl Gateway {
    pub(crate) fn new(
        config: GatewayConfig,
        target: Target,
        dialer: Dialer,
        policy: Policy,
        cut: CancellationToken,
    ) -> Self {
        let GatewayConfig { mode, ca, token, groups } = config;
        let upstream = Upstream::new(target, dialer, policy, ca, cut);
        Self { mode, account: Account::new(token), groups, upstream }
    }

    /// Where requests go, if they can; else what to do about it.
    pub(crate) async fn ready(&self) -> Result<String, Refusal> {
        let refuse = |message: String| Refusal::new(Reason::KindNotSupported, message);
        match self.mode {
            GatewayMode::Off => Err(refuse("the agent's kube gateway is off; start the agent with --gateway".into())),
            GatewayMode::Token => Ok(self.upstream.target().to_string()),
            GatewayMode::Impersonate => match self.account.bearer().await {
                Ok(_) => Ok(self.upstream.target().to_string()),
                Err(error) => Err(refuse(error.to_string())),
            },
        }
    }

    /// Asks the kube-apiserver as the agent's service account.
    pub(crate) async fn get(&self, path: &str) -> Result<Bytes, GetError> {
        let asking = async {
            let bearer = self.account.bearer().await.map_err(GetError::Account)?;
            let request = Request::get(path).header(header::AUTHORIZATION, bearer);
            let request = request.header(header::ACCEPT, "application/json");
            let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let request = request.body(empty).map_err(GetError::Request)?;
            let response = self.upstream.send(request, false).await.map_err(GetError::Upstream)?;
            if response.status() != StatusCode::OK {
                return Err(GetError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), GET_LIMIT).collect().await;
            Ok(body.map_err(GetError::Body)?.to_bytes())
        };
        tokio::time::timeout(GET_TIMEOUT, asking).await.unwrap_or(Err(GetError::TimedOut))
    }

    /// Waits until no connection to the kube-apiserver is left; they end with the cut.
    pub(crate) async fn closed(&self) {
        self.upstream.closed().await;
    }

    /// Serves the hub's requests on `stream` to its end; says how it ended.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        stream: Stream,
        identity: Identity,
        traffic: Arc<Traffic>,
    ) -> &'static str {
        let identity = Arc::new(identity);
        // A connection is upgraded at most once.
        let (upgraded, mut upgrades) = mpsc::channel::<Upgraded>(1);
        let service = service_fn(|request| {
            let (gateway, identity, upgraded) = (self.clone(), identity.clone(), upgraded.clone());
            async move { Ok::<_, Infallible>(gateway.answer(request, &identity, &upgraded).await) }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let served = http.serve_connection(TokioIo::new(Metered { stream, traffic }), service).with_upgrades().await;
        if let Err(error) = served {
            tracing::debug!(%error, "the hub broke off");
            return "hub_reset";
        }
        let Ok([hub, api]) = upgrades.try_recv() else { return "complete" };
        let (Ok(hub), Ok(api)) = tokio::join!(hub, api) else { return "target_reset" };
        let Ok(Parts { io, read_buf, .. }) = hub.downcast::<TokioIo<Metered>>() else { return "hub_reset" };
        let Metered { stream, traffic } = io.into_inner();
        match relay_upgraded(stream, &read_buf, &mut TokioIo::new(api), &traffic).await {
            RelayEnd::Complete => "complete",
            RelayEnd::LocalReset | RelayEnd::LocalFailed(_) => "target_reset",
            RelayEnd::RemoteReset(_) => "hub_reset",
            RelayEnd::TunnelLost => "tunnel_lost",
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        identity: &Identity,
        upgraded: &mpsc::Sender<Upgraded>,
    ) -> Response<Body> {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        match self.forward(request, identity, upgraded).await {
            Ok(response) => {
                tracing::debug!(%method, path, status = response.status().as_u16(), "request sent on");
                response
            }
            Err(error) => {
                tracing::info!(%method, path, error = &error as &dyn std::error::Error, "request refused");
                error.answer(&path)
            }
        }
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        identity: &Identity,
        upgraded: &mpsc::Sender<Upgraded>,
    ) -> Result<Response<Body>, GatewayError> {
        let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        hop::strip(request.headers_mut(), upgrade.is_some());
        match self.mode {
            GatewayMode::Token if identity.asked => return Err(GatewayError::OwnToken),
            GatewayMode::Token => headers::drop_identity(request.headers_mut()),
            GatewayMode::Impersonate | GatewayMode::Off => {
                let bearer = self.account.bearer().await?;
                headers::impersonate(request.headers_mut(), bearer, identity, &self.groups)?;
            }
        }
        let mut response = self.upstream.send(request.map(BodyExt::boxed_unsync), upgrade.is_some()).await?;
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(hub) = upgrade.filter(|_| switching) {
            // There is room for the one that a connection can have.
            let _ = upgraded.try_send([hub, hyper::upgrade::on(&mut response)]);
        }
        hop::strip(response.headers_mut(), switching);
        Ok(response)
    }
}

impl GatewayError {
    /// As kube-apiserver would say it, so that kubectl shows it; it reads no `Status` where it asks what there is.
    fn answer(&self, path: &str) -> Response<Body> {
        let (code, reason) = match self {
            Self::Header(error) if error.is_forbidden() => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::OwnToken => (StatusCode::FORBIDDEN, "Forbidden"),
            Self::Header(_) => (StatusCode::BAD_REQUEST, "BadRequest"),
            Self::Account(_) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Self::Upstream(_) => (StatusCode::BAD_GATEWAY, "BadGateway"),
        };
        let message = with_cause(self);
        let status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": &message, "reason": reason, "code": code.as_u16(),
        });
        let (kind, text) = match path {
            "/api" | "/apis" => ("text/plain; charset=utf-8", message),
            _ => ("application/json", status.to_string()),
        };
        let mut response = Response::new(Full::from(text).map_err(|never| match never {}).boxed_unsync());
        *response.status_mut() = code;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}
