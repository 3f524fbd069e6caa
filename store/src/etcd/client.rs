//! The client of etcd: requests to one of several endpoints, each with a deadline, and how certain a failure is.

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http::uri::PathAndQuery;
use prost::Message;
use thiserror::Error;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::connection::{Endpoint, Requests, SendError};
use super::{Etcd, OptionsError, tls};

/// Requests to etcd.
pub(super) struct Client {
    endpoints: Vec<Endpoint>,
    /// The endpoint that answered last, or comes after one that did not.
    preferred: AtomicUsize,
}

/// A request that has one answer.
pub(super) trait Ask: Message + Clone + 'static {
    type Answer: Message + Default + 'static;
    const PATH: &'static str;
}

/// A request that others may follow, as answers do.
pub(super) trait Converse: Message + 'static {
    type Answer: Message + Default + 'static;
    const PATH: &'static str;
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
    #[error("{endpoint} refused: {message}; {remedy}")]
    Refused { endpoint: String, message: String, remedy: &'static str },
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

/// etcd has not done it now.
#[derive(Debug, Error)]
#[error("etcd says: {0}")]
struct Said(String);

/// The connection failed. The status is tonic's own, with a code that nobody has sent.
#[derive(Debug)]
struct Broken(Status);

/// etcd itself gives up after about seven seconds without a leader.
const ANSWER_DEADLINE: Duration = Duration::from_secs(8);
/// A page of a hundred values of the largest size.
const MAX_ANSWER: usize = 256 << 20;

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
        Ok(Self { endpoints, preferred })
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
    pub(super) async fn call<A: Ask>(&self, request: &A) -> Result<A::Answer, CallError> {
        let mut last = CallError::Silent;
        for _ in &self.endpoints {
            let endpoint = self.preferred();
            match self.call_at(endpoint, request).await {
                Err(error @ CallError::Unreachable { .. }) => last = error,
                outcome => return outcome,
            }
        }
        Err(last)
    }

    pub(super) async fn call_at<A: Ask>(&self, endpoint: usize, request: &A) -> Result<A::Answer, CallError> {
        let outcome = self.within_deadline(endpoint, async |mut grpc| {
            let codec = ProstCodec::<A, A::Answer>::default();
            grpc.unary(asked(request.clone()), PathAndQuery::from_static(A::PATH), codec).await
        });
        let outcome = outcome.await;
        if let Err(CallError::Unreachable { .. } | CallError::Lost { .. }) = outcome {
            self.avoid(endpoint);
        }
        outcome
    }

    /// Asks for answers without end, which [`Self::failure`] is to be told of. The wait for their beginning has a deadline.
    pub(super) async fn converse<C: Converse>(
        &self,
        endpoint: usize,
        request: C,
    ) -> Result<Streaming<C::Answer>, CallError> {
        self.within_deadline(endpoint, async |mut grpc| {
            // What is asked first is all, and does not end what is answered.
            let requests = stream::iter([request]).chain(stream::pending());
            let codec = ProstCodec::<C, C::Answer>::default();
            grpc.streaming(asked(requests), PathAndQuery::from_static(C::PATH), codec).await
        })
        .await
    }

    async fn within_deadline<T>(
        &self,
        endpoint: usize,
        send: impl AsyncFnOnce(Grpc<Requests>) -> Result<Response<T>, Status>,
    ) -> Result<T, CallError> {
        let at = &self.endpoints[endpoint];
        let answer = async {
            let unreachable = |source| CallError::Unreachable { endpoint: at.authority(), source };
            let requests = at.requests().await.map_err(|error| unreachable(error.into()))?;
            let grpc = Grpc::with_origin(requests, at.origin()).max_decoding_message_size(MAX_ANSWER);
            send(grpc).await.map(Response::into_inner).map_err(|status| self.failure(endpoint, status))
        };
        timeout(ANSWER_DEADLINE, Box::pin(answer)).await.unwrap_or_else(|late| Err(self.lost(endpoint, late)))
    }

    pub(super) fn lost(&self, endpoint: usize, source: impl Into<Box<dyn Error + Send + Sync>>) -> CallError {
        CallError::Lost { endpoint: self.endpoints[endpoint].authority(), source: source.into() }
    }

    pub(super) fn failure(&self, endpoint: usize, status: Status) -> CallError {
        if let Some(source) = status.source() {
            return match source.downcast_ref() {
                Some(SendError::Unsent(_)) => CallError::Unreachable {
                    endpoint: self.endpoints[endpoint].authority(),
                    source: Broken(status).into(),
                },
                Some(SendError::Broken(_)) | None => self.lost(endpoint, Broken(status)),
            };
        }
        let message = status.message().to_owned();
        // What etcd has said came with fields. A status that tonic makes of an answer which it cannot read has none.
        let certain = remedy(status.code()).filter(|_| !status.metadata().is_empty());
        match certain {
            Some(remedy) => CallError::Refused { endpoint: self.endpoints[endpoint].authority(), message, remedy },
            None => self.lost(endpoint, Said(message)),
        }
    }
}

fn asked<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    // An endpoint that has lost the others ends a watch then, instead of going quiet.
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

/// What to do about a code that etcd answers only when it certainly has not done what it was asked.
fn remedy(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => {
            Some("let the client certificate's user of etcd read and write everything below the prefix")
        }
        Code::ResourceExhausted => {
            Some("if `etcdctl alarm list` shows NOSPACE, compact and defragment etcd and disarm the alarm; else retry")
        }
        Code::InvalidArgument => Some(
            "leave etcd's --max-request-bytes and --max-txn-ops at their defaults or higher, and where its auth is enabled \
             give a client certificate of one of its users",
        ),
        Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::OutOfRange | Code::Unimplemented => {
            Some("see etcd's log, and that it is 3.4 or newer")
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => None,
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request broke off")
    }
}

impl Error for Broken {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use tokio::time::sleep;
    use tonic::metadata::MetadataMap;

    use super::*;
    use crate::Revision;
    use crate::etcd::message;
    use crate::tests::process::EtcdProcess;

    fn failure(status: Status) -> CallError {
        let endpoints = vec!["http://etcd-0".to_owned()];
        let etcd = Etcd { endpoints, ca: None, identity: None, prefix: Etcd::PREFIX.to_owned() };
        Client::new(&etcd).unwrap().failure(0, status)
    }

    #[test]
    fn what_etcd_refuses_is_told_in_its_words_and_with_what_to_do() {
        for code in [Code::ResourceExhausted, Code::PermissionDenied, Code::InvalidArgument, Code::OutOfRange] {
            let error = failure(Status::with_metadata(code, "no", fields()));
            assert!(matches!(error, CallError::Refused { .. }), "{error}");
            assert!(error.to_string().starts_with("etcd-0:2379 refused: no; "), "{error}");
        }
        let error = failure(Status::unavailable("no leader"));
        assert!(matches!(error, CallError::Lost { .. }), "{error}");
        assert_eq!(error.source().unwrap().to_string(), "etcd says: no leader");
    }

    /// Of an answer that etcd has sent.
    fn fields() -> MetadataMap {
        let mut fields = MetadataMap::new();
        fields.insert("content-type", MetadataValue::from_static("application/grpc"));
        fields
    }

    #[test]
    fn a_code_of_tonics_own_is_no_refusal() {
        // An answer that it cannot read: what was asked may be done.
        let error = failure(Status::out_of_range("decoded message length too large"));
        assert!(matches!(error, CallError::Lost { .. }), "{error}");
        // As tonic says when HTTP/2 itself is told to be calm.
        let mut status = Status::resource_exhausted("enhance your calm");
        status.set_source(Arc::new(io::Error::other("GOAWAY")));
        let error = failure(status);
        assert!(matches!(error, CallError::Lost { .. }), "{error}");
        assert_eq!(error.source().unwrap().source().unwrap().to_string(), "GOAWAY");
    }

    #[tokio::test]
    async fn a_request_on_a_connection_that_has_ended_was_not_sent() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = Endpoint::parse(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        let requests = at.requests().await.unwrap();
        drop(listener.accept().await.unwrap());
        let mut grpc = Grpc::new(requests);
        while grpc.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        let codec = ProstCodec::<(), ()>::default();
        let status = grpc.unary(asked(()), PathAndQuery::from_static("/"), codec).await.unwrap_err();
        let error = failure(status);
        assert!(matches!(error, CallError::Unreachable { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_member_that_has_lost_the_others_ends_its_watches() {
        let [a, b] = [EtcdProcess::own_host(), EtcdProcess::own_host()];
        let cluster = format!("--initial-cluster=a=http://{a}:2380,b=http://{b}:2380");
        let [member, other] = [(a, "a"), (b, "b")].map(|(host, name)| {
            let arguments = [format!("--name={name}").into(), cluster.clone().into()];
            EtcdProcess::start_at(host, tempfile::tempdir().unwrap(), "http", &arguments)
        });
        let client = Client::new(&member.options()).unwrap();
        let lost = |error: &CallError| error.source().unwrap().to_string() == "etcd says: etcdserver: no leader";
        let watch = async {
            let mut answers = loop {
                match client.converse(0, message::watch("/", "0", Revision(1))).await {
                    Ok(answers) => break answers,
                    Err(_) => sleep(Duration::from_millis(100)).await,
                }
            };
            assert!(answers.message().await.unwrap().unwrap().created);
            other.freeze(true);
            client.failure(0, answers.message().await.unwrap_err())
        };
        let end = timeout(Duration::from_secs(60), watch).await.unwrap();
        assert!(lost(&end), "{end:?}");
        let refused = client.call(&message::get("a")).await.unwrap_err();
        assert!(lost(&refused), "{refused:?}");
    }
}
