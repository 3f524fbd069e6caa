//! `/metrics`, `/healthz` and `/readyz`: plain HTTP on a port of its own, loopback unless told otherwise.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{Registry, TextEncoder};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::status::Status;

/// Scrapers and probes at a time.
const CONNECTIONS: usize = 64;

/// How long a client may take to send a request's head, and how long a connection may stay unused.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// After a failed accept: long enough not to spin when file descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the log says so.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What the health port tells.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) metrics: Registry,
    pub(crate) status: Arc<Status>,
    /// Cancelled when the agent drains: it is not ready any more.
    pub(crate) drain: CancellationToken,
}

impl Health {
    /// Serves `listener` until `end`; its connections end with it.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, tasks: TaskTracker, end: CancellationToken) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let accepting = async {
            let mut told: Option<Instant> = None;
            loop {
                // The permit comes first: who finds no room waits in the kernel's backlog.
                let Ok(permit) = room.clone().acquire_owned().await else { return };
                match listener.accept().await {
                    Ok((stream, _)) => {
                        let health = self.clone();
                        let connection = end.clone().run_until_cancelled_owned(health.serve_connection(stream));
                        tasks.spawn(async move {
                            connection.await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        // It fails again until somebody acts, ten times a second.
                        if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                            tracing::warn!(%error, "cannot accept on the metrics port; raise the limit of open files if it is reached");
                            told = Some(Instant::now());
                        }
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        end.run_until_cancelled(accepting).await;
    }

    async fn serve_connection(self: Arc<Self>, stream: TcpStream) {
        let answer = service_fn(|request: Request<Incoming>| {
            let response = self.answer(request.uri().path());
            async { Ok::<_, Infallible>(response) }
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .serve_connection(TokioIo::new(stream), answer)
            .await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to the metrics port failed");
        }
    }

    fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/metrics" => match TextEncoder::new().encode_to_string(&self.metrics.gather()) {
                Ok(text) => plain(StatusCode::OK, text),
                Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot encode the metrics: {error}\n")),
            },
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" if self.drain.is_cancelled() => plain(StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
            "/readyz" => match self.status.ready() {
                Ok(()) => plain(StatusCode::OK, "ok\n"),
                Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why),
            },
            _ => plain(StatusCode::NOT_FOUND, "try /metrics, /healthz or /readyz\n"),
        }
    }
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    // The version is that of Prometheus' text format; other readers pass over it.
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::{hub::HubAddress, status::HubState};

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(HEAD_TIMEOUT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn readiness_follows_the_tunnels_and_the_drain() {
        let hub: HubAddress = "hub".parse().unwrap();
        let (drain, end, tasks) = (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
        let status = Arc::new(Status::new(std::slice::from_ref(&hub)));
        let health = Arc::new(Health { metrics: Registry::new(), status: status.clone(), drain: drain.clone() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(health.serve(listener, tasks.clone(), end.clone()));

        assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 200"));
        assert!(get(address, "/").await.starts_with("HTTP/1.1 404"));
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("hub:8091: connecting"), "{answer}");
        status.set(&hub, HubState::Ready);
        assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        drain.cancel();
        let answer = get(address, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("stopping\n"), "{answer}");

        end.cancel();
        tasks.close();
        tokio::time::timeout(HEAD_TIMEOUT, tasks.wait()).await.unwrap();
    }
}
