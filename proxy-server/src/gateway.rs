//! The gateway: HTTPS requests for a cluster's Kubernetes API or for a service in it, by their URL.

pub(crate) mod browser;

mod cookie;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod path;
mod shared_origin;

use std::{net::SocketAddr, sync::Arc};

use certs::ClusterName;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{self, AUTHORIZATION},
};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use registry::{
    Login, is_user_token,
    kube::{rbac, server::impersonated, status::Status},
};
use tunnel::{Extra, Identity, Stream, hop};

use crate::{
    api::http_port::{Body, Origin},
    flushes::Held,
    frontend::client::Peer,
    gateway::browser::{Asked, Browsers, PageError},
    metrics::Frontend,
    outcome::Outcome,
    proxy::caller::{Caller, CallerError, Credentials, PresentedCredentials},
    proxy::exchange::{Exchange, ExchangeError, Upgradable},
    proxy::record::Record,
    proxy::refusal::OpenError,
    proxy::route::{Route, Target},
    proxy::{Proxied, Proxy},
};

use path::{ParsedPath, PathError, PathTarget, Service};
use shared_origin::{Page, Place, confine};

/// How the fields begin by which a client speaks as somebody else.
const IMPERSONATE: &str = "impersonate-";
const IMPERSONATE_USER: &str = "impersonate-user";

/// What answers requests for clusters.
#[derive(Debug)]
pub(crate) struct Gateway {
    proxy: Arc<Proxy>,
    browsers: Arc<Browsers>,
}

/// Who asks, and what is left of what they showed.
struct GatewayUser {
    user: Login,
    /// The client's `Authorization` is for the target: to the hub it has shown a certificate.
    speaks_to_target: bool,
}

/// Why a request was not sent on, or got no answer.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Page(PageError),
    #[error(transparent)]
    Path(PathError),
    #[error(transparent)]
    Caller(CallerError),
    #[error("{0}")]
    Impersonation(Status),
    #[error("the field Connection names {0}: who asks is no matter of one hop; send the request without it")]
    Smuggled(HeaderName),
    #[error(transparent)]
    SpokenFor(ImpersonationIgnored),
    #[error(transparent)]
    Open(OpenError),
    #[error(transparent)]
    Exchange(ExchangeError),
    #[error("the path cannot be sent on; check its characters")]
    Malformed,
}

/// Who is spoken for is not asked there.
#[derive(Debug, thiserror::Error)]
#[error("{0} has no effect at this URL; send the request without it")]
pub(crate) struct ImpersonationIgnored(HeaderName);

impl Gateway {
    pub(crate) fn new(proxy: Arc<Proxy>, browsers: Arc<Browsers>) -> Self {
        Self { proxy, browsers }
    }

    /// The answer to what a page in a browser may not ask, of the hub's own paths too.
    pub(crate) fn refuse_page(&self, request: &Request<Incoming>, origin: &Origin) -> Option<Response<Body>> {
        let path = request.uri().path();
        let refused = |asked| self.browsers.admit(request, asked).err().map(Refusal::Page);
        // Refusals of the hub's own paths are recorded with its other requests.
        let recorded = |frontend, refusal: Refusal| {
            let mut record = self.proxy.recorder.connection(frontend, Peer::Tcp(origin.peer));
            record.target(path);
            record.refuse(refusal.outcome());
            refusal
        };
        match path::parse(path) {
            Some(Ok(ParsedPath { to: PathTarget::Service(_), prefix, .. })) => {
                refused(Asked::Service(&prefix)).map(|refusal| recorded(Frontend::Service, refusal).to_browser())
            }
            Some(Ok(way)) => {
                refused(Asked::Api).map(|refusal| recorded(Frontend::Gateway, refusal).to_kubectl(&way.rest))
            }
            Some(Err(_)) => refused(Asked::Api).map(|refusal| recorded(Frontend::Gateway, refusal).to_kubectl(path)),
            None => refused(Asked::Api).map(|refusal| refusal.to_kubectl(path)),
        }
    }

    /// Answers a request whose path leads into a cluster; gives back one whose path is the hub's own.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        origin: &Origin,
    ) -> Result<Response<Body>, Request<Incoming>> {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let Some(way) = path::parse(path) else { return Err(request) };
        let frontend = match &way {
            Ok(ParsedPath { to: PathTarget::Service(_), .. }) => Frontend::Service,
            Ok(ParsedPath { to: PathTarget::KubeApi, .. }) | Err(_) => Frontend::Gateway,
        };
        let mut record = self.proxy.recorder.connection(frontend, Peer::Tcp(origin.peer));
        let way = match way {
            Ok(way) => way,
            Err(error) => {
                record.target(path);
                record.refuse(Outcome::BadTarget);
                return Ok(Refusal::Path(error).to_kubectl("/api"));
            }
        };
        record.cluster(way.cluster.as_ref());
        let (to, rest) = (way.to.clone(), way.rest.clone());
        let answered = match to.clone() {
            PathTarget::KubeApi => self.kube_api(request, origin, way, &mut record).await,
            PathTarget::Service(service) => self.service(request, origin, way, service, &mut record).await,
        };
        Ok(answered.unwrap_or_else(|refusal| {
            record.refuse(refusal.outcome());
            match to {
                PathTarget::KubeApi => refusal.to_kubectl(&rest),
                PathTarget::Service(_) => refusal.to_browser(),
            }
        }))
    }

    async fn kube_api(
        &self,
        mut request: Request<Incoming>,
        origin: &Origin,
        way: ParsedPath,
        record: &mut Record,
    ) -> Result<Response<Body>, Refusal> {
        record.target("kube-apiserver");
        let asker = self.asker(request.headers(), origin, record)?;
        if let Some(wanted) = request.headers().get(IMPERSONATE_USER) {
            record.impersonating(&String::from_utf8_lossy(wanted.as_bytes()), &[]);
        }
        let caller = asker.user.caller();
        check_impersonation(request.headers())?;
        let speaks_for =
            impersonated(&self.proxy.registry, request.headers(), &caller).map_err(Refusal::Impersonation)?;
        if speaks_for != caller {
            record.impersonating(&speaks_for.user, &speaks_for.groups);
        }
        let asked = impersonating(request.headers()).next().is_some();
        let target = Target::KubeGateway(identity(speaks_for, asked).map_err(Refusal::Impersonation)?);
        let host = browser::host(&request).unwrap_or_default();
        let (stream, proxied) = self.open(&asker, origin, record, way.cluster, target).await?;
        let upgrade = leave_hop(&mut request, origin);
        let headers = request.headers_mut();
        cookie::give_back(headers);
        for name in impersonating(headers).cloned().collect::<Vec<_>>() {
            headers.remove(name);
        }
        headers.insert(header::HOST, HeaderValue::from_static("kube-apiserver"));
        *request.uri_mut() = way.rest.parse().map_err(|_| Refusal::Malformed)?;
        let exchange = Exchange::start(stream, proxied, &self.proxy.tasks).await.map_err(Refusal::Exchange)?;
        let mut response = send(exchange, request, upgrade, &asker, origin).await?;
        let place = Place { prefix: &way.prefix, rest: &way.rest, hosts: [&host, "kube-apiserver"] };
        confine(&mut response, place, Page::Inert);
        Ok(response)
    }

    async fn service(
        &self,
        mut request: Request<Incoming>,
        origin: &Origin,
        way: ParsedPath,
        service: Service,
        record: &mut Record,
    ) -> Result<Response<Body>, Refusal> {
        let (host, port, tls) = (service.host(), service.port, service.tls);
        let presented = format!("{host}:{port}");
        record.target(presented.as_str());
        let asker = self.asker(request.headers(), origin, record)?;
        check_own_word(request.headers()).map_err(Refusal::SpokenFor)?;
        // Links in a page are relative to a path that ends in a slash.
        if matches!(*request.method(), Method::GET | Method::HEAD)
            && request.uri().path() == way.prefix
            && !way.is_ocms()
        {
            record.refuse(Outcome::Redirected);
            return Ok(moved(&way));
        }
        let target = if tls { Target::Tls { host, port } } else { Target::Tcp { host, port } };
        let (stream, proxied) = self.open(&asker, origin, record, way.cluster, target).await?;
        let host = browser::host(&request).unwrap_or_else(|| presented.clone());
        let upgrade = leave_hop(&mut request, origin);
        forwarded(request.headers_mut(), origin.peer, &way.prefix, &host);
        cookie::give_back(request.headers_mut());
        let tasks = &self.proxy.tasks;
        let (exchange, uri) = match is_grpc(&request) && !tls {
            true => (Exchange::begin_http2(stream, proxied, tasks).await, format!("http://{presented}{}", way.rest)),
            false => (Exchange::start(stream, proxied, tasks).await, way.rest.clone()),
        };
        *request.uri_mut() = uri.parse().map_err(|_| Refusal::Malformed)?;
        let mut response = send(exchange.map_err(Refusal::Exchange)?, request, upgrade, &asker, origin).await?;
        let place = Place { prefix: &way.prefix, rest: &way.rest, hosts: [&host, &presented] };
        confine(&mut response, place, Page::Live);
        Ok(response)
    }

    async fn open(
        &self,
        asker: &GatewayUser,
        origin: &Origin,
        record: &mut Record,
        cluster: ClusterName,
        target: Target,
    ) -> Result<(Stream, Proxied), Refusal> {
        let (caller, route) = (Caller::User(asker.user.clone()), Route { cluster, target });
        let opened = self.proxy.open_route(record.take(), caller, route).await;
        let opened = opened.map_err(Refusal::Open)?;
        origin.may_read_slowly();
        Ok(opened)
    }

    /// Who asks. A client that has shown a certificate may send the target a token of its own; one that has not must show
    /// the hub's.
    fn asker(&self, headers: &HeaderMap, origin: &Origin, record: &mut Record) -> Result<GatewayUser, Refusal> {
        let about_the_asker = |name: &HeaderName| *name == AUTHORIZATION || name.as_str().starts_with(IMPERSONATE);
        if let Some(name) = hop::named(headers).into_iter().find(about_the_asker) {
            return Err(Refusal::Smuggled(name));
        }
        let authorization = headers.get(AUTHORIZATION);
        let credentials = authorization.map(|value| Credentials::parse(value.as_bytes()));
        let is_ours = |credentials: &Credentials| credentials.token().is_some_and(is_user_token);
        let speaks_to_target = origin.certificate.is_some()
            && credentials.as_ref().is_some_and(|parsed| !parsed.as_ref().is_ok_and(is_ours));
        let credentials = match credentials {
            Some(credentials) if !speaks_to_target => credentials.map_err(Refusal::Caller)?,
            _ => Credentials::default(),
        };
        let presented = PresentedCredentials { credentials, ..origin.presented() };
        let caller = self.proxy.authenticate(&presented).map_err(Refusal::Caller)?;
        record.by(&caller);
        match caller {
            Caller::User(user) => Ok(GatewayUser { user, speaks_to_target }),
            // Nobody comes here by the hub's Unix socket.
            Caller::Socket { .. } => Err(Refusal::Caller(CallerError::Missing)),
        }
    }
}

/// Takes out what concerned the client's hop, before anything of ours is put in: the client names fields for it, too. Gives the
/// connection that an upgrade would take over.
fn leave_hop(request: &mut Request<Incoming>, origin: &Origin) -> Option<Upgradable> {
    let upgrade = request
        .headers()
        .contains_key(header::UPGRADE)
        .then(|| Upgradable { client: hyper::upgrade::on(&mut *request), delivery: origin.delivery() });
    hop::strip(request.headers_mut(), upgrade.is_some());
    upgrade
}

/// The fields by which a client speaks as somebody else.
fn impersonating(headers: &HeaderMap) -> impl Iterator<Item = &HeaderName> {
    headers.keys().filter(|name| name.as_str().starts_with(IMPERSONATE))
}

/// Refuses who speaks for somebody else, where that would change nothing.
pub(crate) fn check_own_word(headers: &HeaderMap) -> Result<(), ImpersonationIgnored> {
    impersonating(headers).next().map_or(Ok(()), |name| Err(ImpersonationIgnored(name.clone())))
}

/// Refuses what Kubernetes does not know, and would not be told.
fn check_impersonation(headers: &HeaderMap) -> Result<(), Refusal> {
    let is_known = |name: &HeaderName| {
        let rest = &name.as_str()[IMPERSONATE.len()..];
        matches!(rest, "user" | "group" | "uid") || rest.starts_with("extra-")
    };
    match impersonating(headers).find(|name| !is_known(name)) {
        Some(name) => Err(Refusal::SpokenFor(ImpersonationIgnored(name.clone()))),
        None => Ok(()),
    }
}

/// Sends the client's request on, and gives the target's answer.
async fn send(
    exchange: Exchange<Incoming>,
    mut request: Request<Incoming>,
    upgrade: Option<Upgradable>,
    asker: &GatewayUser,
    origin: &Origin,
) -> Result<Response<Body>, Refusal> {
    let grpc = matches!(exchange, Exchange::Http2(_));
    if grpc {
        request.headers_mut().remove(header::HOST);
        request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if !asker.speaks_to_target {
        request.headers_mut().remove(AUTHORIZATION);
    }
    *request.version_mut() = if grpc { Version::HTTP_2 } else { Version::HTTP_11 };
    // No limit: an upload takes as long as it takes. Where the client leaves, this future is dropped.
    let response = exchange.send(request, upgrade, None).await.map_err(Refusal::Exchange)?;
    Ok(response.map(|body| Held::new(body, origin.flushes()).boxed_unsync()))
}

/// gRPC proper: its form for browsers (`application/grpc-web`) is ordinary HTTP.
fn is_grpc(request: &Request<Incoming>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let after = kind.and_then(|kind| kind.strip_prefix(b"application/grpc"));
    request.version() == Version::HTTP_2 && after.is_some_and(|after| matches!(after.first(), None | Some(b'+' | b';')))
}

/// Whether the path is a cluster's, and not the hub's own.
pub(crate) fn leads_into_a_cluster(path: &str) -> bool {
    path::parse(path).is_some()
}

/// Who is spoken for in the spoke; `asked`: by the client's own fields.
fn identity(caller: rbac::review::Caller, asked: bool) -> Result<Identity, Status> {
    if !caller.uid.is_empty() {
        return Err(Status::bad_request("a spoke is told no uid of a user; leave Impersonate-Uid (--as-uid) out"));
    }
    let extra = caller.extra.into_iter().map(|(key, values)| Extra { key, values }).collect();
    Ok(Identity { user: caller.user, groups: caller.groups, extra, asked })
}

/// Tells the service who asks it, and by which URL. `Host` stays what the client wrote, as kube-apiserver's proxy leaves it: a
/// service compares it with the page's `Origin`.
fn forwarded(headers: &mut HeaderMap, peer: SocketAddr, prefix: &str, host: &str) {
    let is_ours = |name: &HeaderName| {
        name.as_str().starts_with("x-forwarded-") || matches!(name.as_str(), "forwarded" | "x-real-ip")
    };
    let told: Vec<HeaderName> = headers.keys().filter(|name| is_ours(name)).cloned().collect();
    for name in told {
        headers.remove(name);
    }
    let peer = peer.ip().to_canonical().to_string();
    let fields = [
        (HeaderName::from_static("x-forwarded-host"), host),
        (HeaderName::from_static("x-forwarded-for"), &peer),
        (HeaderName::from_static("x-forwarded-proto"), "https"),
        (HeaderName::from_static("x-forwarded-prefix"), prefix),
        (header::HOST, host),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
}

fn moved(way: &ParsedPath) -> Response<Body> {
    let query = way.rest.strip_prefix('/').unwrap_or_default();
    let mut response = text(StatusCode::PERMANENT_REDIRECT, String::new());
    if let Ok(location) = HeaderValue::try_from(format!("{}/{query}", way.prefix)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn text(status: StatusCode, sentence: String) -> Response<Body> {
    let mut response = Response::new(Full::from(sentence).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::Page(error) => error.status(),
            Self::Path(_) => StatusCode::NOT_FOUND,
            Self::Caller(
                CallerError::Missing
                | CallerError::UnknownToken
                | CallerError::ExpiredToken { .. }
                | CallerError::Malformed,
            ) => StatusCode::UNAUTHORIZED,
            Self::Caller(CallerError::Throttled | CallerError::Crowded(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Caller(
                CallerError::Agent | CallerError::NoUser(_) | CallerError::UnknownUser(_) | CallerError::CaIsOver,
            ) => StatusCode::FORBIDDEN,
            Self::Impersonation(status) => StatusCode::from_u16(status.code).unwrap_or(StatusCode::FORBIDDEN),
            Self::Smuggled(_) | Self::SpokenFor(_) | Self::Malformed => StatusCode::BAD_REQUEST,
            Self::Open(error) => error.status(),
            Self::Exchange(ExchangeError::Broken(_)) => StatusCode::BAD_GATEWAY,
            Self::Exchange(ExchangeError::Silent) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What metrics and audit events call it.
    fn outcome(&self) -> Outcome {
        match self {
            Self::Page(_) => Outcome::PageRefused,
            Self::Path(_) => Outcome::BadTarget,
            Self::Caller(error) => error.outcome(),
            Self::Impersonation(_) => Outcome::ImpersonationForbidden,
            Self::Smuggled(_) | Self::SpokenFor(_) | Self::Malformed => Outcome::Malformed,
            Self::Open(error) => error.outcome(),
            Self::Exchange(_) => Outcome::TargetReset,
        }
    }

    /// As an API server says it, so that kubectl shows the sentence. Where it asks what there is, it reads no `Status`, and
    /// of some codes nothing at all but a warning (client-go, rest/request.go).
    fn to_kubectl(&self, path: &str) -> Response<Body> {
        if ["/api", "/apis"]
            .iter()
            .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('?')))
        {
            let mut response = text(self.status(), self.to_string());
            let headers = response.headers_mut();
            if let Ok(warning) =
                HeaderValue::try_from(format!("299 - \"{}\"", self.to_string().replace(['\\', '"'], "'")))
            {
                headers.insert(header::WARNING, warning);
            }
            self.advise(headers, "Bearer");
            return response;
        }
        let status = if let Self::Impersonation(status) = self {
            status.clone()
        } else {
            Status::gateway(self.status().as_u16(), self.to_string())
        };
        let mut response = text(self.status(), status.to_json().to_string());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.advise(headers, "Bearer");
        response
    }

    /// One sentence, and a question for the token where there are no credentials.
    fn to_browser(&self) -> Response<Body> {
        let mut response = text(self.status(), format!("{self}\n"));
        self.advise(response.headers_mut(), "Basic realm=\"cluster-proxy: any user name, and a user's token\"");
        response
    }

    fn advise(&self, headers: &mut HeaderMap, challenge: &'static str) {
        match self.status() {
            StatusCode::UNAUTHORIZED => headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"))
            }
            _ => None,
        };
    }
}
