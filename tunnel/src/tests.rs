//! Both ends over a real UDP socket on loopback; and every message as bytes.

mod trust;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proptest::prelude::*;
use prost::Message;
use rustls::pki_types::PrivateKeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{
    hub::SIGN_OF_LIFE,
    wire::control::Envelope,
    wire::message::{Break, DialOutcome, DialReply, FromAgent, FromHub, FromJoin, Notes, Window},
    *,
};

pub(crate) const SOON: Duration = Duration::from_secs(10);
pub(crate) const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const KEY: [u8; RESET_KEY_LENGTH] = [7; RESET_KEY_LENGTH];

pub(crate) struct Pair {
    pub(crate) listener: Listener,
    pub(crate) hub: HubTunnel,
    pub(crate) hub_control: HubControl,
    pub(crate) agent: AgentTunnel,
    pub(crate) agent_control: AgentControl,
}

pub(crate) fn tls() -> (Arc<rustls::ServerConfig>, Arc<rustls::ClientConfig>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["hub".into()]).unwrap().self_signed(&key).unwrap();
    let mut server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
        .unwrap();
    server.alpn_protocols = vec![ALPN_TUNNEL.to_vec(), ALPN_JOIN.to_vec()];
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).unwrap();
    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![ALPN_TUNNEL.to_vec()];
    (Arc::new(server), Arc::new(client))
}

pub(crate) fn listen(address: SocketAddr, tls: Arc<rustls::ServerConfig>) -> Listener {
    let port = PortSocket::bind(address, 1).unwrap().0.remove(0);
    Listener::serve(port, tls, &KEY, Settings::default()).unwrap()
}

pub(crate) async fn pair() -> Pair {
    pair_with(TunnelMemory::default()).await
}

pub(crate) async fn pair_with(memory: TunnelMemory) -> Pair {
    let (server, client) = tls();
    let listener = listen(ANY, server);
    let address = listener.local_address().unwrap();
    let dialling = async {
        let connection = connect(address, client, "hub", Settings::default(), SOON).await.unwrap();
        let hello = Hello { version: "1".into(), ..Hello::default() };
        AgentTunnel::establish(connection, hello, memory, SOON).await.unwrap()
    };
    let accepting = async {
        let connection = listener.accept().await.unwrap().accept(SOON).await.unwrap();
        assert_eq!(connection.protocol(), Some(Protocol::Tunnel));
        let (tunnel, control, hello) = HubTunnel::establish(connection, memory, SOON).await.unwrap();
        assert_eq!(hello.version, "1");
        control.send(HubMessage::Welcome(Welcome { server_id: "s".into(), version: "1".into() })).unwrap();
        (tunnel, control)
    };
    let ((agent, agent_control, welcome), (hub, hub_control)) = tokio::join!(dialling, accepting);
    assert_eq!(welcome.server_id, "s");
    Pair { listener, hub, hub_control, agent, agent_control }
}

fn dial() -> Dial {
    Dial { host: "target".into(), port: 80, timeout_ms: 1000, ..Dial::default() }
}

/// A relayed connection: what the client holds, and what the target holds.
async fn relayed(pair: &Pair) -> (DuplexStream, DuplexStream, JoinSet<RelayEnd>) {
    let (near, far) = dialled(&pair.hub, &pair.agent).await;
    let mut relays = JoinSet::new();
    let [client, target] = [near, far].map(|stream| {
        let (outside, inside) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(inside);
        relays.spawn(async move { relay(stream, reader, writer, &Traffic::default()).await });
        outside
    });
    (client, target, relays)
}

/// A stream that is dialled: the hub's end, and the agent's.
pub(crate) async fn dialled(hub: &HubTunnel, agent: &AgentTunnel) -> (Stream, Stream) {
    let answering = async {
        let request = agent.accept().await.unwrap().read(SOON).await.unwrap();
        assert_eq!(request.dial, dial());
        request.accept("192.0.2.1:80").await.unwrap()
    };
    let deadline = Instant::now() + SOON;
    let (opened, far) = tokio::join!(async { hub.open(&dial(), deadline, SIGN_OF_LIFE).await }, answering);
    let (near, dialed) = opened.unwrap();
    assert_eq!(dialed.address, "192.0.2.1:80");
    (near, far)
}

/// What an idle connection costs in the relay, besides quinn's own state of the stream and the socket.
#[tokio::test]
async fn a_relay_is_small() {
    let pair = pair().await;
    let (mut near, _far) = dialled(&pair.hub, &pair.agent).await;
    let waiting = size_of_val(&near.quic().0.stopped());
    let traffic = Traffic::default();
    let relay = size_of_val(&relay(near, tokio::io::empty(), tokio::io::sink(), &traffic));
    assert!(relay + waiting <= 512, "{relay} + {waiting} bytes");
}

#[tokio::test]
async fn a_half_close_leaves_the_other_direction_open() {
    let pair = pair().await;
    let (mut client, mut target, mut relays) = relayed(&pair).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut question = String::new();
    timeout(SOON, target.read_to_string(&mut question)).await.unwrap().unwrap();
    assert_eq!(question, "question");
    target.write_all(b"answer").await.unwrap();
    target.shutdown().await.unwrap();
    let mut answer = String::new();
    timeout(SOON, client.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert_eq!(answer, "answer");
    while let Some(end) = relays.join_next().await {
        assert_eq!(end.unwrap(), RelayEnd::Complete);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_reset_at_the_other_end() {
    let pair = pair().await;
    let (client, target, mut relays) = relayed(&pair).await;
    // A duplex whose other half is gone reads as an end and fails to write: the write is what breaks.
    drop(target);
    let (mut reader, mut writer) = tokio::io::split(client);
    // Breaks off itself once the reset has come back.
    let _ = timeout(SOON, writer.write_all(&[0; 4096])).await.unwrap();
    let _ = timeout(SOON, reader.read_to_end(&mut Vec::new())).await.unwrap();
    let mut ends = Vec::new();
    while let Some(end) = relays.join_next().await {
        ends.push(end.unwrap());
    }
    assert!(ends.contains(&RelayEnd::LocalReset), "{ends:?}");
    assert!(ends.contains(&RelayEnd::RemoteReset(ResetReason::ConnectionReset)), "{ends:?}");
}

#[tokio::test]
async fn losing_the_tunnel_ends_a_relay_as_lost() {
    let pair = pair().await;
    let (_client, _target, mut relays) = relayed(&pair).await;
    pair.agent.close(CloseReason::AgentStopping, "bye", SOON).await;
    while let Some(end) = timeout(SOON, relays.join_next()).await.unwrap() {
        assert_eq!(end.unwrap(), RelayEnd::TunnelLost);
    }
    let stopped = ConnectionLost::Closed { reason: CloseReason::AgentStopping, text: "bye".into() };
    assert_eq!(pair.hub.closed().await, stopped);
}

#[tokio::test]
async fn dropping_a_dial_cancels_it_at_the_agent() {
    let pair = pair().await;
    let deadline = Instant::now() + SOON;
    let asked = dial();
    let request = tokio::select! {
        _ = pair.hub.open(&asked, deadline, SIGN_OF_LIFE) => panic!("nobody answered"),
        request = async { pair.agent.accept().await.unwrap().read(SOON).await.unwrap() } => request,
    };
    timeout(SOON, request.cancelled()).await.unwrap();
}

#[tokio::test]
async fn a_refusal_carries_its_reason_and_sentence() {
    let pair = pair().await;
    let refusing = async {
        let request = pair.agent.accept().await.unwrap().read(SOON).await.unwrap();
        request.refuse(Refusal::new(Reason::PolicyDenied, "denied by policy")).await.unwrap();
    };
    let (opened, ()) =
        tokio::join!(async { pair.hub.open(&dial(), Instant::now() + SOON, SIGN_OF_LIFE).await }, refusing);
    let DialError::Refused(refusal) = opened.unwrap_err() else { panic!("refused") };
    assert_eq!((refusal.reason(), refusal.message.as_str()), (Reason::PolicyDenied, "denied by policy"));
}

#[tokio::test]
async fn a_dial_that_is_never_answered_ends_at_its_deadline() {
    let pair = pair().await;
    let error = pair.hub.open(&dial(), Instant::now() + Duration::from_millis(50), SIGN_OF_LIFE).await.unwrap_err();
    assert!(matches!(error, DialError::TimedOut), "{error}");
}

#[tokio::test]
async fn messages_cross_the_control_stream_both_ways_and_unknown_ones_are_skipped() {
    let Pair { mut hub_control, mut agent_control, listener, .. } = pair().await;
    agent_control.send(AgentMessage::Renew(Renew { csr: vec![1, 2] })).unwrap();
    assert_eq!(hub_control.receive().await.unwrap(), AgentMessage::Renew(Renew { csr: vec![1, 2] }));
    hub_control.send(HubMessage::Drain(Drain {})).unwrap();
    assert_eq!(agent_control.receive().await.unwrap(), HubMessage::Drain(Drain {}));
    listener.close(CloseReason::HubStopping, "stop", SOON).await;
    let error = agent_control.receive().await.unwrap_err();
    let ControlError::Lost(lost) = &error else { panic!("{error:?}") };
    assert!(matches!(lost, ConnectionLost::Closed { reason: CloseReason::HubStopping, .. }), "{error:?}");
}

#[tokio::test]
async fn streams_flow_while_nobody_takes_what_the_control_stream_brings() {
    const BYTES: usize = 1 << 20;
    let pair = pair_with(TunnelMemory::SMALLEST).await;
    pair.agent_control.send(AgentMessage::Drain(Drain {})).unwrap();
    let (client, target, _relays) = relayed(&pair).await;
    let ((mut reader, mut writer), (mut target_reader, mut target_writer)) =
        (tokio::io::split(client), tokio::io::split(target));
    let there = async {
        writer.write_all(&vec![1; BYTES]).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let back = async {
        tokio::io::copy(&mut target_reader, &mut target_writer).await.unwrap();
        target_writer.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let carried = timeout(SOON, async { tokio::join!(there, back, reader.read_to_end(&mut got)) }).await;
    carried.expect("the streams stand still").2.unwrap();
    assert_eq!(got.len(), BYTES);
}

#[tokio::test]
async fn a_peer_whose_messages_nobody_takes_fills_no_memory() {
    let Pair { mut hub_control, agent_control, hub: _hub, agent: _agent, listener: _listener } = pair().await;
    let mut sent = 0;
    let flooded = timeout(SOON, async {
        while agent_control.send(AgentMessage::Drain(Drain {})).is_ok() || sent < 1000 {
            sent += 1;
            tokio::task::yield_now().await;
        }
    });
    flooded.await.expect("the hub takes on and on");
    let mut received = 0;
    let end = loop {
        match hub_control.receive().await {
            Ok(_) => received += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(end, ControlError::Stuck) && received == 64, "{received} and {end}");
}

#[tokio::test]
async fn a_nudge_is_heard_and_says_nothing() {
    let Pair { hub, mut hub_control, agent, agent_control, listener: _listener } = pair().await;
    for _ in 0..3 {
        let (of_agent, of_hub) = (hub.received_frames(), agent.connection.received_frames());
        hub.nudge();
        agent.nudge();
        let heard = timeout(SOON, async {
            while hub.received_frames() == of_agent || agent.connection.received_frames() == of_hub {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        heard.await.expect("silence");
    }
    agent_control.send(AgentMessage::Drain(Drain {})).unwrap();
    assert_eq!(hub_control.receive().await.unwrap(), AgentMessage::Drain(Drain {}));
}

#[tokio::test]
async fn a_join_is_asked_once_and_answered_until_decided() {
    let (server, client) = tls();
    let mut client = (*client).clone();
    client.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    let listener = listen(ANY, server);
    let address = listener.local_address().unwrap();
    let asked = JoinRequest { token: "t".into(), cluster: "c1".into(), ..JoinRequest::default() };
    let hub = async {
        let connection = listener.accept().await.unwrap().accept(SOON).await.unwrap();
        assert_eq!(connection.protocol(), Some(Protocol::Join));
        let (mut session, request) = JoinSession::accept(connection, SOON).await.unwrap();
        assert_eq!(request, asked);
        session.answer(JoinReply::Pending(Pending { cluster: "c1".into() })).await.unwrap();
        let issued = Issued { cluster: "c1".into(), chain_pem: "pem".into() };
        session.conclude(JoinReply::Issued(issued), SOON).await.unwrap();
    };
    let agent = async {
        let connection = connect(address, Arc::new(client), "hub", Settings::default(), SOON).await.unwrap();
        let mut answers = JoinAnswers::ask(connection, &asked, SOON).await.unwrap();
        let mut replies = vec![answers.next().await.unwrap()];
        replies.push(answers.next().await.unwrap());
        answers.close(SOON).await;
        replies
    };
    let ((), replies) = tokio::join!(hub, agent);
    assert!(matches!(&replies[..], [JoinReply::Pending(_), JoinReply::Issued(issued)] if issued.chain_pem == "pem"));
}

#[tokio::test]
async fn a_first_message_that_is_too_long_or_garbage_is_refused() {
    let pair = pair().await;
    for (bytes, long) in [(&[0xff, 0xff, 0xff, 0xff][..], true), (&[0, 0, 0, 2, 0xff, 0xff][..], false)] {
        let Connection { quic, .. } = &pair.hub.connection;
        let (mut send, _receive) = quic.open_bi().await.unwrap();
        send.write_all(bytes).await.unwrap();
        let error = pair.agent.accept().await.unwrap().read(SOON).await.unwrap_err();
        assert_eq!(matches!(error, AcceptError::Wire(WireError::TooLong)), long, "{error:?}");
        assert_eq!(matches!(error, AcceptError::Wire(WireError::Malformed(_))), !long, "{error:?}");
    }
}

fn hex(message: &impl Message) -> String {
    message.encode_to_vec().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn refusal() -> Refusal {
    Refusal::new(Reason::TimedOut, "late")
}

#[test]
fn the_bytes_of_every_message_stay_as_they_are() {
    let asked = Dial {
        kind: TargetKind::KubeApi.into(),
        host: "h".into(),
        port: 443,
        timeout_ms: 10_000,
        user: "u".into(),
        trace_id: "t".into(),
        window: 0,
        identity: None,
        breaks: false,
    };
    let extra = vec![Extra { key: "k".into(), values: vec!["v".into()] }];
    let gateway = Dial {
        kind: TargetKind::KubeGateway.into(),
        identity: Some(Identity { user: "u".into(), groups: vec!["g".into(), "h".into()], extra, asked: false }),
        ..Dial::default()
    };
    let join =
        JoinRequest { token: "t".into(), cluster: "c".into(), agent: "a".into(), csr: vec![9], version: "1".into() };
    let export = Export {
        name: "n".into(),
        host: "h".into(),
        port: 80,
        scheme: "s".into(),
        metrics_path: "/".into(),
        job: "j".into(),
        labels: [("l".to_owned(), "v".to_owned())].into(),
    };
    let export_hex = "0a016e 120168 1850 220173 2a012f 32016a 3a060a016c120176".replace(' ', "");
    let exporting = Hello { exports: vec![export.clone()], ..Hello::default() };
    let exports = Exports { items: vec![export] };
    let hello = Hello { version: "1".into(), capabilities: vec!["x".into()], instance: "i".into(), ..Hello::default() };
    let welcome = Welcome { server_id: "s".into(), version: "1".into() };
    let dialed = Dialed { address: "a".into(), window: 0, breaks: false };
    let issued = Issued { cluster: "c".into(), chain_pem: "p".into() };
    let notes = Notes {
        windows: vec![Window { stream: 1, limit: 300 }],
        breaks: vec![Break { stream: 1, offset: 300, code: ResetReason::ConnectionReset.code() }],
    };
    let golden = [
        (hex(&gateway), "0802 4211 0a0175 120167 120168 1a060a016b120176".replace(' ', "")),
        (hex(&asked), "080112016818bb0320904e2a01753201 74".replace(' ', "")),
        (hex(&DialReply { outcome: Some(DialOutcome::Dialed(dialed)) }), "0a030a0161".into()),
        (hex(&DialReply { outcome: Some(DialOutcome::Refused(refusal())) }), "1208080512046c617465".into()),
        (
            hex(&FromAgent { message: Some(AgentMessage::Hello(hello)), ..Default::default() }),
            "0a090a01311201781a0169".into(),
        ),
        (
            hex(&FromAgent { message: Some(AgentMessage::Renew(Renew { csr: vec![9] })), ..Default::default() }),
            "12030a0109".into(),
        ),
        (hex(&FromAgent { message: Some(AgentMessage::Drain(Drain {})), ..Default::default() }), "1a00".into()),
        (hex(&exporting), format!("2219{export_hex}")),
        (
            hex(&FromAgent { message: Some(AgentMessage::Exports(exports)), ..Default::default() }),
            format!("2a1b0a19{export_hex}"),
        ),
        (
            hex(&FromHub { message: Some(HubMessage::Welcome(welcome)), ..Default::default() }),
            "0a060a0173120131".into(),
        ),
        (
            hex(&FromHub {
                message: Some(HubMessage::Renewed(Renewed { chain_pem: "p".into() })),
                ..Default::default()
            }),
            "12030a0170".into(),
        ),
        (hex(&FromHub { message: Some(HubMessage::Drain(Drain {})), ..Default::default() }), "1a00".into()),
        (hex(&FromHub::of(None, notes.clone())), "22050801 10ac02 4207080110ac021802".replace(' ', "")),
        (hex(&FromAgent::of(None, notes.clone())), "22050801 10ac02 4207080110ac021802".replace(' ', "")),
        (hex(&join), "0a017412016 31a01612201092a0131".replace(' ', "")),
        (hex(&FromJoin { reply: Some(JoinReply::Pending(Pending { cluster: "c".into() })) }), "0a030a0163".into()),
        (hex(&FromJoin { reply: Some(JoinReply::Issued(issued)) }), "12060a0163120170".into()),
        (hex(&FromJoin { reply: Some(JoinReply::Refused(refusal())) }), "1a08080512046c617465".into()),
    ];
    for (encoded, golden) in golden {
        assert_eq!(encoded, golden);
    }
}

#[test]
fn a_kind_of_message_from_a_newer_peer_decodes_to_nothing() {
    // Field 15, length 1.
    let newer = [0x7a, 1, 0];
    assert_eq!(FromAgent::decode(&newer[..]).unwrap().message, None);
    assert_eq!(FromHub::decode(&newer[..]).unwrap().message, None);
    assert_eq!(FromJoin::decode(&newer[..]).unwrap().reply, None);
    assert_eq!(Refusal { reason: 999, message: String::new() }.reason(), Reason::Unspecified);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_dial_survives_the_wire(kind in 0..4, host in ".{0,300}", port in 0..70_000_u32, timeout_ms: u32, window: u64, user in ".{0,40}", groups in prop::collection::vec(".{0,20}", 0..4)) {
        let identity = (!groups.is_empty()).then(|| Identity { user: user.clone(), groups, extra: Vec::new(), asked: window % 2 == 0 });
        let dial = Dial { kind, host, port, timeout_ms, user, trace_id: "0".repeat(32), window, identity, breaks: window % 3 == 0 };
        prop_assert_eq!(Dial::decode(&wire::frame(&dial)[4..]).unwrap(), dial);
    }

    #[test]
    fn a_join_survives_the_wire(token in ".{0,80}", cluster in ".{0,70}", csr in prop::collection::vec(any::<u8>(), 0..600)) {
        let join = JoinRequest { token, cluster, csr, agent: "a".into(), version: "1".into() };
        prop_assert_eq!(JoinRequest::decode(&wire::frame(&join)[4..]).unwrap(), join);
    }

    #[test]
    fn mutated_bytes_of_any_message_never_panic(at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
        let exports = vec![Export { name: "n".into(), labels: [("a".into(), "b".into())].into(), ..Export::default() }];
        let capabilities = vec!["x".into(), "y".into()];
        let hello = Hello { version: "1.2.3".into(), capabilities, instance: "z".into(), exports, clock: 1, trusts: Vec::new() };
        let mut bytes = FromAgent { message: Some(AgentMessage::Hello(hello)), ..Default::default() }.encode_to_vec();
        let at = at.index(bytes.len());
        bytes[at] = to;
        bytes.truncate(cut.index(bytes.len() + 1));
        let _ = FromAgent::decode(bytes.as_slice());
        let _ = FromHub::decode(bytes.as_slice());
        let _ = FromJoin::decode(bytes.as_slice());
        let _ = DialReply::decode(bytes.as_slice());
        let _ = Dial::decode(bytes.as_slice());
        let _ = JoinRequest::decode(bytes.as_slice());
    }
}

#[tokio::test]
async fn a_restarted_hub_answers_packets_of_old_tunnels_with_a_reset() {
    let (server, client) = tls();
    // A runtime of its own, so that it can end like a killed process: without a word.
    let killed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let first = {
        let _entered = killed.enter();
        listen(ANY, server.clone())
    };
    let address = first.local_address().unwrap();
    let accepting = killed.spawn(async move { (first.accept().await.unwrap().accept(SOON).await.unwrap(), first) });
    let connection = connect(address, client, "hub", Settings::default(), SOON).await.unwrap();
    let held = accepting.await.unwrap();
    tokio::task::spawn_blocking(|| killed.shutdown_timeout(SOON)).await.unwrap();
    drop(held);
    let deadline = Instant::now() + SOON;
    let _second = loop {
        match PortSocket::bind(address, 1) {
            Ok((mut port, _)) => break Listener::serve(port.remove(0), server, &KEY, Settings::default()).unwrap(),
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::task::yield_now().await;
    };
    let (mut send, _receive) = connection.quic.open_bi().await.unwrap();
    send.write_all(b"are you there?").await.unwrap();
    assert_eq!(timeout(SOON, connection.closed()).await.unwrap(), ConnectionLost::Forgotten);
}

#[tokio::test]
async fn what_was_kept_of_a_tunnel_resets_it_and_no_other() {
    let mut pair = pair().await;
    let tunnel: Resettable = pair.hub.resettable().unwrap().to_string().parse().unwrap();
    pair.listener.reset(&Resettable { id: tunnel.id ^ 1, ..tunnel }).unwrap();
    pair.agent_control.send(AgentMessage::Drain(Drain {})).unwrap();
    assert_eq!(pair.hub_control.receive().await.unwrap(), AgentMessage::Drain(Drain {}));
    pair.listener.reset(&tunnel).unwrap();
    assert_eq!(timeout(SOON, pair.agent.closed()).await.unwrap(), ConnectionLost::Forgotten);
}
