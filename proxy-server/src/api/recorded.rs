//! What is recorded of a request on the API: each that would change something, and each that is refused for who asks.
//!
//! A change runs in a task of its own. It goes on to its end when its client leaves, so that the record can tell the end.

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use registry::{
    Login,
    api::ApiError,
    kube::{
        server::WriteSummary,
        target::{Target, Verb},
    },
};
use tokio::task::JoinError;
use tokio_util::task::TaskTracker;

use super::{Api, json};
use crate::{
    api::http_port::{Body, Origin, whole},
    audit::{self, Text, Who},
    frontend::client::Peer,
    gateway,
    outcome::Outcome,
    proxy::caller::CallerError,
    proxy::record::{Recorder, RequestRecord},
};

/// Answers and records the requests of the API.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) api: Arc<Api>,
    pub(crate) recorder: Recorder,
    pub(crate) tasks: TaskTracker,
}

/// What a request asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct RequestInfo<'a> {
    verb: &'a str,
    resource: String,
    namespace: &'a str,
    name: Cow<'a, str>,
    changes: bool,
}

/// Beside an answer, among its extensions: who has asked.
#[derive(Clone, Debug)]
pub(super) enum AuthenticatedAs {
    Somebody {
        user: Text,
        groups: Vec<Text>,
    },
    /// Nobody, for this reason.
    Nobody(Outcome),
}

impl AuthenticatedAs {
    pub(super) fn of(login: &Result<Login, CallerError>) -> Self {
        match login {
            Ok(login) => Self::Somebody { user: Text::of(&login.name), groups: Text::some_of(&login.groups) },
            Err(error) => Self::Nobody(error.outcome()),
        }
    }
}

impl Recorded {
    /// Answers one request. Its record begins, and a change runs, before the answer is waited for: a client that has left
    /// already has asked, too.
    pub(crate) fn answer(
        self,
        request: Request<Incoming>,
        origin: Origin,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        let Self { api, recorder, tasks } = self;
        let (record, changes) = match gateway::leads_into_a_cluster(request.uri().path()) {
            // That leaves a record of its own.
            true => (None, false),
            false => {
                let (asked, changes) = asked(&request);
                (Some(recorder.request(Peer::Tcp(origin.peer), asked)), changes)
            }
        };
        let refuses = changes && recorder.audit.refuses();
        let answering = async move {
            let response = if refuses { unrecorded() } else { api.answer(request, origin).await };
            match record {
                Some(record) if changes || is_refusal(response.status()) => finish(record, &response),
                Some(record) => record.dismiss(),
                None => {}
            }
            response
        };
        let running = if changes { Ok(tasks.spawn(answering)) } else { Err(answering) };
        async move {
            match running {
                Ok(changing) => match changing.await.map_err(JoinError::try_into_panic) {
                    Ok(response) => response,
                    Err(Ok(panic)) => std::panic::resume_unwind(panic),
                    // The hub ends.
                    Err(Err(_)) => unrecorded(),
                },
                Err(reading) => reading.await,
            }
        }
    }
}

/// What is told of a request that has come, and whether it would change something.
fn asked(request: &Request<Incoming>) -> (audit::Request, bool) {
    let path = percent_encoding::percent_decode_str(request.uri().path()).decode_utf8_lossy();
    let RequestInfo { verb, resource, namespace, name, changes } = RequestInfo::of(request.method(), &path);
    let (impersonated_user, impersonated_groups) = impersonated(request.headers());
    let told = audit::Request {
        who: Who { impersonated_user, impersonated_groups, ..Who::default() },
        verb: verb.into(),
        resource: resource.into(),
        frontend: "api",
        namespace: namespace.into(),
        name: (&*name).into(),
        dry_run: is_dry_run(request.uri().query().unwrap_or_default()),
        ..audit::Request::default()
    };
    (told, changes)
}

/// Whether that is an answer to who asks.
fn is_refusal(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::MISDIRECTED_REQUEST
            | StatusCode::TOO_MANY_REQUESTS
    )
}

fn finish(record: RequestRecord, response: &Response<Body>) {
    let (status, known) = (response.status(), response.extensions().get::<AuthenticatedAs>());
    let outcome = match (status, known) {
        (status, _) if status.is_success() => Outcome::Ok,
        (_, Some(AuthenticatedAs::Nobody(outcome))) => *outcome,
        (status, _) if is_refusal(status) => Outcome::Refused,
        _ => Outcome::Failed,
    };
    record.tell(outcome, status.as_u16(), |told| {
        if let Some(AuthenticatedAs::Somebody { user, groups }) = known {
            (told.who.user, told.who.groups) = (user.clone(), groups.clone());
        }
        let Some(WriteSummary { names, dry_run }) = response.extensions().get() else { return };
        told.dry_run |= dry_run;
        if told.name.is_empty() {
            told.name = Text::some_of(names).iter().map(Text::as_str).collect::<Vec<_>>().join(",").into();
        }
    });
}

/// As whom the caller wants to ask; whether it may is said by the answer.
fn impersonated(headers: &HeaderMap) -> (Text, Vec<Text>) {
    let texts = |name: &str| -> Vec<String> {
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    };
    (texts("impersonate-user").join(",").into(), Text::some_of(&texts("impersonate-group")))
}

fn is_dry_run(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(name, value)| name == "dryRun" && !value.is_empty())
}

fn unrecorded() -> Response<Body> {
    let message =
        "the hub cannot write its audit log and changes nothing meanwhile; its administrator makes room for it";
    let error = ApiError { reason: "AuditUnavailable".into(), message: message.into() };
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, &error).map(whole);
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("1"));
    response
}

impl<'a> RequestInfo<'a> {
    fn of(method: &'a Method, path: &'a str) -> Self {
        let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
        let verb = match *method {
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "other",
        };
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        if let ["v1", resource, rest @ ..] = segments.as_slice() {
            let resource = match *resource {
                "tokens" => "jointokens",
                "credential" => "credentials",
                "ca" => "certificateauthorities",
                resource => resource,
            };
            let (verb, resource, name) = match rest {
                // `/v1/ca/STEP` is a verb, but for the certificate that a user gets.
                [step] if resource == "certificateauthorities" && !reads && *step != "certificate" => {
                    (*step, resource.to_owned(), String::new())
                }
                [name, part] => (verb, format!("{resource}/{part}"), (*name).to_owned()),
                [name, part, inner] => (verb, format!("{resource}/{part}"), format!("{name}/{inner}")),
                rest => (verb, resource.to_owned(), rest.join("/")),
            };
            return Self { verb, resource, name: name.into(), changes: !reads, ..Self::default() };
        }
        let target = Target::parse(path);
        let Some((target, verb)) = target.and_then(|target| {
            let verb = Verb::of(method, target.name.is_some(), false)?;
            Some((target, verb))
        }) else {
            return Self { verb, resource: path.to_owned(), ..Self::default() };
        };
        let resource = match (target.group, target.subresource) {
            ("", None) => target.resource.to_owned(),
            ("", Some(part)) => format!("{}/{part}", target.resource),
            (group, None) => format!("{}.{group}", target.resource),
            (group, Some(part)) => format!("{}.{group}/{part}", target.resource),
        };
        // A review is answered and not stored.
        let changes = !reads && !target.resource.ends_with("reviews");
        let (namespace, name) = (target.namespace.unwrap_or_default(), target.name.unwrap_or_default().into());
        Self { verb: verb.as_str(), resource, namespace, name, changes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_change_is_told_by_verb_resource_and_name() {
        let group = "cluster.open-cluster-management.io";
        let sets = format!("/apis/{group}/v1beta2/managedclustersets");
        let cluster = format!("/apis/{group}/v1/managedclusters/c1");
        let approval_of_cluster = format!("{cluster}/approval");
        let binding = "/apis/rbac.authorization.k8s.io/v1/namespaces/n/rolebindings/b";
        let approval = "/apis/certificates.k8s.io/v1/certificatesigningrequests/c1.a1/approval";
        for (method, path, expected) in [
            (Method::POST, "/v1/tokens", ["create", "jointokens", "", ""]),
            (Method::POST, "/v1/users/u/tokens", ["create", "users/tokens", "", "u"]),
            (Method::DELETE, "/v1/users/u", ["delete", "users", "", "u"]),
            (Method::POST, "/v1/credential", ["create", "credentials", "", ""]),
            (Method::PATCH, &cluster, ["patch", &format!("managedclusters.{group}"), "", "c1"]),
            (Method::PATCH, &approval_of_cluster, ["patch", &format!("managedclusters.{group}/approval"), "", "c1"]),
            (Method::POST, &sets, ["create", &format!("managedclustersets.{group}"), "", ""]),
            (Method::DELETE, &sets, ["deletecollection", &format!("managedclustersets.{group}"), "", ""]),
            (Method::PATCH, binding, ["patch", "rolebindings.rbac.authorization.k8s.io", "n", "b"]),
            (Method::PUT, approval, ["update", "certificatesigningrequests.certificates.k8s.io/approval", "", "c1.a1"]),
            (Method::POST, "/api/v1/namespaces", ["create", "namespaces", "", ""]),
        ] {
            let RequestInfo { verb, resource, namespace, name, changes } = RequestInfo::of(&method, path);
            assert_eq!([verb, &resource, namespace, &name], expected, "{method} {path}");
            assert!(changes, "{method} {path}");
        }
    }

    #[test]
    fn reads_reviews_and_what_is_no_resource_change_nothing() {
        let review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        for (method, path) in [
            (Method::GET, "/v1/tunnels"),
            (Method::GET, "/api/v1/namespaces/n"),
            (Method::HEAD, "/api/v1/namespaces"),
            (Method::POST, review),
            (Method::POST, "/version"),
            (Method::TRACE, "/"),
        ] {
            assert!(!RequestInfo::of(&method, path).changes, "{method} {path}");
        }
    }
}
