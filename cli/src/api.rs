//! The client of the hub's HTTPS API.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use certs::{Credentials, CredentialsError, TlsError, shown_time};
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use registry::api::ApiError;
use rustls::{
    ClientConfig,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::timeout;

use process::chain;

use crate::{
    credentials::Located,
    dial::{DialError, dial, is_ended_certificate, is_refused_certificate},
    failure::{Exit, Failure},
    follow::{Known, follow},
    output::note,
};

/// For a call as a whole, from the dial to the last byte of the answer.
const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// No answer is larger: 10,000 clusters take about 10 MB.
const ANSWER_LIMIT: usize = 64 << 20;

/// The hub's API as one user sees it.
#[derive(Debug)]
pub(crate) struct Api {
    /// `host:port`
    address: String,
    tls: Arc<ClientConfig>,
    /// When the certificate that it shows ends; `None` if that cannot be read.
    certificate_end: Option<SystemTime>,
    known: Known,
    /// The credentials, where their folder can follow the hub's CA.
    located: Option<Located>,
    /// The hub has shown other CAs.
    behind: AtomicBool,
}

/// Why there is no API to call.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EntryError {
    #[error("hub.toml says api = {0:?}, which is no https://HOST:PORT; correct it")]
    Address(String),
    #[error("the credentials cannot be used for TLS")]
    Credentials(#[source] CredentialsError),
    #[error("the credentials cannot be used for TLS")]
    Tls(#[source] TlsError),
}

/// A change of an object.
#[derive(Debug)]
pub(crate) enum Patch {
    /// RFC 6902: operations, which may test what they change.
    Json(Vec<Value>),
    /// RFC 7396: the fields that change.
    Merge(Value),
}

const JSON: &str = "application/json";

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Dial(DialError),
    #[error("the hub at {address} broke off the call")]
    Broken { address: String, source: hyper::Error },
    #[error("the hub at {address} refuses the credentials' certificate")]
    CertificateRefused { address: String, source: hyper::Error },
    #[error(
        "the hub at {address} says that the credentials' certificate has ended, which is good until {} by this machine's clock; \
         one of the two clocks is wrong",
        shown_time(*end)
    )]
    WrongClock { address: String, end: SystemTime, source: hyper::Error },
    #[error("the hub at {address} did not answer within 15 seconds")]
    TimedOut { address: String },
    /// The hub's own sentence.
    #[error("{message}")]
    Refused { status: StatusCode, message: String },
    #[error("the hub's answer (HTTP status {status}) cannot be understood")]
    Answer { status: StatusCode, source: Box<dyn std::error::Error + Send + Sync> },
}

impl Api {
    pub(crate) fn new(credentials: &Credentials) -> Result<Self, EntryError> {
        let address = address(&credentials.hub.api).ok_or_else(|| EntryError::Address(credentials.hub.api.clone()))?;
        let tls = credentials.tls().map_err(EntryError::Credentials)?.config(&[]).map_err(EntryError::Tls)?;
        let chain = CertificateDer::from_pem_slice(credentials.chain_pem.as_bytes());
        let certificate_end = chain.ok().and_then(|certificate| certs::ends_at(&certificate));
        let known = Known::of(credentials);
        Ok(Self { address, tls, certificate_end, known, located: None, behind: AtomicBool::new(false) })
    }

    /// As [`Self::new`], and the folder follows the hub's CA.
    pub(crate) fn of(located: &Located) -> Result<Self, EntryError> {
        Ok(Self { located: Some(located.clone()), ..Self::new(&located.credentials)? })
    }

    /// Has the folder follow the hub's CA, and tells about it. What fails is tried again by the next command.
    pub(crate) async fn follow(&self) -> Option<Credentials> {
        let located = self.located.as_ref()?;
        self.behind.store(false, Ordering::Relaxed);
        let folder = located.folder.display();
        match Box::pin(follow(&located.folder)).await {
            Ok(followed) => {
                if followed.is_some() {
                    note(format!("the hub's CA is rotated; the credentials in {folder} follow"));
                }
                followed
            }
            Err(error) => {
                note(format!("the hub's CA is rotated, and {folder} does not follow yet: {}", chain(&error)));
                None
            }
        }
    }

    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Method::GET, path, "", Bytes::new()).await.and_then(|answer| answer.parse())
    }

    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, CallError> {
        let body = serde_json::to_vec(body).expect("the API's messages are JSON");
        self.call(Method::POST, path, JSON, body.into()).await.and_then(|answer| answer.parse())
    }

    /// Changes an object of the Kubernetes API.
    pub(crate) async fn patch(&self, path: &str, patch: &Patch) -> Result<(), CallError> {
        let (content_type, body) = match patch {
            Patch::Json(operations) => ("application/json-patch+json", serde_json::to_vec(operations)),
            Patch::Merge(fields) => ("application/merge-patch+json", serde_json::to_vec(fields)),
        };
        let body = body.expect("values are JSON");
        self.call(Method::PATCH, path, content_type, body.into()).await.map(drop)
    }

    pub(crate) async fn delete(&self, path: &str) -> Result<(), CallError> {
        self.call(Method::DELETE, path, "", Bytes::new()).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, content_type: &str, body: Bytes) -> Result<Answer, CallError> {
        let answer = self.call_once(method, path, content_type, body).await;
        // Whatever it has answered: it has shown that it is the hub.
        if self.behind.load(Ordering::Relaxed) {
            self.follow().await;
        }
        answer
    }

    /// A call that is a part of following.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Bytes>,
    ) -> Result<T, CallError> {
        self.call_once(method, path, JSON, body.unwrap_or_default()).await.and_then(|answer| answer.parse())
    }

    async fn call_once(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Bytes,
    ) -> Result<Answer, CallError> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, &self.address);
        if !body.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(body)).expect("paths are made of names, which are URI-safe");
        // Boxed: a TLS connection's state is large.
        match timeout(CALL_DEADLINE, Box::pin(self.exchange(request))).await {
            Ok(answer) => answer?.checked(),
            Err(_) => Err(CallError::TimedOut { address: self.address.clone() }),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, CallError> {
        let broken = |source| self.broken(source);
        let stream = dial(&self.address, &self.tls).await.map_err(CallError::Dial)?;
        let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
        self.behind.store(self.located.is_some() && self.known.is_behind(shown), Ordering::Relaxed);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let answering = async {
            let response = sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_LIMIT).collect().await;
            let body = body.map_err(|source| CallError::Answer { status, source })?.to_bytes();
            Ok(Answer { status, body })
        };
        let mut answering = std::pin::pin!(answering);
        tokio::select! {
            answer = &mut answering => answer,
            ended = connection => match ended {
                // A connection that ends well has handed over its answer.
                Ok(()) => answering.await,
                Err(error) => Err(self.broken(error)),
            },
        }
    }

    fn broken(&self, source: hyper::Error) -> CallError {
        let address = self.address.clone();
        let io_cause = std::error::Error::source(&source).and_then(|cause| cause.downcast_ref::<io::Error>());
        // The hub's word for it is lost where its reset comes first.
        let has_ended = self.certificate_end.is_some_and(|end| end <= SystemTime::now());
        if let (false, Some(end), true) = (has_ended, self.certificate_end, io_cause.is_some_and(is_ended_certificate))
        {
            return CallError::WrongClock { address, end, source };
        }
        if has_ended || io_cause.is_some_and(is_refused_certificate) {
            return CallError::CertificateRefused { address, source };
        }
        CallError::Broken { address, source }
    }
}

/// `host:port` of `https://host:port`.
fn address(api: &str) -> Option<String> {
    let uri: Uri = api.parse().ok()?;
    let authority = uri.authority().filter(|_| uri.scheme_str() == Some("https") && uri.path() == "/")?;
    let host = authority.host();
    // A port that is out of range is none to http, and must not become the default.
    let port = if authority.as_str() == host { 443 } else { authority.port_u16()? };
    (!host.is_empty()).then(|| format!("{host}:{port}"))
}

/// What came back.
struct Answer {
    status: StatusCode,
    body: Bytes,
}

impl Answer {
    fn checked(self) -> Result<Self, CallError> {
        if self.status.is_success() {
            return Ok(self);
        }
        let error: ApiError = self.parse()?;
        Err(CallError::Refused { status: self.status, message: error.message })
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(&self.body)
            .map_err(|source| CallError::Answer { status: self.status, source: source.into() })
    }
}

impl From<EntryError> for Failure {
    fn from(error: EntryError) -> Self {
        Self::new(Exit::NotAllowed, error).next("or make new credentials with 'cluster-proxy user create NAME'")
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let (exit, next) = match error {
            CallError::Dial(error) => return error.into(),
            CallError::Broken { .. } | CallError::TimedOut { .. } => {
                (Exit::Unavailable, "look at it with 'cluster-proxy status' and into its log")
            }
            CallError::WrongClock { .. } => (Exit::NotAllowed, "set the clock that is wrong"),
            CallError::CertificateRefused { .. } => (
                Exit::NotAllowed,
                "ask an administrator for new credentials ('cluster-proxy user renew NAME', or 'user token create NAME --name TOKEN')",
            ),
            CallError::Refused { status, .. } => match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => (Exit::NotAllowed, ""),
                StatusCode::SERVICE_UNAVAILABLE => (Exit::Unavailable, ""),
                _ => (Exit::Other, ""),
            },
            CallError::Answer { .. } => {
                (Exit::Other, "compare 'cluster-proxy --version' with the hub's 'proxy-server --version'")
            }
        };
        Self::new(exit, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_is_an_https_origin() {
        assert_eq!(address("https://hub:8443").as_deref(), Some("hub:8443"));
        assert_eq!(address("https://[::1]:8443/").as_deref(), Some("[::1]:8443"));
        assert_eq!(address("https://hub").as_deref(), Some("hub:443"));
        for bad in ["", "hub:8443", "http://hub:8443", "https://", "https://hub:8443/v1", "https://hub:99999"] {
            assert_eq!(address(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_refusal_is_the_hubs_sentence_and_its_status_the_exit_code() {
        let answer = |status, body: &str| Answer { status, body: Bytes::copy_from_slice(body.as_bytes()) };
        let body = r#"{"reason":"NotFound","message":"no cluster named c9; list them"}"#;
        let error = answer(StatusCode::NOT_FOUND, body).checked().err().unwrap();
        assert_eq!(Failure::from(error).line(), "no cluster named c9; list them");
        let error = answer(StatusCode::SERVICE_UNAVAILABLE, body).checked().err().unwrap();
        assert!(Failure::from(error).is_passing());
        let error = answer(StatusCode::BAD_GATEWAY, "<html>").checked().err().unwrap();
        assert!(matches!(error, CallError::Answer { .. }));
    }
}
