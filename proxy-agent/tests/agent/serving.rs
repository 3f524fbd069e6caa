//! Dials and streams: what reaches a target, what is refused, and how connections end.

use std::{io, net::SocketAddr, time::Duration};

use proxy_agent::config::KubeApi;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tunnel::{Dial, DialError, Dialed, Reason, Stream, TargetKind};

use crate::{
    hub::{Hub, HubEnd, SOON},
    spoke::{DAY, Spoke, rules},
};

fn dial(host: &str, port: u16) -> Dial {
    Dial { host: host.into(), port: port.into(), timeout_ms: 5_000, user: "alice".into(), ..Dial::default() }
}

async fn open(end: &HubEnd, dial: &Dial) -> Result<(Stream, Dialed), DialError> {
    end.tunnel.open(dial, Instant::now() + SOON, tunnel::SIGN_OF_LIFE).await
}

async fn refusal(end: &HubEnd, dial: &Dial) -> (Reason, String) {
    match open(end, dial).await {
        Err(DialError::Refused(refusal)) => (refusal.reason(), refusal.message),
        other => panic!("{other:?}"),
    }
}

async fn target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn accept(listener: &TcpListener) -> TcpStream {
    timeout(SOON, listener.accept()).await.expect("nobody connects").unwrap().0
}

async fn read_to_end(from: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    timeout(SOON, from.read_to_end(&mut bytes)).await.expect("no end")?;
    Ok(bytes)
}

#[tokio::test]
async fn bytes_and_half_closes_pass_both_ways() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let end = hub.tunnel().await;
    let (listener, address) = target().await;
    let ((mut stream, dialed), mut connection) =
        tokio::join!(async { open(&end, &dial("127.0.0.1", address.port())).await.unwrap() }, accept(&listener));
    assert_eq!(dialed.address, address.to_string());
    stream.write_all(b"question").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut connection).await.unwrap(), b"question");
    connection.write_all(b"answer").await.unwrap();
    drop(connection);
    assert_eq!(read_to_end(&mut stream).await.unwrap(), b"answer");
    spoke.shows("/metrics", "proxy_agent_streams 0").await;
    let metrics = spoke.get("/metrics").await;
    for line in [
        "proxy_agent_dials_total{result=\"connected\"} 1",
        "proxy_agent_dial_duration_seconds_count 1",
        "proxy_agent_bytes_total{direction=\"to_target\"} 8",
        "proxy_agent_bytes_total{direction=\"from_target\"} 6",
        "proxy_agent_connects_total{result=\"connected\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert!(metrics.contains(&format!("proxy_agent_connected{{hub=\"{}\"}} 1", hub.address)), "{metrics}");
    spoke.stopped().await;
}

#[tokio::test]
async fn a_target_that_speaks_first_is_heard() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let end = hub.tunnel().await;
    let (listener, address) = target().await;
    let greeting = async {
        let mut connection = accept(&listener).await;
        connection.write_all(b"220 ready").await.unwrap();
        connection
    };
    let ((mut stream, _), connection) =
        tokio::join!(async { open(&end, &dial("127.0.0.1", address.port())).await.unwrap() }, greeting);
    let mut banner = [0; 9];
    timeout(SOON, stream.read_exact(&mut banner)).await.unwrap().unwrap();
    assert_eq!(&banner, b"220 ready");
    drop((stream, connection));
    spoke.stopped().await;
}

#[tokio::test]
async fn a_reset_of_the_target_is_a_reset_at_the_hub() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let end = hub.tunnel().await;
    let (listener, address) = target().await;
    let ((mut stream, _), connection) =
        tokio::join!(async { open(&end, &dial("127.0.0.1", address.port())).await.unwrap() }, accept(&listener));
    connection.set_zero_linger().unwrap();
    drop(connection);
    assert_eq!(read_to_end(&mut stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    spoke.stopped().await;
}

#[tokio::test]
async fn a_reset_at_the_hub_is_a_reset_at_the_target() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let end = hub.tunnel().await;
    let (listener, address) = target().await;
    for lost in [false, true] {
        let ((stream, _), mut connection) =
            tokio::join!(async { open(&end, &dial("127.0.0.1", address.port())).await.unwrap() }, accept(&listener));
        if lost {
            end.tunnel.close(tunnel::CloseReason::HubStopping, "");
        } else {
            drop(stream);
        }
        assert_eq!(read_to_end(&mut connection).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{lost}");
    }
    spoke.stopped().await;
}

#[tokio::test]
async fn every_refusal_has_its_reason_and_a_sentence() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let end = hub.tunnel().await;
    let (listener, address) = target().await;
    drop(listener);
    let (reason, text) = refusal(&end, &dial("127.0.0.1", address.port())).await;
    assert_eq!((reason, text), (Reason::ConnectionRefused, format!("nothing listens at {address}")));
    for (dial, expected, part) in [
        (dial("169.254.169.254", 80), Reason::PolicyDenied, "--allow '169.254.169.254:80'"),
        (dial("0.0.0.0", 80), Reason::PolicyDenied, "unspecified"),
        (dial("::ffff:169.254.169.254", 80), Reason::PolicyDenied, "metadata"),
        (dial("10.0.0.1", 80), Reason::PolicyDenied, "no allow rule matches"),
        (dial("", 80), Reason::BadTarget, "host is missing"),
        (dial("we b", 80), Reason::BadTarget, "neither a host name nor an IP address"),
        (Dial { port: 70_000, ..dial("web", 1) }, Reason::BadTarget, "70000"),
        (Dial { kind: 99, ..dial("web", 1) }, Reason::KindNotSupported, "upgrade"),
    ] {
        let (reason, text) = refusal(&end, &dial).await;
        assert_eq!(reason, expected, "{text}");
        assert!(text.contains(part), "{text}");
    }
    spoke.shows("/metrics", "proxy_agent_dials_total{result=\"policy_denied\"} 4").await;
    spoke.stopped().await;
}

#[tokio::test]
async fn the_agents_own_ports_are_closed_unless_named() {
    let hub = Hub::start();
    let spoke = Spoke::start_with(&hub, DAY, |config| config.policy = proxy_agent::policy::Policy::default()).await;
    let end = hub.tunnel().await;
    let (_listener, address) = target().await;
    for host in ["127.0.0.1", "localhost", "::ffff:127.0.0.1", "0.0.0.0", "::1", "127.1"] {
        let (reason, text) = refusal(&end, &dial(host, address.port())).await;
        assert_eq!(reason, Reason::PolicyDenied, "{host}: {text}");
    }
    spoke.stopped().await;
}

#[tokio::test]
async fn the_kubernetes_api_is_where_the_operator_says() {
    let hub = Hub::start();
    let (listener, address) = target().await;
    let spoke = Spoke::start_with(&hub, DAY, |config| {
        config.policy = proxy_agent::policy::Policy::new(rules(&["*.svc"]), Vec::new());
        config.kube_api = KubeApi::Configured(address.to_string().parse().unwrap());
    })
    .await;
    let end = hub.tunnel().await;
    let kube = Dial { kind: TargetKind::KubeApi.into(), host: String::new(), port: 0, ..dial("", 0) };
    let (opened, _connection) = tokio::join!(open(&end, &kube), accept(&listener));
    assert_eq!(opened.unwrap().1.address, address.to_string());
    // The same address as a plain target stays behind the policy.
    assert_eq!(refusal(&end, &dial("127.0.0.1", address.port())).await.0, Reason::PolicyDenied);
    spoke.stopped().await;
}

/// A port whose SYNs the kernel drops, because the queue of connections to accept is full.
async fn black_hole() -> (SocketAddr, Vec<TcpStream>, TcpListener) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut filling = Vec::new();
    while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        filling.push(connected.unwrap());
    }
    (address, filling, listener)
}

#[tokio::test]
async fn a_dial_to_a_black_hole_ends_at_its_deadline() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let end = hub.tunnel().await;
    let (address, _filling, _listener) = black_hole().await;
    let (reason, text) = refusal(&end, &Dial { timeout_ms: 300, ..dial("127.0.0.1", address.port()) }).await;
    assert_eq!((reason, text), (Reason::TimedOut, format!("{address} did not accept the connection within 300 ms")));
    spoke.shows("/metrics", "proxy_agent_streams 0").await;
    spoke.stopped().await;
}

#[tokio::test]
async fn a_dial_that_the_hub_gives_up_is_cancelled() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let end = hub.tunnel().await;
    let (address, _filling, _listener) = black_hole().await;
    let black = Dial { timeout_ms: 60_000, ..dial("127.0.0.1", address.port()) };
    let asked = async {
        spoke.shows("/metrics", "proxy_agent_streams 1").await;
    };
    tokio::select! {
        opened = open(&end, &black) => panic!("{opened:?}"),
        () = asked => {}
    }
    spoke.shows("/metrics", "proxy_agent_dials_total{result=\"cancelled\"} 1").await;
    spoke.shows("/metrics", "proxy_agent_streams 0").await;
    spoke.stopped().await;
}

#[tokio::test]
async fn many_connections_at_once_are_not_mixed_up() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let end = hub.tunnel().await;
    let (listener, address) = target().await;
    let echoes = TaskTracker::new();
    let tracker = echoes.clone();
    let echo = async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            tracker.spawn(async move {
                let (mut reader, mut writer) = connection.into_split();
                tokio::io::copy(&mut reader, &mut writer).await
            });
        }
    };
    let ask = async |n: u32| {
        let (mut stream, _) = open(&end, &dial("127.0.0.1", address.port())).await.unwrap();
        let pattern = n.to_be_bytes().repeat(5_000);
        stream.write_all(&pattern).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_to_end(&mut stream).await.unwrap(), pattern, "{n}");
    };
    let all = futures_util::future::join_all((0..200).map(ask));
    tokio::select! {
        () = echo => {}
        done = timeout(SOON, all) => assert_eq!(done.expect("too slow").len(), 200),
    }
    spoke.stopped().await;
}
