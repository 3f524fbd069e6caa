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

    /// Says farewell and waits for the client's.
    async fn close(&mut self) -> Result<(), Error> {
        // kubectl takes any other code for a failure, also after a good status.
        self.0.close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() })).await?;
        while let Some(message) = self.0.next().await {
            message?;
        }
        Ok(())
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
