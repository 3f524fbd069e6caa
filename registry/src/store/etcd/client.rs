//! The client of etcd: requests to one of several endpoints, each with a deadline, and how certain a failure is.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use super::connection::{Endpoint, Lines, Requests};
use super::message::Failure;
use super::{Etcd, OptionsError, tls};

/// Requests to etcd. Connections are kept for the next request.
pub(super) struct Client {
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last, or comes after one that did not.
    preferred: AtomicUsize,
    idle: Mutex<Vec<(usize, Requests)>>,
    connections: TaskTracker,
}

/// Why a request was not answered as hoped.
#[derive(Debug, Error)]
pub(super) enum CallError {
    /// Nothing was sent.
    #[error("{endpoint} cannot be reached")]
    Unreachable {
        endpoint: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It was certainly not done, and trying again does not help.
    #[error("etcd refused: {message}")]
    Refused { code: u32, message: String },
    /// It may have been done.
    #[error("{endpoint} gave no answer that tells the outcome")]
    Lost {
        endpoint: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("etcd has not answered in time")]
    Silent,
}

/// etcd said something that is no answer.
#[derive(Debug, Error)]
#[error("etcd answered {status}: {message}")]
struct Unavailable {
    status: StatusCode,
    message: String,
}

/// For name, TCP and TLS.
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// etcd itself gives up after about seven seconds without a leader.
const ANSWER_DEADLINE: Duration = Duration::from_secs(8);
/// A page of a hundred values of the largest size, in base64.
const MAX_ANSWER: usize = 256 << 20;
/// Idle connections kept: about as many as there are transactions at a time.
const MAX_IDLE: usize = 20;

/// gRPC's codes for what is certainly not done. The others may come from a request that is still under way.
const CERTAIN: [u32; 9] = [3, 5, 6, 7, 8, 9, 11, 12, 16];

impl Client {
    pub(super) fn new(etcd: &Etcd) -> Result<Self, OptionsError> {
        let secure = etcd.endpoints.iter().filter(|endpoint| endpoint.starts_with("https://")).count();
        if secure > 0 && secure < etcd.endpoints.len() {
            return Err(OptionsError::Mixed);
        }
        let tls = if secure > 0 { Some(tls::connector(etcd).map_err(OptionsError::Tls)?) } else { None };
        let parsed =
            |text: &String| Endpoint::parse(text, tls.as_ref()).ok_or_else(|| OptionsError::Endpoint(text.clone()));
        let endpoints = etcd.endpoints.iter().map(parsed).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(OptionsError::NoEndpoint);
        }
        // Several hubs spread over the members.
        let preferred = AtomicUsize::new(rand::random_range(0..endpoints.len()));
        Ok(Self { endpoints, preferred, idle: Mutex::default(), connections: TaskTracker::new() })
    }

    /// The endpoint to ask now.
    pub(super) fn preferred(&self) -> usize {
        self.preferred.load(Ordering::Relaxed)
    }

    /// Asks the next endpoint from now on, unless that has happened already.
    pub(super) fn avoid(&self, endpoint: usize) {
        let next = (endpoint + 1) % self.endpoints.len();
        let _ = self.preferred.compare_exchange(endpoint, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks one endpoint after the other until one can be reached, each once.
    pub(super) async fn call<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, CallError> {
        let mut last = CallError::Silent;
        for _ in &self.endpoints {
            let endpoint = self.preferred();
            match self.call_at(endpoint, path, body).await {
                Err(error @ CallError::Unreachable { .. }) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    pub(super) async fn call_at<T: DeserializeOwned>(
        &self,
        endpoint: usize,
        path: &str,
        body: &Value,
    ) -> Result<T, CallError> {
        let outcome = self.try_call(endpoint, path, body).await;
        if let Err(CallError::Unreachable { .. } | CallError::Lost { .. }) = outcome {
            self.avoid(endpoint);
        }
        outcome
    }

    async fn try_call<T: DeserializeOwned>(&self, endpoint: usize, path: &str, body: &Value) -> Result<T, CallError> {
        let answer = async {
            let (response, requests) = self.send(endpoint, path, body).await?;
            let status = response.status();
            let lost = |source| self.lost(endpoint, source);
            let content = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(lost)?.to_bytes();
            self.keep(endpoint, requests);
            if status == StatusCode::OK {
                return serde_json::from_slice(&content).map_err(|error| lost(error.into()));
            }
            Err(self.failure(endpoint, status, &content))
        };
        timeout(ANSWER_DEADLINE, answer).await.unwrap_or_else(|late| Err(self.lost(endpoint, late.into())))
    }

    /// Asks for an endless answer. The wait for its beginning has a deadline.
    pub(super) async fn stream(&self, endpoint: usize, path: &str, body: &Value) -> Result<Lines, CallError> {
        let answer = async {
            let (response, _) = self.send(endpoint, path, body).await?;
            match response.status() {
                StatusCode::OK => Ok(Lines::new(response.into_body())),
                status => {
                    let content = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
                    let content = content.map_err(|source| self.lost(endpoint, source))?.to_bytes();
                    Err(self.failure(endpoint, status, &content))
                }
            }
        };
        timeout(ANSWER_DEADLINE, answer).await.unwrap_or_else(|late| Err(self.lost(endpoint, late.into())))
    }

    pub(super) fn lost(&self, endpoint: usize, source: Box<dyn Error + Send + Sync>) -> CallError {
        CallError::Lost { endpoint: self.endpoints[endpoint].authority(), source }
    }

    fn failure(&self, endpoint: usize, status: StatusCode, content: &[u8]) -> CallError {
        let failure: Failure = serde_json::from_slice(content).unwrap_or_default();
        if CERTAIN.contains(&failure.code) {
            return CallError::Refused { code: failure.code, message: failure.message };
        }
        self.lost(endpoint, Unavailable { status, message: failure.message }.into())
    }

    /// Sends on a connection that is idle, or on a new one.
    async fn send(
        &self,
        endpoint: usize,
        path: &str,
        body: &Value,
    ) -> Result<(Response<Incoming>, Requests), CallError> {
        let at = &self.endpoints[endpoint];
        let unreachable = |source| CallError::Unreachable { endpoint: at.authority(), source };
        let mut request = Request::post(format!("/v3/{path}"))
            .header("host", at.authority())
            .header("content-type", "application/json")
            // An endpoint that has lost the others ends a watch then, instead of going quiet.
            .header("grpc-metadata-hasleader", "true")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| unreachable(error.into()))?;
        while let Some(mut requests) = self.take(endpoint) {
            match requests.try_send_request(request).await {
                Ok(response) => return Ok((response, requests)),
                Err(mut failed) => match failed.take_message() {
                    // The connection had ended before.
                    Some(unsent) => request = unsent,
                    None => return Err(self.lost(endpoint, failed.into_error().into())),
                },
            }
        }
        let connected = timeout(CONNECT_DEADLINE, at.connect(&self.connections)).await;
        let connected = connected.unwrap_or_else(|late| Err(late.into()));
        let mut requests = connected.map_err(unreachable)?;
        match requests.send_request(request).await {
            Ok(response) => Ok((response, requests)),
            Err(error) => Err(self.lost(endpoint, error.into())),
        }
    }

    fn take(&self, endpoint: usize) -> Option<Requests> {
        let mut idle = self.idle.lock();
        idle.retain(|(_, requests)| !requests.is_closed());
        let found = idle.iter().rposition(|(at, requests)| *at == endpoint && requests.is_ready())?;
        Some(idle.swap_remove(found).1)
    }

    fn keep(&self, endpoint: usize, requests: Requests) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE {
            idle.push((endpoint, requests));
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}
