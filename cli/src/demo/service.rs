//! A little HTTP service in a spoke: it says hello, and has a metric for Prometheus.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use process::Acceptor;
use tokio::{
    io,
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Stage;

/// For the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// What the service of `cluster` answers to every path but `/metrics`.
pub(super) fn greeting(cluster: &str) -> String {
    format!("hello from {cluster}")
}

/// Starts the service of `cluster` on loopback; it runs on `stage`.
pub(super) async fn start(cluster: &str, stage: &Stage) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let Stage { tasks, stop } = stage.clone();
    let serving = serve(listener, greeting(cluster), tasks.clone(), stop.clone());
    stage.tasks.spawn(async move {
        tokio::select! {
            () = serving => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(address)
}

async fn serve(listener: TcpListener, greeting: String, tasks: TaskTracker, stop: CancellationToken) {
    let mut clients = Acceptor::new(listener, "demonstration");
    loop {
        let (stream, _) = clients.next().await;
        let (greeting, stop) = (greeting.clone(), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = answer(stream, greeting) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn answer(stream: TcpStream, greeting: String) {
    let service = service_fn(|request: Request<Incoming>| {
        let text = match request.uri().path() {
            "/metrics" => "# TYPE demo_up gauge\ndemo_up 1\n".to_owned(),
            _ => format!("{greeting}\n"),
        };
        std::future::ready(Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(text)))))
    });
    let mut connection = http1::Builder::new();
    connection.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    // A client that breaks off is its own business.
    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
}
