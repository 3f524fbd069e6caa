//! The audit record: nobody writes in it but the hub, every ask is in it once, and a full disk loses none in silence.

mod count;
mod disk;
mod forgery;

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tempfile::TempDir;
use tests::raw_agent::{AgentCredentials, RawAgent};
use tests::{Hub, wait_for};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(40);

/// A hub whose audit record is a file, and an agent of cluster `a` that is the test.
struct Site {
    hub: Hub,
    agent: RawAgent,
    folder: TempDir,
}

impl Site {
    async fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let log = folder.path().join("audit").display().to_string();
        let arguments = ["--audit-log", &log, "--head-timeout", "1s", "--dial-timeout", "20s", "--log-format", "json"];
        let hub = Hub::builder().args(arguments).start().await?;
        let agent = RawAgent::open(&hub, &AgentCredentials::joined(&hub, "a", "agent").await?).await?;
        Ok(Self { hub, agent, folder })
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("audit")
    }

    /// The events so far.
    fn events(&self) -> Result<Vec<Value>> {
        events(&self.log())
    }

    /// Waits until there are so many events with these fields.
    async fn wait_for_events(&self, fields: &[(&str, &str)], count: usize) -> Result<Vec<Value>> {
        wait_for(BOUND, "the events", async || {
            let found: Vec<_> = self.events()?.into_iter().filter(|event| has(event, fields)).collect();
            ensure!(found.len() == count, "{} events with {fields:?}, not {count}", found.len());
            Ok(found)
        })
        .await
    }
}

/// The events in a file, each of which is a whole line.
fn events(log: &std::path::Path) -> Result<Vec<Value>> {
    let text = std::fs::read_to_string(log)?;
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let lines = whole.lines().filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("no event: {line}"))).collect()
}

fn has(event: &Value, fields: &[(&str, &str)]) -> bool {
    fields.iter().all(|(name, value)| match &event[*name] {
        Value::String(found) => found == value,
        found => *value == found.to_string().as_str(),
    })
}

/// Dials `address` by konnectivity's gRPC, with these credentials or none; the stream is held by the answer.
async fn dial_by_grpc(
    hub: &Hub,
    token: Option<&str>,
    address: &str,
    connections: &mut JoinSet<()>,
) -> Result<Response<Incoming>> {
    let tcp = TcpStream::connect(hub.addresses().proxy).await?;
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await?;
    connections.spawn(async move { drop(connection.await) });
    // Its end would be the client's leaving.
    let packet = stream::iter([Ok::<_, Infallible>(Frame::data(dial_request(address)))]);
    let mut request = Request::new(StreamBody::new(packet.chain(stream::pending())));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = "http://hub/ProxyService/Proxy".parse()?;
    request.headers_mut().insert("content-type", "application/grpc".parse()?);
    request.headers_mut().insert("te", "trailers".parse()?);
    if let Some(token) = token {
        use base64::Engine as _;
        let login = base64::engine::general_purpose::STANDARD.encode(format!("a:{token}"));
        request.headers_mut().insert("authorization", format!("Basic {login}").parse()?);
    }
    Ok(timeout(BOUND, sender.send_request(request)).await.context("no answer by gRPC")??)
}

/// `Packet{DIAL_REQ, DialRequest{protocol: "tcp", address, random: 1}}` with gRPC's prefix.
fn dial_request(address: &str) -> Bytes {
    let length =
        |text: &[u8]| u8::try_from(text.len()).ok().filter(|length| *length < 0x80).expect("one byte's length");
    let mut dial = vec![0x0a, 3, b't', b'c', b'p', 0x12, length(address.as_bytes())];
    dial.extend(address.as_bytes());
    dial.extend([0x18, 1]);
    let mut packet = vec![0x12, length(&dial)];
    packet.extend(dial);
    let mut message = vec![0, 0, 0, 0, length(&packet)];
    message.extend(packet);
    message.into()
}
