//! Pages in a real browser, whose user may do everything at the hub: what they can ask of it, by whatever way.

mod proxy_port;
mod services;
mod shell;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::{SinkExt as _, StreamExt as _};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tests::service::apiserver::{ApiServer, TOKEN};
use tests::service::authority::TargetAuthority;
use tests::{Browser, HUB_NAME, Hub, Service, Spoke};
use tokio::sync::Mutex;

/// A site of the attacker's, on a port of its own.
const EVIL: &str = "evil.example";

/// A hub, and a cluster with a pod and services; the browser's user is the hub's administrator.
struct Site {
    hub: Hub,
    server: ApiServer,
    _spoke: Spoke,
    _authority: TargetAuthority,
    _folder: TempDir,
}

/// A web site whose answers a scenario makes up.
struct Pages {
    service: Service,
    seen: Arc<Mutex<Vec<Request<()>>>>,
}

impl Site {
    async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// With more flags for the hub.
    async fn start_with(flags: &[&str]) -> Result<Self> {
        let hub = Hub::builder().args(flags.iter().copied()).start().await?;
        let authority = TargetAuthority::new()?;
        let server = ApiServer::start(&authority, &[]).await?;
        server.add_pod("first");
        let folder = TempDir::new()?;
        let (hosts, token) = (folder.path().join("hosts"), folder.path().join("token"));
        std::fs::write(&hosts, "127.0.0.1 localhost web.mon.svc other.mon.svc web.mon\n")?;
        std::fs::write(&token, TOKEN)?;
        let flags = ["--kube-api".into(), server.address().to_string(), "--kube-ca".into()];
        let flags = flags.into_iter().chain([authority.file().display().to_string(), "--kube-token".into()]);
        let flags = flags.chain([token.display().to_string()]);
        let spoke = Spoke::of(&hub, "one").hosts(&hosts).args(flags).start().await?;
        Ok(Self { hub, server, _spoke: spoke, _authority: authority, _folder: folder })
    }

    /// A browser that knows the hub and the attacker by name.
    async fn browser(&self, arguments: &[&str]) -> Result<Browser> {
        let hub = self.hub.addresses().api.ip().to_string();
        let browser = Browser::builder().name(HUB_NAME, &hub).name(EVIL, "127.0.0.1").args(arguments.iter().copied());
        browser.start(&self.hub.credentials()).await
    }

    /// `https://hub:port` or `wss://hub:port` and a path.
    fn url(&self, scheme: &str, path: &str) -> String {
        format!("{scheme}://{HUB_NAME}:{}{path}", self.hub.addresses().api.port())
    }

    fn service(&self, name: &str, port: u16, path: &str) -> String {
        self.url("https", &format!("/clusters/one/services/mon/{name}:{port}{path}"))
    }
}

impl Pages {
    async fn start(
        answer: impl Fn(&Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (answer, seen) = (Arc::new(answer), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&seen);
        let service = Service::start(move |stream| {
            let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
            async move {
                let service = service_fn(|request: Request<Incoming>| {
                    let (answer, noted) = (Arc::clone(&answer), Arc::clone(&noted));
                    async move {
                        let response = answer(&request);
                        noted.lock().await.push(request.map(drop));
                        Ok::<_, Infallible>(response)
                    }
                });
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                served.map_err(std::io::Error::other)
            }
        });
        Ok(Self { service: service.await?, seen })
    }

    /// One that has an empty page at every path.
    async fn empty() -> Result<Self> {
        Self::start(|_| html("<!doctype html><p>page</p>")).await
    }

    fn port(&self) -> u16 {
        self.service.port()
    }

    /// The requests for a path.
    async fn requests(&self, path: &str) -> Vec<Request<()>> {
        let seen = self.seen.lock().await;
        seen.iter().filter(|seen| seen.uri().path() == path).cloned().collect()
    }
}

fn html(text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text.to_owned()));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/html"));
    response
}

/// A service that gives back each message of a WebSocket, whatever the page's origin.
async fn socket_echo() -> Result<Service> {
    let echo = Service::start(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.map_err(std::io::Error::other)?;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    Ok(echo.await?)
}

/// JavaScript that opens a WebSocket, sends a word, and says what came of it within a time: the messages, or how it failed.
fn open_socket(url: &str, protocols: &str, bound: Duration) -> String {
    format!(
        "new Promise(done => {{
            const socket = new WebSocket('{url}', {protocols}); socket.binaryType = 'arraybuffer';
            const said = [];
            socket.onopen = () => {{ said.push('open'); socket.send('word') }};
            socket.onmessage = event => {{
                const text = typeof event.data === 'string' ? event.data : new TextDecoder().decode(event.data);
                said.push(text); if (said.length > 2 || text === 'word') done(said.join(' '));
            }};
            socket.onclose = event => {{ said.push('closed'); done(said.join(' ')) }};
            setTimeout(() => done(said.concat('late').join(' ')), {});
        }})",
        bound.as_millis()
    )
}
