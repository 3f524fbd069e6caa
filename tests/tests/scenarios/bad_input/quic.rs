//! Datagrams that are no QUIC, and QUIC peers that do not do what an agent does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, TransportConfig};
use tests::client::DialError;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use tunnel::{ALPN_JOIN, ALPN_TUNNEL, AgentMessage, CloseReason, Drain, Hello};

use super::{BOUND, Target};

/// A length of 4 GiB - 1 and nothing behind it.
const ENDLESS: [u8; 4] = [0xff; 4];
/// An empty `Hello`: FromAgent { 1: {} }.
const HELLO: [u8; 6] = [0, 0, 0, 2, 0x0a, 0];
/// TLS alert no_application_protocol (RFC 7301 section 3.2) as a QUIC error (RFC 9001 section 4.8).
const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;

#[tokio::test]
async fn random_datagrams_are_dropped() -> Result<()> {
    let mut target = Target::start().await?;
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(target.hub.addresses().tunnel).await?;
    let mut noise = Noise(0x5eed);
    for round in 0..3_000_usize {
        let mut datagram = noise.bytes(round % 1_500);
        match (round % 4, datagram.first_mut()) {
            // Long headers: Initial packets of version 1, then of unknown versions.
            (1, Some(first)) => {
                *first = 0xc0 | (*first & 0x0f);
                datagram.iter_mut().skip(1).zip([0, 0, 0, 1, 8]).for_each(|(byte, fixed)| *byte = fixed);
            }
            (2, Some(first)) => *first |= 0xc0,
            // Short headers, as of a connection that the hub has forgotten.
            (3, Some(first)) => *first = 0x40 | (*first & 0x3f),
            _ => {}
        }
        // A full queue loses datagrams, as networks do.
        let _ = socket.try_send(&datagram);
        if round % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    target.is_unharmed().await
}

#[tokio::test]
async fn a_peer_without_a_common_protocol_gets_no_connection() -> Result<()> {
    let mut target = Target::start().await?;
    for alpn in [&[&b"h3"[..]][..], &[b"cluster-proxy/2"], &[]] {
        match peer(&target, alpn).await {
            Err(error) => match error.downcast_ref::<ConnectionError>() {
                Some(ConnectionError::ConnectionClosed(close))
                    if u64::from(close.error_code) == NO_APPLICATION_PROTOCOL => {}
                _ => bail!("{alpn:?}: {error:#}"),
            },
            // quinn's server tells after the client's handshake is complete in some cases.
            Ok((_, connection)) => {
                lost(&connection).await.with_context(|| format!("{alpn:?}"))?;
            }
        }
    }
    target.is_unharmed().await
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_closed_at_its_deadline() -> Result<()> {
    let mut target = Target::start().await?;
    let (_first, silent) = peer(&target, &[ALPN_TUNNEL]).await?;
    let (_second, joiner) = peer(&target, &[ALPN_JOIN]).await?;
    let (_third, half) = peer(&target, &[ALPN_TUNNEL]).await?;
    let (mut send, _receive) = half.open_bi().await?;
    send.write_all(&HELLO[..5]).await?;
    let (_fourth, half_join) = peer(&target, &[ALPN_JOIN]).await?;
    let (mut send_join, _receive_join) = half_join.open_bi().await?;
    send_join.write_all(&[0, 0, 0x10, 0]).await?;
    for (what, connection) in [("tunnel", silent), ("join", joiner), ("half a Hello", half), ("half a join", half_join)]
    {
        let error = lost(&connection).await.context(what)?;
        ensure!(matches!(error, ConnectionError::ApplicationClosed(_)), "{what}: {error}");
    }
    drop((send, send_join));
    target.is_unharmed().await
}

#[tokio::test]
async fn a_message_without_an_end_ends_the_connection() -> Result<()> {
    let mut target = Target::start().await?;
    let malformed = [0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff];
    let after_hello = [&HELLO[..], &ENDLESS].concat();
    let garbage_after_hello = [&HELLO[..], &malformed].concat();
    let drain_first = [0, 0, 0, 2, 0x1a, 0];
    let cases: [(&[u8], &[u8]); 7] = [
        (ALPN_TUNNEL, &ENDLESS),
        (ALPN_TUNNEL, &malformed),
        (ALPN_TUNNEL, &after_hello),
        (ALPN_TUNNEL, &garbage_after_hello),
        (ALPN_TUNNEL, &drain_first),
        (ALPN_JOIN, &ENDLESS),
        (ALPN_JOIN, &malformed),
    ];
    for (alpn, bytes) in cases {
        let what = format!("{bytes:?} over {}", String::from_utf8_lossy(alpn));
        let (_endpoint, connection) = peer(&target, &[alpn]).await?;
        let (mut send, _receive) = connection.open_bi().await?;
        send.write_all(bytes).await?;
        let error = lost(&connection).await.context(what.clone())?;
        let ConnectionError::ApplicationClosed(close) = error else { bail!("{what}: {error}") };
        let reason = CloseReason::from_code(close.error_code.into_inner());
        ensure!(reason == CloseReason::ProtocolError, "{what}: {reason}");
    }
    target.is_unharmed().await
}

#[tokio::test]
async fn messages_of_a_newer_agent_are_skipped() -> Result<()> {
    let mut target = Target::start().await?;
    let (_endpoint, connection) = peer(&target, &[ALPN_TUNNEL]).await?;
    let (mut send, mut receive) = connection.open_bi().await?;
    // Hello with an unknown field, then kinds 4 and 15, then an empty message.
    send.write_all(&[0, 0, 0, 6, 0x0a, 4, 0x9a, 6, 1, b'x', 0, 0, 0, 2, 0x22, 0, 0, 0, 0, 2, 0x7a, 0, 0, 0, 0, 0])
        .await?;
    let mut welcome = [0; 5];
    timeout(BOUND, receive.read_exact(&mut welcome)).await.context("no Welcome")??;
    assert_eq!(welcome[4], 0x0a);
    // And the tunnel goes on: a Drain is understood, the next message without an end is not.
    send.write_all(&[0, 0, 0, 2, 0x1a, 0]).await?;
    send.write_all(&ENDLESS).await?;
    lost(&connection).await?;
    target.is_unharmed().await
}

#[tokio::test]
async fn an_agent_may_open_no_other_stream() -> Result<()> {
    let mut target = Target::start().await?;
    let (_endpoint, connection) = peer(&target, &[ALPN_TUNNEL]).await?;
    let (mut control, _receive) = connection.open_bi().await?;
    control.write_all(&HELLO).await?;
    let (mut spare, _spare_receive) = connection.open_bi().await?;
    // Nobody reads it: what may be in flight is bounded.
    let flood = timeout(Duration::from_secs(2), async {
        loop {
            spare.write_all(&[0; 65_536]).await?;
        }
        #[expect(unreachable_code, reason = "the type of the block")]
        Ok::<(), quinn::WriteError>(())
    });
    ensure!(flood.await.is_err(), "the flood was refused");
    ensure!(timeout(Duration::from_millis(200), connection.open_bi()).await.is_err(), "a third stream");
    ensure!(timeout(Duration::from_millis(200), connection.open_uni()).await.is_err(), "a one-way stream");
    let resident = target.hub.process().resident_bytes()?;
    ensure!(resident < 256 << 20, "{resident} bytes");
    connection.close(0_u32.into(), b"");
    target.is_unharmed().await
}

#[tokio::test]
async fn an_agents_answer_that_is_none_is_a_bad_gateway() -> Result<()> {
    let mut target = Target::start().await?;
    target.agent.say(AgentMessage::Drain(Drain {}))?;
    let (_endpoint, connection) = peer(&target, &[ALPN_TUNNEL]).await?;
    let (mut control, mut receive) = connection.open_bi().await?;
    control.write_all(&HELLO).await?;
    timeout(BOUND, receive.read_exact(&mut [0; 5])).await.context("no Welcome")??;
    let client = target.hub.client("a")?;
    let answers: [(&str, &[u8], bool); 6] = [
        ("4 GiB", &ENDLESS, false),
        ("malformed", &[0, 0, 0, 2, 0xff, 0xff], false),
        ("of no kind", &[0, 0, 0, 0], false),
        ("of an unknown kind", &[0, 0, 0, 2, 0x7a, 0], false),
        ("cut", &[0, 0, 0, 9, 0x0a], true),
        ("none", &[], true),
    ];
    for (what, bytes, end) in answers {
        let (dialled, answered) = tokio::join!(client.dial("target:80"), async {
            let (mut send, receive) = timeout(BOUND, connection.accept_bi()).await.context("no dial")??;
            send.write_all(bytes).await?;
            if end {
                send.finish()?;
            }
            // The hub stops reading once it knows.
            let _ = timeout(BOUND, send.stopped()).await.context("the hub goes on reading")?;
            drop(receive);
            Ok::<_, anyhow::Error>(())
        });
        answered.context(what)?;
        match dialled {
            Err(DialError::Status { status: 502, body, .. }) => ensure!(body.contains("agent"), "{what}: {body}"),
            other => bail!("{what}: {other:?}"),
        }
    }
    // Never answered: the dial's own deadline ends it.
    match client.dial("target:80").await {
        Err(DialError::Status { status: 504, .. }) => {}
        other => bail!("{other:?}"),
    }
    connection.close(0_u32.into(), b"");
    target.is_unharmed().await
}

#[tokio::test]
async fn a_second_hello_changes_nothing() -> Result<()> {
    let mut target = Target::start().await?;
    for _ in 0..20 {
        let hello = Hello {
            version: "v".repeat(60_000),
            capabilities: vec!["x".repeat(1_000)],
            instance: "\0".to_owned(),
            ..Hello::default()
        };
        target.agent.say(AgentMessage::Hello(hello))?;
    }
    target.is_unharmed().await
}

/// Shakes hands as the agent of the target, speaking one of `alpn`.
async fn peer(target: &Target, alpn: &[&[u8]]) -> Result<(Endpoint, Connection)> {
    let tls = target.credentials.tls(&target.hub, alpn)?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    let mut transport = TransportConfig::default();
    // Only the hub's deadlines may end it.
    transport.keep_alive_interval(Some(Duration::from_secs(1)));
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into())?;
    let connecting = endpoint.connect_with(config, target.hub.addresses().tunnel, tests::HUB_NAME)?;
    let connection = timeout(BOUND, connecting).await.context("no handshake")??;
    Ok((endpoint, connection))
}

async fn lost(connection: &Connection) -> Result<ConnectionError> {
    timeout(BOUND, connection.closed()).await.context("the connection is held")
}

/// Bytes without a pattern that are the same in every run (xorshift).
struct Noise(u64);

impl Noise {
    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            bytes.extend(self.0.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
