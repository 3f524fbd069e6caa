//! SOCKS5 (RFC 1928) with user name and password (RFC 1929): CONNECT only, names resolved in the spoke.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::Buf;
use tunnel::{DialError, Reason};

use crate::{
    frontend::client::{Client, Peer},
    metrics::Frontend,
    outcome::Outcome,
    proxy::Proxy,
    proxy::caller::{CallerError, Credentials, PresentedCredentials},
    proxy::connections::Cut,
    proxy::refusal::OpenError,
};

/// First byte of every SOCKS5 message but the password's.
pub(crate) const VERSION: u8 = 5;

const NO_AUTHENTICATION: u8 = 0x00;
const PASSWORD: u8 = 0x02;
const NO_ACCEPTABLE_METHOD: u8 = 0xff;
const PASSWORD_VERSION: u8 = 1;
const CONNECT: u8 = 1;

/// Says that no authentication method is acceptable.
pub(crate) const NO_METHOD: [u8; 2] = [VERSION, NO_ACCEPTABLE_METHOD];

/// Replies (RFC 1928 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Reply {
    Succeeded = 0,
    GeneralFailure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    ConnectionRefused = 5,
    TimedOut = 6,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

/// Why the conversation broke off.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Socks5Error {
    /// The client is gone.
    Left,
    /// What it says is no SOCKS5.
    Malformed,
    /// It offers no method by which it could show who it is.
    NoMethod,
    /// It asks for something else than a connection to a name or an address.
    Unsupported,
}

impl Socks5Error {
    fn outcome(self) -> Outcome {
        match self {
            Self::Left => Outcome::ClientLeft,
            Self::Malformed => Outcome::Malformed,
            Self::NoMethod => Outcome::NoCredentials,
            Self::Unsupported => Outcome::NotSupported,
        }
    }
}

/// Serves one SOCKS5 connection to its end. `limit` bounds the conversation before the dial.
pub(crate) async fn serve(
    proxy: &Proxy,
    mut client: Client,
    peer: Peer,
    mut presented: PresentedCredentials,
    limit: std::time::Duration,
) {
    let conversation = tokio::time::timeout(limit, negotiate(&mut client, &mut presented));
    let mut record = proxy.recorder.connection(Frontend::Socks5, peer);
    let (host, port) = match conversation.await {
        Ok(Ok(asked)) => asked,
        Ok(Err(broken)) => return record.refuse(broken.outcome()),
        Err(_) => return record.refuse(Outcome::TimedOut),
    };
    let guest = presented.guest.clone();
    let opened = tokio::select! {
        // What needs no dial is answered even if the client has half-closed already.
        biased;
        opened = proxy.open(record, Ok(presented), host, port) => opened,
        () = client.left() => return,
    };
    match opened {
        Ok((stream, proxied)) => match client.answer(&reply(Reply::Succeeded)).await {
            Ok(()) => {
                client.hold_guest(guest);
                proxied.relay(client, stream);
            }
            Err(_) => proxied.close(Outcome::ClientReset),
        },
        Err(error) => client.conclude(&reply(reply_of(&error))).await,
    }
}

/// Method, password and request; the host and port asked for.
pub(crate) async fn negotiate(
    client: &mut Client,
    presented: &mut PresentedCredentials,
) -> Result<(String, u16), Socks5Error> {
    // Version, number of methods, methods.
    let count = usize::from(read(client, 2).await?[1]);
    let methods = read(client, count).await?;
    // Whoever has shown who it is by certificate or socket needs no password.
    let known = presented.certificate.is_some() || presented.uid.is_some();
    if methods.contains(&PASSWORD) {
        write(client, &[VERSION, PASSWORD]).await?;
        presented.credentials = password(client).await?;
        // A wrong token is answered by the request's reply, which the audit event can tell the target of.
        write(client, &[PASSWORD_VERSION, 0]).await?;
    } else if known && methods.contains(&NO_AUTHENTICATION) {
        write(client, &[VERSION, NO_AUTHENTICATION]).await?;
    } else {
        client.conclude(&NO_METHOD).await;
        return Err(Socks5Error::NoMethod);
    }
    request(client).await
}

/// RFC 1929: version, user name, password, each with its length in front.
async fn password(client: &mut Client) -> Result<Credentials, Socks5Error> {
    let head = read(client, 2).await?;
    if head[0] != PASSWORD_VERSION {
        return Err(Socks5Error::Malformed);
    }
    let name = read(client, head[1].into()).await?;
    let length = read(client, 1).await?[0];
    let token = read(client, length.into()).await?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).map_err(|_| Socks5Error::Malformed);
    Ok(Credentials::of(&text(name)?, &text(token)?))
}

/// Version, command, reserved, address type, address, port.
async fn request(client: &mut Client) -> Result<(String, u16), Socks5Error> {
    let head = read(client, 4).await?;
    if head[0] != VERSION {
        return Err(Socks5Error::Malformed);
    }
    let host = match head[3] {
        1 => {
            let octets: [u8; 4] = array(&read(client, 4).await?)?;
            Ipv4Addr::from(octets).to_string()
        }
        3 => {
            let length = read(client, 1).await?[0];
            // Bytes that are no host name are refused by routing, with a sentence.
            String::from_utf8_lossy(&read(client, length.into()).await?).into_owned()
        }
        4 => {
            let octets: [u8; 16] = array(&read(client, 16).await?)?;
            Ipv6Addr::from(octets).to_string()
        }
        _ => {
            client.conclude(&reply(Reply::AddressTypeNotSupported)).await;
            return Err(Socks5Error::Unsupported);
        }
    };
    let port = u16::from_be_bytes(array(&read(client, 2).await?)?);
    if head[1] != CONNECT {
        client.conclude(&reply(Reply::CommandNotSupported)).await;
        return Err(Socks5Error::Unsupported);
    }
    Ok((host, port))
}

async fn read(client: &mut Client, count: usize) -> Result<Vec<u8>, Socks5Error> {
    while client.ahead().len() < count {
        if !matches!(client.read_ahead().await, Ok(1..)) {
            return Err(Socks5Error::Left);
        }
    }
    let bytes = client.ahead()[..count].to_vec();
    client.ahead().advance(count);
    Ok(bytes)
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Socks5Error> {
    bytes.try_into().map_err(|_| Socks5Error::Malformed)
}

async fn write(client: &mut Client, bytes: &[u8]) -> Result<(), Socks5Error> {
    client.write(bytes).await.map_err(|_| Socks5Error::Left)
}

/// A reply; the bound address is not told, as nobody uses it.
fn reply(reply: Reply) -> [u8; 10] {
    [VERSION, reply as u8, 0, 1, 0, 0, 0, 0, 0, 0]
}

fn reply_of(error: &OpenError) -> Reply {
    match error {
        OpenError::Dial(error) => reply_of_dial(error),
        OpenError::UnknownCluster { .. } | OpenError::Away { .. } => Reply::HostUnreachable,
        OpenError::Caller(CallerError::Throttled | CallerError::Crowded(_)) => Reply::GeneralFailure,
        OpenError::Caller(_) | OpenError::Forbidden { .. } | OpenError::Cut(Cut::Withdrawn) => Reply::NotAllowed,
        OpenError::Route(_)
        | OpenError::NotAccepted(_)
        | OpenError::ClusterDenied(_)
        | OpenError::Overloaded(_)
        | OpenError::Unrecorded
        | OpenError::Cut(Cut::Stopping) => Reply::GeneralFailure,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "SOCKS5 has no replies of their own for the others")]
fn reply_of_dial(error: &DialError) -> Reply {
    match error {
        DialError::Refused(refusal) => match refusal.reason() {
            Reason::ConnectionRefused => Reply::ConnectionRefused,
            Reason::Unreachable => Reply::NetworkUnreachable,
            Reason::NameNotFound => Reply::HostUnreachable,
            Reason::PolicyDenied => Reply::NotAllowed,
            Reason::TimedOut => Reply::TimedOut,
            _ => Reply::GeneralFailure,
        },
        DialError::TimedOut | DialError::Silent => Reply::TimedOut,
        DialError::NoMoreStreams | DialError::Lost(_) | DialError::Protocol(_) => Reply::GeneralFailure,
    }
}
