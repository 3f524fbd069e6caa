//! Forwarded connections over real sockets, against a double of the hub's proxy port.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use certs::{Authority, Credentials, HubEntry, PrivateKey, ServerTls};
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Address, Entry, Found, Lookup, Pair, Place, Reporter, Service, Target, bind, entry::OpenError, serve,
    traffic::Traffic,
};
use crate::{api::Api, failure::Failure};

const BOUND: Duration = Duration::from_secs(10);

/// A hub's proxy port that says what the test says.
struct HubDouble {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    credentials: Credentials,
    entry: Arc<Entry>,
    _folder: TempDir,
}

impl HubDouble {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let server = authority.issue_server(&[], Duration::from_secs(3600)).unwrap();
        let tls = ServerTls::new(server, &[authority.certificate().clone()]).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let user = "alice".parse().unwrap();
        let key = PrivateKey::generate();
        let issued = authority.issue_user(&key.csr_der().unwrap(), &user, None, Duration::from_secs(3600)).unwrap();
        let proxy = listener.local_addr().unwrap().to_string();
        let credentials = Credentials {
            hub: HubEntry { user, api: format!("https://{proxy}"), proxy, pin: authority.pin() },
            ca_pem: authority.certificate_pem().into(),
            chain_pem: issued.chain_pem,
            key_pem: key.to_pem().into(),
            token: Some("tok".into()),
        };
        let entry = Arc::new(Entry::new(&credentials, &"c1".parse().unwrap()).unwrap());
        Self { listener, acceptor: TlsAcceptor::from(tls.config(&[])), credentials, entry, _folder: folder }
    }

    /// The next CONNECT, its head read.
    async fn accept(&self) -> (TlsStream<TcpStream>, String) {
        let (tcp, _) = self.listener.accept().await.unwrap();
        let mut stream = self.acceptor.accept(tcp).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        (stream, String::from_utf8(head).unwrap())
    }

    /// The next CONNECT, answered with `answer`.
    async fn answer(&self, answer: &str) -> TlsStream<TcpStream> {
        let (mut stream, _) = self.accept().await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }
}

impl HubDouble {
    /// The next request for `path`, answered with a status and a document.
    async fn api(&self, path: &str, status: u16, document: &Value) {
        let (mut stream, head) = self.accept().await;
        assert_eq!(head.lines().next(), Some(format!("GET {path} HTTP/1.1").as_str()));
        let body = document.to_string();
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
    }

    /// What becomes of a place, as the gateway answers with these.
    async fn look_up(&self, place: &str, answers: &[(&str, u16, Value)]) -> Result<Found, Failure> {
        let place: Place = place.parse().unwrap();
        let place = place.in_namespace(Some("shop")).unwrap();
        let (api, cluster) = (Api::new(&self.credentials).unwrap(), "c1".parse().unwrap());
        let lookup = Lookup { api: &api, cluster: &cluster };
        let answering = async {
            for (path, status, document) in answers {
                self.api(&format!("/clusters/c1{path}"), *status, document).await;
            }
        };
        let (found, ()) = timeout(BOUND, async { tokio::join!(lookup.find(&place, true), answering) }).await.unwrap();
        found.map_err(Failure::from)
    }
}

/// A forwarded local port.
struct Forward {
    address: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
    traffic: Arc<Traffic>,
}

impl Forward {
    fn start(hub: &HubDouble) -> Self {
        let locals = bind(&["127.0.0.1".parse::<Address>().unwrap()], Pair { local: 0, remote: 80 }).unwrap();
        let address = locals[0].address;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (entry, connections, stopped) = (hub.entry.clone(), tasks.clone(), stop.clone());
        let (target, traffic) = ("web".parse().unwrap(), Arc::new(Traffic::default()));
        let service = Service { entry, target, reporter: Reporter::Failures, traffic: traffic.clone() };
        tasks.spawn(async move { serve(locals, service, &connections, &stopped).await });
        Self { address, tasks, stop, traffic }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        timeout(BOUND, self.tasks.wait()).await.expect("every task ends");
    }
}

const OK: &str = "HTTP/1.1 200 Connection Established\r\n\r\n";

async fn read_to_end(stream: &mut (impl AsyncReadExt + Unpin)) -> io::Result<String> {
    let mut text = String::new();
    timeout(BOUND, stream.read_to_string(&mut text)).await.expect("an end or an error")?;
    Ok(text)
}

fn pod(name: &str, address: &str, ready: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
        "status": {"podIP": address, "phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
    })
}

#[tokio::test]
async fn a_pod_is_its_address_which_the_kube_gateway_knows() {
    let hub = HubDouble::start().await;
    let path = "/api/v1/namespaces/shop/pods/web-0";
    let found = hub.look_up("pod/web-0", &[(path, 200, pod("web-0", "10.1.0.7", "False"))]).await.unwrap();
    assert_eq!(found.target, "10.1.0.7".parse().unwrap());
    // As Kubernetes says it; the reason may be missing.
    let missing = json!({"kind": "Status", "status": "Failure", "message": "pods \"web-0\" not found", "code": 404});
    let line = hub.look_up("pod/web-0", &[(path, 404, missing)]).await.unwrap_err().line();
    assert_eq!(
        line,
        "cannot look up pod web-0 in namespace shop of cluster c1: pods \"web-0\" not found; \
         or name its address in the cluster instead"
    );
}

#[tokio::test]
async fn a_deployment_is_one_of_its_ready_pods() {
    let hub = HubDouble::start().await;
    let deployment = json!({"spec": {"selector": {"matchLabels": {"app": "web", "tier": "a"}}}});
    let deployment = ("/apis/apps/v1/namespaces/shop/deployments/web", 200, deployment);
    let list =
        |pods: Value| ("/api/v1/namespaces/shop/pods?labelSelector=app%3Dweb%2Ctier%3Da", 200, json!({"items": pods}));
    let mut leaving = pod("a", "10.1.0.1", "True");
    leaving["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let pods =
        json!([pod("d", "10.1.0.4", "True"), pod("c", "10.1.0.3", "True"), pod("b", "10.1.0.2", "False"), leaving]);
    let found = hub.look_up("deploy/web", &[deployment.clone(), list(pods)]).await.unwrap();
    assert_eq!(found.target, "10.1.0.3".parse().unwrap());
    let none = list(json!([pod("b", "10.1.0.2", "False")]));
    let failure = hub.look_up("deploy/web", &[deployment, none]).await.unwrap_err();
    assert!(failure.is_passing() && failure.line().contains("no pod of deployment web is ready"), "{}", failure.line());
}

#[tokio::test]
async fn a_services_port_is_known_by_its_name() {
    let hub = HubDouble::start().await;
    let service =
        json!({"spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}});
    let place: Place = "svc/web".parse().unwrap();
    let found = hub.look_up("svc/web", &[("/api/v1/namespaces/shop/services/web", 200, service)]).await.unwrap();
    assert_eq!(found.target, "web.shop.svc".parse().unwrap());
    assert_eq!(found.port(&place, &"http".parse().unwrap()).unwrap(), 80);
}

#[tokio::test]
async fn the_hub_is_told_cluster_token_and_target() {
    let hub = HubDouble::start().await;
    let asking = async {
        let target: Target = "grafana.monitoring".parse().unwrap();
        hub.entry.open(&target, 80).await.unwrap()
    };
    let answering = async {
        let (mut stream, head) = hub.accept().await;
        stream.write_all(OK.as_bytes()).await.unwrap();
        (stream, head)
    };
    let (_opened, (stream, head)) = tokio::join!(asking, answering);
    assert_eq!(
        head,
        "CONNECT grafana.monitoring:80 HTTP/1.1\r\nHost: grafana.monitoring:80\r\n\
         Proxy-Authorization: Basic YzE6dG9r\r\n\r\n"
    );
    assert!(stream.get_ref().1.peer_certificates().is_some(), "the user's certificate is shown");
}

#[tokio::test]
async fn a_client_that_ends_first_still_gets_its_answer() {
    let hub = HubDouble::start().await;
    let forward = Forward::start(&hub);
    let mut client = forward.connect().await;
    client.write_all(b"ping").await.unwrap();
    client.shutdown().await.unwrap();
    let mut target = hub.answer(OK).await;
    assert_eq!(read_to_end(&mut target).await.unwrap(), "ping");
    target.write_all(b"pong").await.unwrap();
    target.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await.unwrap(), "pong");
    let traffic = forward.traffic.clone();
    forward.end().await;
    assert_eq!(traffic.line(), "0 open, 1 in all, 4B sent, 4B received");
}

#[tokio::test]
async fn a_target_that_ends_first_still_gets_the_rest() {
    let hub = HubDouble::start().await;
    let forward = Forward::start(&hub);
    let mut client = forward.connect().await;
    // The target speaks first, in the same bytes as the hub's answer.
    let mut target = hub.answer(&format!("{OK}220 ready")).await;
    target.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await.unwrap(), "220 ready");
    client.write_all(b"late").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut target).await.unwrap(), "late");
    forward.end().await;
}

#[tokio::test]
async fn a_cut_without_close_notify_is_a_reset_and_no_end() {
    let hub = HubDouble::start().await;
    let forward = Forward::start(&hub);
    let mut client = forward.connect().await;
    let mut target = hub.answer(OK).await;
    target.write_all(b"half").await.unwrap();
    target.flush().await.unwrap();
    let mut half = [0; 4];
    timeout(BOUND, client.read_exact(&mut half)).await.unwrap().unwrap();
    // The TCP connection ends cleanly; the TLS connection does not.
    drop(target);
    assert_eq!(read_to_end(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    forward.end().await;
}

#[tokio::test]
async fn a_client_that_resets_is_no_clean_end_for_the_hub() {
    let hub = HubDouble::start().await;
    let forward = Forward::start(&hub);
    let client = forward.connect().await;
    let mut target = hub.answer(OK).await;
    client.set_zero_linger().unwrap();
    drop(client);
    read_to_end(&mut target).await.unwrap_err();
    forward.end().await;
}

#[tokio::test]
async fn an_agent_that_comes_back_is_waited_for() {
    let hub = HubDouble::start().await;
    let forward = Forward::start(&hub);
    let mut client = forward.connect().await;
    drop(hub.answer("HTTP/1.1 503 Service Unavailable\r\n\r\naway\n").await);
    let mut target = hub.answer(OK).await;
    target.write_all(b"back").await.unwrap();
    target.shutdown().await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await.unwrap(), "back");
    forward.end().await;
}

#[tokio::test]
async fn a_refusal_is_the_hubs_sentence_and_resets_the_client() {
    const FORBIDDEN: &str = "HTTP/1.1 403 Forbidden\r\nContent-Length: 12\r\n\r\nask an admin";
    let hub = HubDouble::start().await;
    let (opened, _target) = tokio::join!(async { hub.entry.open(&Target::KubeApi, 443).await.unwrap_err() }, async {
        let mut target = hub.answer(FORBIDDEN).await;
        target.shutdown().await.unwrap();
        target
    });
    let OpenError::Refused { status, sentence } = opened else { panic!("{opened:?}") };
    assert_eq!((status, sentence.as_str()), (StatusCode::FORBIDDEN, "ask an admin"));

    let forward = Forward::start(&hub);
    let mut client = forward.connect().await;
    hub.answer(FORBIDDEN).await.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    forward.end().await;
}

#[tokio::test]
async fn what_speaks_no_http_is_told_as_such() {
    let hub = HubDouble::start().await;
    for answer in ["SSH-2.0-x\r\n\r\n".to_owned(), "HTTP/1.1 abc\r\n\r\n".to_owned(), "x".repeat(100_000)] {
        let (opened, ()) = tokio::join!(async { hub.entry.open(&Target::KubeApi, 443).await.unwrap_err() }, async {
            let (mut stream, _) = hub.accept().await;
            // The client may have heard enough before the end.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        });
        assert!(matches!(opened, OpenError::NoHttp), "{opened:?}");
    }
}

#[tokio::test]
async fn the_end_of_the_command_resets_what_is_open() {
    let hub = HubDouble::start().await;
    let forward = Forward::start(&hub);
    let mut client = forward.connect().await;
    let mut target = hub.answer(OK).await;
    forward.end().await;
    assert_eq!(read_to_end(&mut client).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    read_to_end(&mut target).await.unwrap_err();
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_opening() {
    let hub = HubDouble::start().await;
    let forward = Forward::start(&hub);
    let client = forward.connect().await;
    let (mut unanswered, _) = hub.accept().await;
    client.set_zero_linger().unwrap();
    drop(client);
    assert!(!matches!(read_to_end(&mut unanswered).await, Ok(text) if !text.is_empty()));
    forward.end().await;
}

#[tokio::test]
async fn a_client_that_only_listens_is_served() {
    let hub = HubDouble::start().await;
    let forward = Forward::start(&hub);
    let mut client = forward.connect().await;
    client.shutdown().await.unwrap();
    let mut target = hub.answer(OK).await;
    assert_eq!(read_to_end(&mut target).await.unwrap(), "");
    target.write_all(b"220 ready").await.unwrap();
    target.shutdown().await.unwrap();
    assert_eq!(read_to_end(&mut client).await.unwrap(), "220 ready");
    forward.end().await;
}
