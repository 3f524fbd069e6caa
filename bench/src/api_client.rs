//! A client of the hub's API: one connection of HTTP/2 over TLS, as client-go has one.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tests::{HUB_NAME, Hub};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

const JSON: &str = "application/json";

/// One connection of one user. It ends when dropped.
#[derive(Debug)]
pub struct ApiClient {
    requests: SendRequest<Full<Bytes>>,
    token: String,
    _connection: JoinSet<()>,
}

impl ApiClient {
    /// Connects to the hub as the owner of `token`.
    pub async fn connect(hub: &Hub, token: &str) -> Result<Self> {
        let mut tls = (*hub.credentials().tls()?).clone();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let tcp = TcpStream::connect(hub.addresses().api).await?;
        tcp.set_nodelay(true)?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(ServerName::try_from(HUB_NAME)?, tcp).await?;
        let (requests, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Its end is noticed by whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Self { requests, token: token.to_owned(), _connection: tasks })
    }

    /// The body that is at `path`.
    pub async fn get(&mut self, path: &str) -> Result<Bytes> {
        Ok(self.send(Method::GET, path, JSON, String::new()).await?.into_body().collect().await?.to_bytes())
    }

    /// The answer to a POST of `object`.
    pub async fn post(&mut self, path: &str, object: &Value) -> Result<Bytes> {
        let answer = self.send(Method::POST, path, JSON, object.to_string()).await?;
        Ok(answer.into_body().collect().await?.to_bytes())
    }

    /// The answer to a merge patch.
    pub async fn patch(&mut self, path: &str, patch: &Value) -> Result<Bytes> {
        let answer = self.send(Method::PATCH, path, "application/merge-patch+json", patch.to_string()).await?;
        Ok(answer.into_body().collect().await?.to_bytes())
    }

    /// The frames of a watch.
    pub async fn watch(&mut self, path: &str) -> Result<Incoming> {
        Ok(self.send(Method::GET, path, JSON, String::new()).await?.into_body())
    }

    async fn send(&mut self, method: Method, path: &str, form: &str, body: String) -> Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{HUB_NAME}{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, form)
            .body(Full::from(body))?;
        let answer = self.requests.send_request(request).await.with_context(|| format!("{path} is not answered"))?;
        if !answer.status().is_success() {
            let status = answer.status();
            let text = answer.into_body().collect().await?.to_bytes();
            bail!("{path}: {status} {}", String::from_utf8_lossy(&text));
        }
        Ok(answer)
    }
}
