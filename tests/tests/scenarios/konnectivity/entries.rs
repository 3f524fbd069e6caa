//! The ways into konnectivity's frontend: plain, TLS, certificates and Unix sockets; who may, and who is told what.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::hub::ClusterAccess;
use tests::service::echo;
use tests::{Credentials, HUB_NAME, Hub, Program, Service, Spoke, tool};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{BOUND, json_of, script};

struct Site {
    hub: Hub,
    _agent: Spoke,
    echo: Service,
    folder: TempDir,
}

impl Site {
    async fn start() -> Result<Self> {
        let folder = TempDir::new()?;
        let socket = folder.path().join("konnectivity-server.sock");
        let hub = Hub::builder().args(["--proxy-socket", &format!("{}=one", socket.display())]).start().await?;
        let _agent = Spoke::of(&hub, "one").start().await?;
        Ok(Self { hub, _agent, echo: echo::start().await?, folder })
    }

    /// One dial that shows nothing but what is added.
    fn dial(&self, address: &str, target: &str, cluster: &str) -> Result<Program> {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/konnectivity/who.py");
        Ok(tool::grpc_python()?.arg(file).args([address, target, cluster]))
    }

    /// The same at the TCP port, for the echo in cluster `one`.
    fn dial_tcp(&self, cluster: &str) -> Result<Program> {
        let address = self.hub.addresses().proxy.to_string();
        let target = match cluster {
            "" => format!("127.0.0.1.one.clusters.internal:{}", self.echo.port()),
            _ => self.echo.address().to_string(),
        };
        self.dial(&address, &target, cluster)
    }

    /// The path of the Unix socket of cluster `one`.
    fn socket(&self) -> String {
        self.folder.path().join("konnectivity-server.sock").display().to_string()
    }
}

fn over_tls(program: Program, credentials: &Credentials, name: &str) -> Program {
    program.env("CERTIFICATES", credentials.folder()).env("SERVER_NAME", name)
}

async fn said(program: Program) -> Result<Value> {
    json_of(&program.run(BOUND).await?.success()?)
}

fn echoed() -> Value {
    json!({ "echoed": "hello", "end": [[{ "kind": "CLOSE_RSP", "error": "" }], 0] })
}

#[tokio::test]
async fn a_token_or_a_certificate_opens_and_the_cluster_is_named_in_every_way() -> Result<()> {
    let site = Site::start().await?;
    let admin = site.hub.credentials();
    let token = admin.token()?;
    for (way, program) in [
        ("Basic, plain", site.dial_tcp("one")?.env("TOKEN", &token)),
        ("Bearer, plain", site.dial_tcp("")?.env("TOKEN", &token)),
        ("Bearer, TLS", over_tls(site.dial_tcp("")?.env("TOKEN", &token), &admin, HUB_NAME)),
        ("certificate alone", over_tls(site.dial_tcp("")?, &admin, HUB_NAME)),
    ] {
        assert_eq!(said(program).await?, echoed(), "{way}");
    }
    // The server name says which cluster is meant.
    let address = site.hub.addresses().proxy.to_string();
    let named = site.dial(&address, &site.echo.address().to_string(), "")?;
    assert_eq!(said(over_tls(named, &admin, "one.clusters.internal")).await?, echoed());
    Ok(())
}

#[tokio::test]
async fn nobody_and_those_without_the_right_are_told_so_in_the_answer_to_their_dial() -> Result<()> {
    let site = Site::start().await?;
    let _other = Spoke::of(&site.hub, "two").start().await?;
    let other = site.hub.create_user("other", &ClusterAccess::Named(vec!["two".into()])).await?;
    let tls = |program| over_tls(program, &other, HUB_NAME);
    for (way, program, sentence) in [
        ("no token", site.dial_tcp("one")?, "credentials are required"),
        ("wrong token", site.dial_tcp("one")?.env("TOKEN", "cpu-wrong"), "the token is not known here"),
        ("another's token", site.dial_tcp("one")?.env("TOKEN", other.token()?), "reachable: two"),
        ("another's certificate", tls(site.dial_tcp("")?), "reachable: two"),
    ] {
        let answer = said(program).await?;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(sentence) && answer["known"] == true, "{way}: {answer}");
    }
    assert_eq!(site.echo.accepted(), 0);
    Ok(())
}

#[tokio::test]
async fn a_unix_socket_takes_the_authority_that_grpc_go_makes_of_its_path() -> Result<()> {
    let site = Site::start().await?;
    let socket = site.socket();
    let target = site.echo.address().to_string();
    for authority in [socket.replace('/', "%2F"), "localhost".to_owned()] {
        let program = site.dial(&format!("unix:{socket}"), &target, "")?.env("AUTHORITY", &authority);
        assert_eq!(said(program).await?, echoed(), "{authority}");
    }
    // With Huffman's code, and with tables of fields that turn over.
    let many = script(&site.hub, "authority.py")?.args([&socket, &target]).run(BOUND).await?.success()?;
    assert_eq!(json_of(&many)?, json!({ "dialled": 304 }));
    Ok(())
}

#[tokio::test]
async fn data_that_comes_after_its_streams_end_does_not_end_the_others() -> Result<()> {
    let site = Site::start().await?;
    let late = script(&site.hub, "late.py")?.args([&site.socket(), "127.0.0.1:1"]);
    assert_eq!(json_of(&late.run(BOUND).await?.success()?)?, json!({ "refused": 1500 }));
    Ok(())
}

/// A browser or curl that offers both means to CONNECT; gRPC's clients offer HTTP/2 alone, and Go's insist on it.
#[tokio::test]
async fn http2_is_agreed_on_with_those_who_speak_nothing_else() -> Result<()> {
    let hub = Hub::start().await?;
    for (offered, agreed) in [
        (&["h2", "http/1.1"][..], Some("http/1.1")),
        (&["http/1.1"], Some("http/1.1")),
        (&["h2"], Some("h2")),
        (&[], None),
    ] {
        let mut config = (*hub.credentials().tls()?).clone();
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let tcp = TcpStream::connect(hub.addresses().proxy).await?;
        let tls = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(HUB_NAME)?, tcp).await;
        let tls = tls.with_context(|| format!("{offered:?}"))?;
        assert_eq!(tls.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");
    }
    Ok(())
}
