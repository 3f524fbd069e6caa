//! The hub's HTTPS API: what `cluster-proxy` asks of it below `/v1`, and the registry's Kubernetes-style API for the rest.

pub(crate) mod discovery;
pub(crate) mod http_port;
pub(crate) mod rotation;

mod backup;
mod ca;
mod credential;
mod failure;
mod overview;
mod recorded;
mod user_credentials;
mod watch;

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use certs::ClusterName;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::Timestamp;
use registry::{
    Login, MAX_USER_VALIDITY, Presence, Registry, Role, User,
    api::{NewToken, NewUser, TokenCreated, TokenList, TokenView, UserCreated, UserList, UserView},
    kube::{
        body::{BodyError, MAX_BODY},
        rbac::{self, Attributes, CLUSTER_GROUP, Decision},
        server::{Answer, Server, StillValid, WriteSummary},
        status::Status,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    agents::tunnels::Tunnels,
    api::discovery::Discovery,
    api::http_port::{Body, Origin, held, whole},
    api::rotation::Rotation,
    authorities::Authorities,
    gateway::{Gateway, check_own_word},
    limits::bodies::{Bodies, BodyFault, BufferedBody},
    limits::shares::Shares,
    proxy::caller::{Caller, CallerError, Credentials, PresentedCredentials},
    proxy::connections::Connections,
};

use failure::{Failure, bad_request, failure};
use recorded::AuthenticatedAs;
pub(crate) use recorded::Recorded;

/// Longest request body of our own API, in bytes; a CSR is below one KiB.
const BODY_LIMIT: usize = 64 * 1024;

/// The group of what only our own API shows.
const REGISTER: &str = "register.open-cluster-management.io";

/// What the API speaks about.
#[derive(Debug)]
pub(crate) struct Api {
    pub(crate) registry: Arc<Registry>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) kube: Server,
    pub(crate) gateway: Gateway,
    pub(crate) discovery: Discovery,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) rotation: Rotation,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) bodies: Bodies,
    /// Watches that are open.
    pub(crate) watches: Arc<Shares<String>>,
    pub(crate) about: About,
}

/// What does not change while the hub runs.
#[derive(Clone, Debug)]
pub(crate) struct About {
    pub(crate) server_id: String,
    pub(crate) started_at: Timestamp,
    pub(crate) agent_addresses: Vec<String>,
    pub(crate) proxy_address: String,
    pub(crate) api_address: String,
}

type Answered = Result<Response<Full<Bytes>>, Failure>;

impl Api {
    /// Answers one request.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, origin: Origin) -> Response<Body> {
        if let Some(refused) = self.gateway.refuse_page(&request, &origin) {
            return refused;
        }
        let request = match self.gateway.answer(request, &origin).await {
            Ok(answered) => return answered,
            Err(own) => own,
        };
        let login = self.login(request.headers(), &origin);
        let known = AuthenticatedAs::of(&login);
        let mut response = self.answer_own(request, &origin, login).await;
        response.extensions_mut().insert(known);
        response
    }

    /// What is not in a cluster.
    async fn answer_own(
        &self,
        request: Request<Incoming>,
        origin: &Origin,
        login: Result<Login, CallerError>,
    ) -> Response<Body> {
        let is_ours = |path: &str| path.starts_with("/v1/") || path == discovery::PATH;
        if !is_ours(request.uri().path()) {
            return self.answer_kube(request, origin, login).await;
        }
        let answered = match login {
            Ok(login) => match check_own_word(request.headers()) {
                Ok(()) => self.route(&login.caller(), origin, request).await,
                Err(error) => Err(bad_request(&error)),
            },
            Err(error) => Err(unknown_asker(&error)),
        };
        let response = answered.unwrap_or_else(|failure| {
            let mut response = json(failure.status, &failure.error);
            let (name, value) = match failure.status {
                StatusCode::UNAUTHORIZED => (header::WWW_AUTHENTICATE, "Bearer"),
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => (header::RETRY_AFTER, "1"),
                _ => return response,
            };
            response.headers_mut().insert(name, HeaderValue::from_static(value));
            response
        });
        response.map(whole)
    }

    /// The registry's Kubernetes-style API.
    async fn answer_kube(
        &self,
        request: Request<Incoming>,
        origin: &Origin,
        login: Result<Login, CallerError>,
    ) -> Response<Body> {
        let asker = match &login {
            Ok(login) => login.caller(),
            // As in Kubernetes, everybody may ask for the version and the health.
            Err(CallerError::Missing) if is_public(request.uri().path()) => rbac::Caller {
                user: "system:anonymous".to_owned(),
                groups: vec!["system:unauthenticated".to_owned()],
                ..rbac::Caller::default()
            },
            Err(error @ (CallerError::Throttled | CallerError::Crowded(_))) => {
                return kube_status(&Status::too_many_requests(error.to_string()));
            }
            Err(error) => return kube_status(&Status::unauthorized(&error.to_string())),
        };
        let (head, body) = request.into_parts();
        let head = Request::from_parts(head, ());
        // No byte of a body is read before it is known that the request takes one and may be made.
        let body = match self.kube.takes_body(&head, &asker) {
            Ok(true) => self.bodies.read(body, &asker.user, MAX_BODY).await.map(Some),
            Ok(false) => Ok(None),
            Err(status) => return kube_status(&status),
        };
        let (bytes, _room) = match body {
            Ok(Some(BufferedBody { bytes, room })) => {
                // Their rights are asked again by the registry, which decides.
                if let Err(gone) = self.still(&asker, head.headers(), origin) {
                    return kube_status(&Status::unauthorized(&gone.to_string()));
                }
                (bytes, Some(room))
            }
            Ok(None) => Default::default(),
            Err(fault) => return kube_status(&body_status(fault)),
        };
        let headers = head.headers().clone();
        let is_still = || login.is_err() || self.still(&asker, &headers, origin).is_ok();
        match self.kube.answer(&head.map(|()| bytes), &asker, StillValid(&is_still), Timestamp::now()).await {
            Answer::Watch(head, frames) => self.watch(&asker, login.ok(), head, *frames),
            Answer::Whole(response) => {
                let Some(room) = self.bodies.answer(&asker.user, response.body().len()) else {
                    let message = "your client does not take the answers it has asked for; read them, or ask for less";
                    return kube_status(&Status::too_many_requests(message));
                };
                let length = HeaderValue::from(response.body().len());
                let mut response = response.map(|body| held(body, room));
                response.headers_mut().entry(header::CONTENT_LENGTH).or_insert(length);
                response
            }
        }
    }

    /// Who asks.
    fn login(&self, headers: &HeaderMap, origin: &Origin) -> Result<Login, CallerError> {
        let credentials = headers.get(header::AUTHORIZATION);
        let credentials =
            credentials.map_or(Ok(Credentials::default()), |value| Credentials::parse(value.as_bytes()))?;
        let presented = PresentedCredentials { credentials, ..origin.presented() };
        match Caller::authenticate(&presented, &self.registry, &self.authorities)? {
            Caller::User(login) => Ok(login),
            // Nobody comes here by the hub's Unix socket.
            Caller::Socket { .. } => Err(CallerError::Missing),
        }
    }

    /// Who asks, if that is still `asker` after the time that a body has taken.
    fn still(&self, asker: &rbac::Caller, headers: &HeaderMap, origin: &Origin) -> Result<Login, CallerError> {
        let again = self.login(headers, origin)?;
        if again.caller() == *asker { Ok(again) } else { Err(CallerError::Missing) }
    }

    /// Refuses who lacks a right, naming it.
    fn require(
        &self,
        asker: &rbac::Caller,
        verb: &str,
        group: &str,
        resource: &str,
        name: &str,
    ) -> Result<(), Failure> {
        let request = Attributes::of(asker, verb, group, resource, name);
        match self.registry.with_policy(|policy| policy.decide(&request)) {
            Decision::Allowed(_) => Ok(()),
            Decision::Denied(denial) => Err(lacking(&denial)),
        }
    }

    async fn route(&self, asker: &rbac::Caller, origin: &Origin, request: Request<Incoming>) -> Answered {
        let path = request.uri().path().to_owned();
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let now = Timestamp::now();
        let administrator = asker.user.as_str();
        match (request.method(), segments.as_slice()) {
            (&Method::GET, ["v1", "status"]) => {
                self.require(asker, "list", CLUSTER_GROUP, "managedclusters", "")?;
                Ok(json(StatusCode::OK, &self.status()))
            }
            (&Method::GET, ["prometheus", "targets"]) => {
                let query = request.uri().query().unwrap_or_default();
                Ok(json(StatusCode::OK, &self.discovery.targets(query, asker)?))
            }
            (&Method::GET, ["v1", "tunnels"]) => {
                let visible = self.visible_clusters(asker);
                if visible.is_empty() {
                    self.require(asker, "list", CLUSTER_GROUP, "managedclusters", "")?;
                }
                Ok(json(StatusCode::OK, &self.tunnels(&visible)))
            }
            (&Method::GET, ["v1", "tunnels", name]) => {
                self.require(asker, "get", CLUSTER_GROUP, "managedclusters", name)?;
                self.tunnels_of(name)
            }
            (&Method::GET, ["v1", "tokens"]) => {
                self.require(asker, "list", REGISTER, "jointokens", "")?;
                let items = self.registry.tokens().iter().map(|token| TokenView::from(token.as_ref())).collect();
                Ok(json(StatusCode::OK, &TokenList { items }))
            }
            (&Method::POST, ["v1", "tokens"]) => {
                let new = self.permitted_body(asker, origin, request, ("create", "jointokens", "")).await?;
                self.create_token(asker, new, now).await
            }
            (&Method::DELETE, ["v1", "tokens", id]) => {
                self.require(asker, "delete", REGISTER, "jointokens", id)?;
                self.registry.delete_token(id).await?;
                Ok(nothing())
            }
            (&Method::GET, ["v1", "users"]) => {
                self.require(asker, "list", REGISTER, "users", "")?;
                let view = |user: &Arc<User>| UserView::new(user, self.registry.role_of(&user.name));
                let items = self.registry.users().iter().map(view).collect();
                Ok(json(StatusCode::OK, &UserList { items }))
            }
            (&Method::POST, ["v1", "users"]) => {
                let new = self.permitted_body(asker, origin, request, ("create", "users", "")).await?;
                self.create_user(asker, new, now).await
            }
            (&Method::DELETE, ["v1", "users", name]) => {
                self.require(asker, "delete", REGISTER, "users", name)?;
                if *name == asker.user {
                    let message =
                        format!("{name} is who asks, and would be locked out; let another administrator do it");
                    return Err(failure(StatusCode::CONFLICT, "Conflict", message));
                }
                let name = name.parse().map_err(|error| bad_request(&error))?;
                self.registry.delete_user(&name).await?;
                tracing::info!(administrator, user = %name, "user deleted");
                Ok(nothing())
            }
            (_, ["v1", "users", name, what @ ..]) if !what.is_empty() => {
                self.user_credentials(asker, origin, name, what, request, now).await
            }
            (_, ["v1", "ca", what @ ..]) => self.ca(asker, origin, what, request).await,
            (&Method::POST, ["v1", "credential"]) => self.issue_credential(asker, origin, request).await,
            (&Method::POST, ["v1", "backup"]) => {
                // It holds the CA's key and everybody's rights.
                self.require(asker, "*", "*", "*", "")?;
                self.backup(now).await
            }
            (
                _,
                ["v1", "status" | "tunnels" | "tokens" | "users" | "credential" | "backup", ..]
                | ["prometheus", "targets"],
            ) => {
                let message = format!("{} is not served at {path}", request.method());
                Err(failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message))
            }
            _ => Err(failure(StatusCode::NOT_FOUND, "NotFound", format!("nothing is served at {path}"))),
        }
    }

    /// The body of a request that takes a right on what is ours: verb, resource and name. It is asked for before the body,
    /// so that nobody else's is read, and after it, when it may have been taken away.
    async fn permitted_body<T: DeserializeOwned>(
        &self,
        asker: &rbac::Caller,
        origin: &Origin,
        request: Request<Incoming>,
        (verb, resource, name): (&str, &str, &str),
    ) -> Result<T, Failure> {
        self.require(asker, verb, REGISTER, resource, name)?;
        let (body, _) = self.body(asker, origin, request).await?;
        self.require(asker, verb, REGISTER, resource, name)?;
        Ok(body)
    }

    /// The body of a request that every user may make, and who asks once it is there.
    async fn body<T: DeserializeOwned>(
        &self,
        asker: &rbac::Caller,
        origin: &Origin,
        request: Request<Incoming>,
    ) -> Result<(T, Login), Failure> {
        let headers = request.headers().clone();
        let body = self.bodies.read(request.into_body(), &asker.user, BODY_LIMIT).await?;
        let login = self.still(asker, &headers, origin).map_err(|gone| unknown_asker(&gone))?;
        Ok((object(&body.bytes)?, login))
    }

    async fn create_token(&self, asker: &rbac::Caller, new: NewToken, now: Timestamp) -> Answered {
        let new = registry::NewToken {
            cluster: new.cluster,
            auto_accept: new.auto_accept,
            reusable: new.reusable,
            time_to_live: Duration::from_secs(new.ttl_seconds),
            created_by: asker.user.clone(),
        };
        self.registry.may_create_token(asker, &new).map_err(|denial| lacking(&denial))?;
        let (token, text) = self.registry.create_token(new, now).await?;
        tracing::info!(administrator = asker.user, token = token.id, "join token created");
        let id = token.id.clone();
        Ok(named(id, json(StatusCode::CREATED, &TokenCreated { view: TokenView::from(&token), token: text })))
    }

    async fn create_user(&self, asker: &rbac::Caller, new: NewUser, now: Timestamp) -> Answered {
        let role = if new.admin { Role::Admin } else { Role::User };
        let validity = Duration::from_secs(new.validity_seconds);
        check_validity(validity)?;
        let groups = new.groups.into_iter().map(String::from).collect();
        let uid = registry::new_uid();
        let user = registry::NewUser { name: new.name, role, groups, clusters: new.clusters, uid, validity };
        self.registry.may_create_user(asker, &user).map_err(|escalation| lacking(&escalation))?;
        // The certificate first: a request that cannot be signed must leave no user behind.
        let authority = self.authorities.current();
        let issued = authority.issue_user(&new.csr, &user.name, Some(&user.uid), validity);
        let issued = issued.map_err(|error| bad_request(&error))?;
        let (user, token) = self.registry.create_user(user, now).await?;
        self.authorities.saw(&user.name, authority.signer());
        tracing::info!(administrator = asker.user, user = %user.name, "user created");
        let role = self.registry.role_of(&user.name);
        let created = UserCreated {
            view: UserView::new(&user, role),
            token,
            certificate_chain_pem: issued.chain_pem,
            not_after: Timestamp::try_from(issued.not_after).unwrap_or(Timestamp::MAX),
        };
        Ok(named(user.name.to_string(), json(StatusCode::CREATED, &created)))
    }
}

/// The object in a body; nothing else: serde would take a list for the fields in their order.
fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(bytes).map_err(|error| bad_request(&error))?;
    serde_json::from_value(object.into()).map_err(|error| bad_request(&error))
}

/// Who lacks a right, or would give away one.
fn lacking(right: &dyn std::error::Error) -> Failure {
    let message = format!("{right}; ask an administrator for it, or use the credentials of one");
    failure(StatusCode::FORBIDDEN, "Forbidden", message)
}

/// A user's credentials are good for a year at most.
fn check_validity(validity: Duration) -> Result<(), Failure> {
    if validity.as_secs() > 0 && validity <= MAX_USER_VALIDITY {
        return Ok(());
    }
    let days = MAX_USER_VALIDITY.as_secs() / 86_400;
    let message = format!("a user's credentials are good for one second to {days} days; choose another validity");
    Err(failure(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message))
}

/// Who cannot be told who they are.
fn unknown_asker(error: &CallerError) -> Failure {
    match error {
        CallerError::Agent | CallerError::NoUser(_) | CallerError::UnknownUser(_) | CallerError::CaIsOver => {
            failure(StatusCode::FORBIDDEN, "Forbidden", error.to_string())
        }
        CallerError::Missing
        | CallerError::UnknownToken
        | CallerError::ExpiredToken { .. }
        | CallerError::Malformed => failure(StatusCode::UNAUTHORIZED, "Unauthorized", error.to_string()),
        CallerError::Throttled | CallerError::Crowded(_) => {
            failure(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", error.to_string())
        }
    }
}

fn is_public(path: &str) -> bool {
    matches!(path.trim_end_matches('/'), "/healthz" | "/livez" | "/readyz" | "/version")
}

fn kube_status(status: &Status) -> Response<Body> {
    match Answer::status(status) {
        Answer::Whole(response) => response.map(|body| whole(Full::new(body))),
        Answer::Watch(head, _) => head.map(|()| whole(Full::default())),
    }
}

fn cluster_name(name: &str) -> Result<ClusterName, Failure> {
    name.parse().map_err(|error| bad_request(&error))
}

/// A body's fault as Kubernetes says it.
fn body_status(fault: BodyFault) -> Status {
    match fault {
        BodyFault::TooLarge(_) => Status::from(BodyError::TooLarge),
        BodyFault::Late | BodyFault::Broken => Status::bad_request(fault.to_string()),
        BodyFault::Crowded => Status::too_many_requests(fault.to_string()),
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response<Full<Bytes>> {
    let text = serde_json::to_vec(value).expect("our own types have string keys and no failing serializers");
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Has the record tell what was made.
fn named(name: String, mut response: Response<Full<Bytes>>) -> Response<Full<Bytes>> {
    response.extensions_mut().insert(WriteSummary { names: vec![name], dry_run: false });
    response
}

fn nothing() -> Response<Full<Bytes>> {
    json(StatusCode::OK, &HashMap::<String, String>::new())
}
