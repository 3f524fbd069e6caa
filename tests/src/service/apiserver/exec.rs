//! `exec` over a WebSocket, subprotocols `v5.channel.k8s.io` and `v4.channel.k8s.io`.
//!
//! Each binary message begins with its channel: 0 standard input, 1 standard output, 2 standard error, 3 the final `Status`,
//! 4 terminal size (ignored), and in v5 255, which closes the channel named by its next byte.
//!
//! | command | does |
//! |---|---|
//! | `echo WORDS…` | writes the words and a line feed |
//! | `cat` | writes its input until that is closed (v5) or the connection is (v4 has no close) |
//! | `fail CODE WORDS…` | writes the words to standard error and ends with that exit code |
//! | anything else | ends with 127 |

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper::{HeaderMap, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::answer::{self, Body};
use super::query::Query;

/// Newest first: the first that a client offers is taken.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const CLOSE: u8 = 255;
/// How long a client may take to answer the closing handshake.
const FAREWELL: Duration = Duration::from_secs(10);

/// A command about to run on a connection that is being upgraded.
pub(super) struct Session {
    upgrade: OnUpgrade,
    command: Vec<String>,
}

/// Answers a request to exec; the session runs when the connection has been upgraded.
pub(super) fn answer(
    request: &mut Request<Incoming>,
    query: &Query,
    upgrade: &mpsc::Sender<Session>,
) -> Response<Body> {
    let Some((key, protocol)) = handshake(request.headers()) else {
        let message = "exec is served over a WebSocket with subprotocol v5.channel.k8s.io or v4.channel.k8s.io only";
        return answer::failure(StatusCode::BAD_REQUEST, "BadRequest", message);
    };
    let command = query.all("command").map(str::to_owned).collect();
    let session = Session { upgrade: hyper::upgrade::on(&mut *request), command };
    if upgrade.try_send(session).is_err() {
        return answer::failure(StatusCode::BAD_REQUEST, "BadRequest", "this connection was upgraded before");
    }
    let mut response = answer::text("");
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.clear();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, header::HeaderValue::from_static(protocol));
    response
}

/// The accept key and the chosen subprotocol, if this is a WebSocket handshake with one that is spoken here.
fn handshake(headers: &HeaderMap) -> Option<(header::HeaderValue, &'static str)> {
    let text = |name| headers.get(name).and_then(|value: &header::HeaderValue| value.to_str().ok());
    text(header::UPGRADE).filter(|upgrade| upgrade.eq_ignore_ascii_case("websocket"))?;
    let key = derive_accept_key(text(header::SEC_WEBSOCKET_KEY)?.as_bytes());
    let offered: Vec<&str> = text(header::SEC_WEBSOCKET_PROTOCOL)?.split(',').map(str::trim).collect();
    let chosen = PROTOCOLS.into_iter().find(|protocol| offered.contains(protocol))?;
    Some((key.parse().ok()?, chosen))
}

impl Session {
    pub(super) async fn run(self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TokioIo::new(self.upgrade.await?);
        let mut channels = Channels(WebSocketStream::from_raw_socket(stream, Role::Server, None).await);
        let code = channels.execute(&self.command).await?;
        channels.send(STATUS, status(code).to_string().as_bytes()).await?;
        timeout(FAREWELL, channels.close()).await??;
        Ok(())
    }
}

struct Channels(WebSocketStream<TokioIo<Upgraded>>);

impl Channels {
    /// Runs a command and gives its exit code.
    async fn execute(&mut self, command: &[String]) -> Result<i32, Error> {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["echo", words @ ..] => {
                self.send(STDOUT, format!("{}\n", words.join(" ")).as_bytes()).await?;
                Ok(0)
            }
            ["cat"] => {
                while let Some(input) = self.input().await? {
                    self.send(STDOUT, &input).await?;
                }
                Ok(0)
            }
            ["fail", code, words @ ..] => {
                self.send(STDERR, format!("{}\n", words.join(" ")).as_bytes()).await?;
                Ok(code.parse().unwrap_or(1))
            }
            _ => {
                self.send(STDERR, format!("{}: not found\n", words.join(" ")).as_bytes()).await?;
                Ok(127)
            }
        }
    }

    /// The next piece of standard input; `None` at its end.
    async fn input(&mut self) -> Result<Option<Vec<u8>>, Error> {
        while let Some(message) = self.0.next().await {
            match message? {
                Message::Binary(message) => match message.as_ref() {
                    [STDIN, input @ ..] => return Ok(Some(input.to_vec())),
                    [CLOSE, STDIN] => return Ok(None),
                    _ => {}
                },
                Message::Close(_) => return Ok(None),
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
        Ok(None)
    }

    async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result<(), Error> {
        self.0.send(Message::Binary([&[channel], bytes].concat().into())).await
    }

    /// Says farewell, waits for the client's, and ends the stream below, TLS with its close_notify.
    async fn close(&mut self) -> Result<(), Error> {
        // kubectl takes any other code for a failure, also after a good status.
        self.0.close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() })).await?;
        while let Some(message) = self.0.next().await {
            message?;
        }
        Ok(self.0.get_mut().shutdown().await?)
    }
}

/// The `Status` by which a client learns the exit code.
fn status(code: i32) -> Value {
    if code == 0 {
        return json!({ "metadata": {}, "status": "Success" });
    }
    json!({
        "metadata": {},
        "status": "Failure",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "reason": "NonZeroExitCode",
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;
    use tokio::net::TcpStream;
    use tokio_rustls::TlsConnector;
    use tokio_tungstenite::client_async;
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

    use super::*;
    use crate::service::apiserver::{ApiServer, TOKEN};
    use crate::service::authority::TargetAuthority;

    /// Runs `echo hi` as a client that offers these subprotocols; gives the one chosen and the messages before the close.
    async fn echo(offered: &str) -> anyhow::Result<(String, Vec<Vec<u8>>)> {
        let authority = TargetAuthority::new()?;
        let server = ApiServer::start(&authority, &[]).await?;
        server.add_pod("first");
        let stream = TcpStream::connect(server.address()).await?;
        let connector = TlsConnector::from(authority.client_config()?);
        let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
        let path = "api/v1/namespaces/default/pods/first/exec?command=echo&command=hi";
        let mut request = format!("wss://localhost/{path}").into_client_request()?;
        request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {TOKEN}").parse()?);
        request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, offered.parse()?);
        let (mut socket, response) = client_async(request, stream).await?;
        let mut messages = Vec::new();
        while let Some(message) = socket.next().await {
            let message = message?;
            if !message.is_close() {
                messages.push(message.into_data().to_vec());
            }
        }
        Ok((response.headers()[header::SEC_WEBSOCKET_PROTOCOL].to_str()?.to_owned(), messages))
    }

    #[tokio::test]
    async fn output_and_status_come_on_their_channels_in_both_versions() -> anyhow::Result<()> {
        let status = b"\x03{\"metadata\":{},\"status\":\"Success\"}".to_vec();
        for (offered, chosen) in
            [("v4.channel.k8s.io", "v4.channel.k8s.io"), ("v4.channel.k8s.io, v5.channel.k8s.io", "v5.channel.k8s.io")]
        {
            let (protocol, messages) = echo(offered).await?;
            assert_eq!((protocol.as_str(), messages), (chosen, vec![b"\x01hi\n".to_vec(), status.clone()]));
        }
        Ok(())
    }

    #[tokio::test]
    async fn an_unknown_subprotocol_is_refused() {
        let error = echo("v9.channel.k8s.io").await.unwrap_err().to_string();
        assert!(error.contains("400"), "{error}");
    }
}
