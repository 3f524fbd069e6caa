//! `/metrics`, `/healthz` and `/readyz`: plain HTTP on a port of its own, loopback unless told otherwise.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus::{Registry, TextEncoder};
use tokio_util::sync::CancellationToken;

use crate::{
    api::http_port::{Body, whole},
    audit::Audit,
    gateway::browser::Browsers,
};

/// What the health port tells.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) metrics: Registry,
    /// Cancelled when the hub stops: it is not ready any more.
    pub(crate) stopping: CancellationToken,
    pub(crate) audit: Audit,
    pub(crate) browsers: Arc<Browsers>,
}

impl Health {
    pub(crate) fn answer(&self, request: &Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let is_metrics = request.uri().path() == "/metrics";
        // On this machine a browser is near. Elsewhere a scraper may know the hub by any name, and health tells nothing.
        let named = if is_metrics && peer.ip().to_canonical().is_loopback() {
            self.browsers.check_name(request)
        } else {
            Ok(())
        };
        if let Err(error) = named {
            return plain(error.status(), format!("{error}\n"));
        }
        match request.uri().path() {
            "/metrics" => match TextEncoder::new().encode_to_string(&self.metrics.gather()) {
                Ok(text) => plain(StatusCode::OK, text),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")),
            },
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" if self.stopping.is_cancelled() => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" if self.audit.refuses() => plain(
                StatusCode::SERVICE_UNAVAILABLE,
                "the audit log cannot be written, and nothing is opened meanwhile\n",
            ),
            // A full disk must not take a hub that goes on out of service.
            "/readyz" if self.audit.is_failing() => plain(StatusCode::OK, "ok, but the audit log cannot be written\n"),
            "/readyz" => plain(StatusCode::OK, "ok\n"),
            _ => plain(StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n"),
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(whole(Full::new(text.into())));
    *response.status_mut() = status;
    // The version is that of Prometheus' text format; other readers pass over it.
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
