//! The kube gateway towards the API server: for whom the agent speaks, whatever the hub and its users make of a name.

use std::net::SocketAddr;

use certs::ServerTls;
use proxy_agent::{
    config::KubeApi,
    gateway::{GatewayConfig, GatewayMode},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tunnel::{Dial, Extra, Identity, TargetKind};

use crate::{
    hub::{Hub, HubEnd, SOON},
    spoke::{DAY, Spoke},
};

/// An API server that says no to everything, and keeps the heads of the requests that it got.
struct ApiServer {
    address: SocketAddr,
    heads: std::sync::Arc<std::sync::Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl ApiServer {
    async fn start(hub: &Hub) -> Self {
        let credentials = hub.authority.issue_server(&[], DAY).unwrap();
        let tls = ServerTls::new(credentials, &[hub.authority.certificate().clone()]).unwrap();
        let acceptor = TlsAcceptor::from(tls.config(&[b"http/1.1"]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, heads) = (listener.local_addr().unwrap(), std::sync::Arc::default());
        let kept = std::sync::Arc::clone(&heads);
        let task: JoinHandle<()> = TaskTracker::new().spawn(async move {
            loop {
                let Ok((tcp, _)) = listener.accept().await else { return };
                let Ok(mut connection) = acceptor.accept(tcp).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(connection.read_u8().await.unwrap());
                }
                let kept: &std::sync::Mutex<Vec<String>> = &kept;
                kept.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
                let answer = b"HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = connection.write_all(answer).await;
                let _ = connection.shutdown().await;
            }
        });
        Self { address, heads, _task: AbortOnDropHandle::new(task) }
    }

    /// The values of a field in the newest request, as a server of HTTP/1.1 reads them: trimmed.
    fn told(&self, name: &str) -> Vec<String> {
        let heads = self.heads.lock().unwrap();
        let lines = heads.last().map_or("", |head| head).lines().filter_map(|line| line.split_once(':'));
        let own = lines.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        own.map(|(_, value)| value.trim_matches([' ', '\t']).to_owned()).collect()
    }
}

async fn speaker(hub: &Hub, server: &ApiServer, mode: GatewayMode) -> (Spoke, TempDir) {
    let account = tempfile::tempdir().unwrap();
    let (ca, token) = (account.path().join("ca.crt"), account.path().join("token"));
    std::fs::write(&ca, hub.authority.certificate_pem()).unwrap();
    std::fs::write(&token, "account").unwrap();
    let spoke = Spoke::start_with(hub, DAY, |config| {
        config.kube_api = KubeApi::Configured(server.address.to_string().parse().unwrap());
        config.gateway = GatewayConfig { mode, ca, token, groups: Vec::new() };
    });
    (spoke.await, account)
}

/// The status of the agent's answer.
async fn ask(end: &HubEnd, identity: &Identity, upgrade: bool) -> u16 {
    let dial = Dial {
        kind: TargetKind::KubeGateway.into(),
        timeout_ms: 5_000,
        user: identity.user.clone(),
        identity: Some(identity.clone()),
        ..Dial::default()
    };
    let (mut stream, _) = end.tunnel.open(&dial, Instant::now() + SOON, tunnel::SIGN_OF_LIFE).await.unwrap();
    let asked = if upgrade { "connection: upgrade\r\nupgrade: websocket\r\n" } else { "connection: close\r\n" };
    stream.write_all(format!("GET /exec HTTP/1.1\r\nhost: a\r\n{asked}\r\n").as_bytes()).await.unwrap();
    let mut head = vec![0; "HTTP/1.1 400".len()];
    timeout(SOON, stream.read_exact(&mut head)).await.expect("no answer").unwrap();
    String::from_utf8(head).unwrap()[9..].parse().unwrap()
}

#[tokio::test]
async fn a_name_that_http_trims_speaks_for_nobody() {
    let hub = Hub::start();
    let server = ApiServer::start(&hub).await;
    let (spoke, _account) = speaker(&hub, &server, GatewayMode::Impersonate).await;
    let end = hub.tunnel().await;
    let named = |user: &str, groups: &[&str]| Identity {
        user: user.into(),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        ..Identity::default()
    };
    for upgrade in [true, false] {
        for bad in [
            named("alice", &[" system:masters"]),
            named("alice", &["dev", "system:masters "]),
            named("alice", &["\tsystem:masters"]),
            named("alice", &[""]),
            named(" system:kube-controller-manager", &[]),
            named("alice ", &[]),
            Identity {
                extra: vec![Extra { key: "scopes".into(), values: vec![" all".into()] }],
                ..named("alice", &[])
            },
        ] {
            let status = ask(&end, &bad, upgrade).await;
            let told = ["user", "group", "extra-scopes"].map(|name| server.told(&format!("impersonate-{name}")));
            assert_eq!((status, &told), (400, &[vec![], vec![], vec![]]), "upgrade: {upgrade}, {bad:?}");
        }
    }
    for upgrade in [true, false] {
        assert_eq!(ask(&end, &named("alice", &["dev ops"]), upgrade).await, 418);
        assert_eq!(
            (server.told("impersonate-user"), server.told("impersonate-group")),
            (vec!["alice".into()], vec!["dev ops".into()])
        );
    }
    spoke.stopped().await;
}

#[tokio::test]
async fn whom_a_user_asks_to_be_is_not_left_out_without_a_word() {
    let hub = Hub::start();
    let server = ApiServer::start(&hub).await;
    let (spoke, _account) = speaker(&hub, &server, GatewayMode::Impersonate).await;
    let end = hub.tunnel().await;
    let groups = vec!["system:masters".to_owned(), "system:authenticated".to_owned()];
    let own = Identity { user: "alice".into(), groups, ..Identity::default() };
    assert_eq!(ask(&end, &own, false).await, 418);
    assert!(server.told("impersonate-group").is_empty());
    assert_eq!(ask(&end, &Identity { asked: true, ..own.clone() }, false).await, 403);
    spoke.stopped().await;
    // Where users have tokens of their own, nobody can be somebody else.
    let (spoke, _account) = speaker(&hub, &server, GatewayMode::Token).await;
    let end = hub.tunnel().await;
    assert_eq!(ask(&end, &own, false).await, 418);
    assert_eq!(ask(&end, &Identity { asked: true, ..own }, false).await, 403);
    spoke.stopped().await;
}
