//! The way in: one connection to a target is one HTTP CONNECT over TLS to the hub's proxy port.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Buf, Bytes, BytesMut};
use certs::{ClusterName, Credentials};
use http::StatusCode;
use rustls::ClientConfig;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_rustls::client::TlsStream;

use super::Target;
use crate::{
    api::{Api, EntryError},
    credentials::Located,
    dial::{DialError, dial, is_refused_certificate},
    failure::{Exit, Failure},
    follow::Known,
};

/// For the hub's answer. The hub ends a dial after 10 s unless told otherwise, and says so.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// For the rest of a refusal, once its head is there.
const SENTENCE_DEADLINE: Duration = Duration::from_secs(1);

/// How long opening is tried again while the hub or the agent is away.
const TRY_FOR: Duration = Duration::from_secs(5);

/// Pauses between two tries: the first is short, since an agent is back within a second or two.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// No head of an answer is longer.
const HEAD_LIMIT: usize = 16 * 1024;

/// No sentence of an answer is longer.
const SENTENCE_LIMIT: usize = 4 * 1024;

/// One user's way into one cluster.
#[derive(Debug)]
pub(crate) struct Entry {
    /// `host:port` of the hub's proxy port.
    address: String,
    trust: Mutex<Trust>,
    cluster: ClusterName,
    token: Option<SecretString>,
    /// The credentials, where their folder can follow the hub's CA.
    located: Option<Located>,
}

/// What the folder of credentials says of the hub's CA.
#[derive(Clone, Debug)]
struct Trust {
    tls: Arc<ClientConfig>,
    known: Known,
}

/// An open connection to a target.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(super) stream: TlsStream<TcpStream>,
    /// What the target has said already.
    pub(super) ahead: Bytes,
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Dial(DialError),
    #[error("the hub broke off before it answered")]
    Broken(#[source] io::Error),
    #[error("the hub refuses the credentials' certificate")]
    CertificateRefused(#[source] io::Error),
    #[error("the hub did not answer within 30 seconds")]
    Silent,
    /// The hub's own sentence.
    #[error("{sentence}")]
    Refused { status: StatusCode, sentence: String },
    #[error("what answers at the hub's proxy address does not speak HTTP")]
    NoHttp,
}

impl Entry {
    pub(crate) fn new(credentials: &Credentials, cluster: &ClusterName) -> Result<Self, EntryError> {
        let trust = Mutex::new(Trust::of(credentials)?);
        let (address, token) = (credentials.hub.proxy.clone(), credentials.token.clone());
        Ok(Self { address, trust, cluster: cluster.clone(), token, located: None })
    }

    /// As [`Self::new`], and it follows the hub's CA for as long as it runs.
    pub(crate) fn of(located: &Located, cluster: &ClusterName) -> Result<Self, EntryError> {
        Ok(Self { located: Some(located.clone()), ..Self::new(&located.credentials, cluster)? })
    }

    /// Opens a connection, and tries again for a while as long as nobody but time is needed.
    pub(crate) async fn open(&self, target: &Target, port: u16) -> Result<Opened, OpenError> {
        let give_up = Instant::now() + TRY_FOR;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_open(target, port).await {
                Err(error) if error.is_passing() && Instant::now() + pause < give_up => {
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
                ended => return ended,
            }
        }
    }

    async fn try_open(&self, target: &Target, port: u16) -> Result<Opened, OpenError> {
        let mut stream = self.dial().await.map_err(OpenError::Dial)?;
        let request = self.request(target, port);
        let asking = async {
            stream.write_all(request.as_bytes()).await?;
            stream.flush().await?;
            read_answer(&mut stream).await
        };
        let (status, ahead) = match timeout(ANSWER_DEADLINE, asking).await {
            Ok(answer) => answer.map_err(OpenError::broken)?.ok_or(OpenError::NoHttp)?,
            Err(_) => return Err(OpenError::Silent),
        };
        if status.is_success() {
            return Ok(Opened { stream, ahead: ahead.freeze() });
        }
        let sentence = sentence(&mut stream, ahead, status).await;
        Err(OpenError::Refused { status, sentence })
    }

    async fn dial(&self) -> Result<TlsStream<TcpStream>, DialError> {
        let Trust { tls, known } = self.trust();
        let dialled = dial(&self.address, &tls).await;
        let Some(located) = &self.located else { return dialled };
        match &dialled {
            Ok(stream) if known.is_behind(stream.get_ref().1.peer_certificates().unwrap_or_default()) => {
                if let Ok(api) = Api::of(located) {
                    api.follow().await;
                }
                self.read_again(located);
                dialled
            }
            // Another command may have followed.
            Err(DialError::NotTheHub { .. }) if self.read_again(located) => {
                dial(&self.address, &self.trust().tls).await
            }
            Ok(_) | Err(_) => dialled,
        }
    }

    fn trust(&self) -> Trust {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes what is in the folder now; says whether that is anything new.
    fn read_again(&self, located: &Located) -> bool {
        let read = Credentials::load(&located.folder).ok().and_then(|credentials| Trust::of(&credentials).ok());
        let Some(read) = read else { return false };
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = read.known != trust.known;
        *trust = read;
        is_new
    }

    /// A secret: it holds the token.
    fn request(&self, target: &Target, port: u16) -> String {
        let (authority, user) = target.naming(&self.cluster, port);
        let token = self.token.as_ref().map_or("", |token| token.expose_secret());
        let authorization = match (user, token) {
            // Neither names a cluster nor a user: the certificate speaks for itself.
            ("", "") => String::new(),
            (user, token) => {
                format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(format!("{user}:{token}")))
            }
        };
        format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\r\n")
    }
}

impl Trust {
    fn of(credentials: &Credentials) -> Result<Self, EntryError> {
        let tls = credentials.tls().map_err(EntryError::Credentials)?.config(&[]).map_err(EntryError::Tls)?;
        Ok(Self { tls, known: Known::of(credentials) })
    }
}

/// Status and what came behind the head; `None` if it is no HTTP.
async fn read_answer(stream: &mut TlsStream<TcpStream>) -> io::Result<Option<(StatusCode, BytesMut)>> {
    let mut read = BytesMut::new();
    loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let status = status(&read[..end]);
            read.advance(end + 4);
            return Ok(status.map(|status| (status, read)));
        }
        if read.len() > HEAD_LIMIT {
            return Ok(None);
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Of `HTTP/1.1 200 Connection Established` and the lines behind it.
fn status(head: &[u8]) -> Option<StatusCode> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    StatusCode::from_bytes(rest.get(2..5)?).ok()
}

/// The first line of a refusal's body, or the status if there is none.
async fn sentence(stream: &mut TlsStream<TcpStream>, mut body: BytesMut, status: StatusCode) -> String {
    let reading = async {
        while body.len() < SENTENCE_LIMIT && !body.contains(&b'\n') {
            match stream.read_buf(&mut body).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    // A hub that stops in mid-sentence has said the status at least.
    let _ = timeout(SENTENCE_DEADLINE, reading).await;
    let text = String::from_utf8_lossy(&body);
    let line: String = text.lines().next().unwrap_or_default().chars().filter(|char| !char.is_control()).collect();
    if line.is_empty() { format!("the hub answered {status}") } else { line }
}

impl OpenError {
    fn broken(source: io::Error) -> Self {
        if is_refused_certificate(&source) { Self::CertificateRefused(source) } else { Self::Broken(source) }
    }

    /// Whether an agent or a hub that is just coming back would look like this.
    fn is_passing(&self) -> bool {
        match self {
            Self::Dial(error) => error.is_passing(),
            Self::Broken(_) => true,
            Self::Refused { status, .. } => *status == StatusCode::SERVICE_UNAVAILABLE,
            Self::CertificateRefused(_) | Self::Silent | Self::NoHttp => false,
        }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let (exit, next) = match error {
            OpenError::Dial(error) => return error.into(),
            OpenError::Broken(_) | OpenError::Silent => {
                (Exit::Unavailable, "'cluster-proxy status' shows whether it is well")
            }
            OpenError::CertificateRefused(_) => (
                Exit::NotAllowed,
                "ask an administrator for new credentials ('cluster-proxy user renew NAME', or 'user token create NAME --name TOKEN')",
            ),
            OpenError::NoHttp => (Exit::Other, "correct 'proxy' in the credentials' hub.toml"),
            OpenError::Refused { status, .. } => match status {
                StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED => (Exit::NotAllowed, ""),
                StatusCode::SERVICE_UNAVAILABLE => (Exit::Unavailable, ""),
                _ => (Exit::Other, ""),
            },
        };
        Self::new(exit, error).next(next)
    }
}
