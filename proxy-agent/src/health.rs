//! `/metrics`, `/healthz` and `/readyz`: plain HTTP on a port of its own, loopback unless told otherwise.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use process::{Acceptor, health::Health};
use prometheus::Registry;
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

/// Answers who comes to the health port.
#[derive(Debug)]
pub(crate) struct HealthPort {
    pub(crate) metrics: Registry,
    pub(crate) status: Arc<Status>,
    /// Cancelled when the agent drains: it is not ready any more.
    pub(crate) drain: CancellationToken,
}

impl HealthPort {
    /// Serves `listener` until `end`; its connections end with it.
    pub(crate) async fn serve(self, listener: TcpListener, tasks: TaskTracker, end: CancellationToken) {
        let Self { metrics, status, drain } = self;
        let ready = move || status.ready().map(|()| "ok\n".to_owned());
        let health = Arc::new(Health { metrics, stopping: drain, ready });
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let accepting = async {
            let mut clients = Acceptor::new(listener, "metrics");
            // The permit comes first: who finds no room waits in the kernel's backlog.
            while let Ok(permit) = room.clone().acquire_owned().await {
                let (stream, _) = clients.next().await;
                let connection = end.clone().run_until_cancelled_owned(serve_connection(stream, health.clone()));
                tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
        };
        end.run_until_cancelled(accepting).await;
    }
}

async fn serve_connection<R: Fn() -> Result<String, String>>(stream: TcpStream, health: Arc<Health<R>>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let response = health.answer(request.uri().path());
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
        let health = HealthPort { metrics: Registry::new(), status: status.clone(), drain: drain.clone() };
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
