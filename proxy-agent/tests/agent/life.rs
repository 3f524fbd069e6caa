//! An agent's life: connecting, coming back, renewing, being refused, and stopping.

use std::time::Duration;

use certs::{Identity, KeyFingerprint, PrivateKey};
use proxy_agent::{Agent, Config, StartError, state::StateFolder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{Instant, timeout},
};
use tunnel::{AgentMessage, CloseReason, ConnectionLost, Dial, Drain, HubMessage, Renewed, Stream};

use crate::{
    hub::{Hub, HubEnd, SOON},
    spoke::{DAY, Spoke, chain},
};

async fn open(end: &HubEnd, listener: &TcpListener) -> Stream {
    let dial = Dial {
        host: "127.0.0.1".into(),
        port: listener.local_addr().unwrap().port().into(),
        timeout_ms: 5_000,
        ..Dial::default()
    };
    end.tunnel.open(&dial, Instant::now() + SOON, tunnel::SIGN_OF_LIFE).await.unwrap().0
}

async fn heard(end: &mut HubEnd) -> AgentMessage {
    timeout(SOON, end.control.receive()).await.expect("the agent says nothing").unwrap()
}

#[tokio::test]
async fn an_agent_shows_its_certificate_and_is_ready_once_welcomed() {
    let hub = Hub::start();
    let mut spoke = Spoke::start(&hub).await;
    let answer = spoke.get("/readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(&hub.address.to_string()), "{answer}");
    let end = hub.tunnel().await;
    let expected = Identity::Agent { cluster: "c1".parse().unwrap(), agent: "a1".parse().unwrap() };
    assert_eq!(end.identity, expected);
    assert_eq!((end.hello.version.as_str(), end.hello.instance.len()), (env!("CARGO_PKG_VERSION"), 32));
    spoke.ready().await;
    assert!(spoke.get("/readyz").await.starts_with("HTTP/1.1 200"));
    spoke.stopped().await;
}

#[tokio::test]
async fn an_agent_keeps_one_tunnel_to_a_hub_of_two_addresses() {
    let hub = Hub::start();
    let hubs = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{}", hub.address.port()));
    let spoke = Spoke::start_with(&hub, DAY, |config| {
        config.hubs = hubs.iter().map(|hub| hub.parse().unwrap()).collect();
    })
    .await;
    let (first, second) = (hub.tunnel().await, hub.tunnel().await);
    assert_eq!(first.hello.instance, second.hello.instance);
    let ended = timeout(Duration::from_secs(5), async {
        tokio::select! { loss = first.tunnel.closed() => (loss, &second), loss = second.tunnel.closed() => (loss, &first) }
    });
    let (loss, kept) = ended.await.expect("both tunnels stay");
    assert!(matches!(loss, ConnectionLost::Closed { reason: CloseReason::Done, .. }), "{loss:?}");
    spoke.shows("/readyz", "200 OK").await;
    // The other address takes over when the tunnel ends.
    kept.tunnel.close(CloseReason::HubStopping, "");
    hub.tunnel().await;
    spoke.stopped().await;
}

#[tokio::test]
async fn an_agent_comes_back_to_a_hub_that_was_restarted() {
    let mut hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let end = hub.tunnel().await;
    hub.stop().await;
    drop(end);
    spoke.shows("/readyz", "503").await;
    hub.start_again().await;
    let end = hub.tunnel().await;
    spoke.shows("/readyz", "200 OK").await;
    drop(end);
    spoke.stopped().await;
}

#[tokio::test]
async fn a_refused_agent_says_what_to_do_and_does_not_storm() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let connection = hub.accept().await;
    connection.close(CloseReason::Denied, "cluster c1 has been denied");
    spoke.shows("/readyz", "cluster c1 has been denied").await;
    spoke.shows("/metrics", "proxy_agent_connects_total{result=\"denied\"} 1").await;
    // Two seconds at least until the next attempt.
    assert!(timeout(Duration::from_secs(1), hub.accept()).await.is_err());
    spoke.stopped().await;
}

#[tokio::test]
async fn a_hub_with_another_ca_is_not_spoken_to() {
    let (hub, other) = (Hub::start(), Hub::start());
    let spoke =
        Spoke::start_with(&hub, DAY, |config| config.hubs = vec![other.address.to_string().parse().unwrap()]).await;
    other.shake_hands().await.expect_err("the agent went on");
    spoke.shows("/metrics", "proxy_agent_connects_total{result=\"hub_not_trusted\"} 1").await;
    spoke.shows("/readyz", "invalid peer certificate").await;
    spoke.stopped().await;
}

#[tokio::test]
async fn a_certificate_that_the_hub_does_not_take_is_told_from_an_outage() {
    let (hub, foreign) = (Hub::start(), Hub::start());
    let spoke = Spoke::start_with(&hub, DAY, |config| {
        let state = StateFolder::new(&config.state);
        let key = state.load_key().unwrap();
        state.save_chain(&chain(&foreign, &key, DAY)).unwrap();
    })
    .await;
    hub.shake_hands().await.expect_err("the hub took it");
    spoke.shows("/metrics", "proxy_agent_connects_total{result=\"certificate_refused\"} 1").await;
    spoke.stopped().await;
}

#[tokio::test]
async fn a_certificate_is_renewed_over_the_tunnel_with_the_same_key() {
    let hub = Hub::start();
    // Its last minute.
    let spoke = Spoke::start_with(&hub, Duration::from_secs(60), |_| {}).await;
    let mut end = hub.tunnel().await;
    let AgentMessage::Renew(renew) = heard(&mut end).await else { panic!("no renewal") };
    assert_eq!(KeyFingerprint::of_csr(&renew.csr).unwrap(), end.key);
    let key = PrivateKey::load_or_create(&spoke.state.key_path()).unwrap();
    let renewed = chain(&hub, &key, DAY);
    end.control.send(HubMessage::Renewed(Renewed { chain_pem: renewed.clone() })).unwrap();
    spoke.shows("/metrics", "proxy_agent_certificate_renewals_total{result=\"used\"} 1").await;
    assert_eq!(spoke.state.load_chain().unwrap(), renewed);
    spoke.stopped().await;
}

#[tokio::test]
async fn a_drain_lets_open_connections_end_and_serves_new_ones() {
    let hub = Hub::start();
    let spoke = Spoke::start(&hub).await;
    let mut end = hub.tunnel().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (mut stream, accepted) = tokio::join!(open(&end, &listener), listener.accept());
    let mut connection = accepted.unwrap().0;

    spoke.stop.cancel();
    assert_eq!(heard(&mut end).await, AgentMessage::Drain(Drain {}));
    assert!(spoke.get("/readyz").await.contains("stopping"));
    let (new, accepted) = tokio::join!(open(&end, &listener), listener.accept());
    drop((new, accepted.unwrap()));
    stream.write_all(b"still").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    timeout(SOON, connection.read_to_string(&mut text)).await.unwrap().unwrap();
    assert_eq!(text, "still");
    drop(connection);
    assert_eq!(timeout(SOON, stream.read(&mut [0; 1])).await.unwrap().unwrap(), 0);
    spoke.ended().await;
    let loss = timeout(SOON, end.tunnel.closed()).await.unwrap();
    assert_eq!(loss, ConnectionLost::Closed { reason: CloseReason::AgentStopping, text: String::new() });
}

#[tokio::test]
async fn what_is_still_open_at_the_end_of_a_drain_is_cut_as_an_error() {
    let hub = Hub::start();
    for early in [false, true] {
        let limit = if early { DAY } else { Duration::from_millis(100) };
        let spoke = Spoke::start_with(&hub, DAY, |config| config.drain_timeout = limit).await;
        let end = hub.tunnel().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut stream, accepted) = tokio::join!(open(&end, &listener), listener.accept());
        let mut connection = accepted.unwrap().0;
        if early {
            spoke.abort.cancel();
        }
        spoke.stopped().await;
        timeout(SOON, connection.read(&mut [0; 1])).await.unwrap().unwrap_err();
        timeout(SOON, stream.read(&mut [0; 1])).await.unwrap().unwrap_err();
    }
}

#[tokio::test]
async fn an_agent_that_cannot_connect_still_stops_at_once() {
    let mut hub = Hub::start();
    hub.stop().await;
    let spoke = Spoke::start(&hub).await;
    spoke.stopped().await;
}

#[tokio::test]
async fn an_agent_that_has_not_joined_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let error = Agent::bind(Config::new(folder.path())).await.unwrap_err();
    assert!(matches!(error, StartError::Identity(_)));
    assert!(process::chain(&error).contains("proxy-agent join --hub"), "{error}");
}

#[tokio::test]
async fn a_taken_metrics_port_is_named() {
    let hub = Hub::start();
    let (_folder, state) = crate::spoke::joined(&hub, DAY);
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = Config::new(state.path());
    config.metrics_listen = Some(taken.local_addr().unwrap());
    let error = Agent::bind(config).await.unwrap_err();
    assert!(error.to_string().contains("--metrics-listen"), "{error}");
}
