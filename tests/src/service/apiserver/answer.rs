//! Answers as a kube-apiserver words them.

use bytes::Bytes;
use futures_util::Stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::{HeaderMap, Response, StatusCode, header};
use serde_json::{Value, json};

pub(super) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// 200 with a document.
pub(super) fn json(document: &Value) -> Response<Body> {
    typed("application/json", Full::new(document.to_string().into()).boxed())
}

/// 201 with a document.
pub(super) fn created(document: &Value) -> Response<Body> {
    let mut response = json(document);
    *response.status_mut() = StatusCode::CREATED;
    response
}

/// 200 with a description of the API as old clients want it.
pub(super) fn openapi_v2(document: &'static [u8]) -> Response<Body> {
    typed("application/com.github.proto-openapi.spec.v2.v1.0+protobuf", Full::new(Bytes::from_static(document)).boxed())
}

/// 200 with text.
pub(super) fn text(text: &str) -> Response<Body> {
    typed("text/plain", Full::new(text.to_owned().into()).boxed())
}

/// A `Status` that tells the failure.
pub(super) fn failure(status: StatusCode, reason: &str, message: &str) -> Response<Body> {
    let mut response = json(&json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": status.as_u16(),
    }));
    *response.status_mut() = status;
    response
}

/// 200 with a chunked body, each piece sent as soon as it is there.
pub(super) fn streamed(
    content_type: &'static str,
    pieces: impl Stream<Item = Result<Frame<Bytes>, std::convert::Infallible>> + Send + Sync + 'static,
) -> Response<Body> {
    typed(content_type, BoxBody::new(StreamBody::new(pieces)))
}

fn typed(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}
