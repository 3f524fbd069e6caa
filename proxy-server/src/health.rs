//! `/metrics`, `/healthz` and `/readyz`: plain HTTP on a port of its own, loopback unless told otherwise.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a client may take to ask.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Clients at a time: a scraper and a few probes.
const CONNECTIONS: usize = 64;

/// What the health port tells.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) metrics: Registry,
    /// Cancelled when the hub stops: it is not ready any more.
    pub(crate) stopping: CancellationToken,
}

impl Health {
    /// Serves until `end`.
    pub(crate) async fn serve(self, listener: TcpListener, tasks: TaskTracker, end: CancellationToken) {
        let health = Arc::new(self);
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = end.cancelled() => return,
            };
            let Ok((tcp, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            // A client too many is closed: a scraper comes back.
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            let (health, end) = (health.clone(), end.clone());
            tasks.spawn(async move {
                let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(health.answer(&request))));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(tcp), service);
                tokio::select! {
                    // A client that broke off has its own view of why.
                    _ = connection => {}
                    () = end.cancelled() => {}
                }
                drop(permit);
            });
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/metrics" => match TextEncoder::new().encode_to_string(&self.metrics.gather()) {
                Ok(text) => plain(StatusCode::OK, text),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")),
            },
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" if self.stopping.is_cancelled() => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" => plain(StatusCode::OK, "ok\n"),
            _ => plain(StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n"),
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
