//! What the hub grants and for how long: reach, caps, clear text, its own stop and start, and what it starts with.

mod limits;
mod start;
mod stop;

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tests::client::{Connection, DialError, Entry};
use tests::hub::ClusterAccess;
use tests::raw_agent::{AgentCredentials, RawAgent};
use tests::{Client, Fetch, HUB_NAME, Hub};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use tunnel::Stream;

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_cluster_that_is_not_there_is_told_with_those_that_one_may_reach() -> Result<()> {
    let hub = Hub::start().await?;
    let _agents = [agent_of(&hub, "a").await?, agent_of(&hub, "b").await?];
    let alice = hub.create_user("alice", &ClusterAccess::Named(vec!["a".to_owned(), "ghost".to_owned()])).await?;
    let plain = Client::new(Entry::Plain(hub.addresses().proxy));
    let ghost = refused(&plain.clone().cluster("ghost", &alice.token()?), 404).await?;
    assert!(ghost.trim_end().ends_with("reachable: a"), "{ghost}");
    let nobody = hub.create_user("nobody", &ClusterAccess::Named(Vec::new())).await?;
    // One that is there, and one that is not, look the same to who may reach neither.
    let asked = async |cluster: &str| {
        let told = refused(&plain.clone().cluster(cluster, &nobody.token()?), 403).await?;
        Ok::<_, anyhow::Error>(told.replace(&format!("managedclusters/{cluster}"), "CLUSTER"))
    };
    assert_eq!(asked("b").await?, asked("unknown").await?);
    let page = async |cluster: &str| {
        let path = format!("/clusters/{cluster}/services/mon/web:80/");
        let answer = Fetch::get(path).tls(hub.addresses().api, HUB_NAME, nobody.mutual_tls()?).await?;
        Ok::<_, anyhow::Error>((answer.status, answer.text().replace(&format!("managedclusters/{cluster}"), "CLUSTER")))
    };
    assert_eq!(page("b").await?, page("unknown").await?);
    Ok(())
}

#[tokio::test]
async fn a_user_reaches_the_clusters_that_were_named_and_no_other() -> Result<()> {
    let hub = Hub::start().await?;
    let [a, b] = [agent_of(&hub, "a").await?, agent_of(&hub, "b").await?];
    let alice = hub.create_user("alice", &ClusterAccess::Named(vec!["a".to_owned()])).await?;
    let (token, proxy) = (alice.token()?, hub.addresses().proxy);
    let plain = Client::new(Entry::Plain(proxy));
    let (mut client, mut target) = a.connect(&plain.clone().cluster("a", &token), "target:80").await?;
    carries(&mut client, &mut target).await?;
    // Whether a cluster exists is not told to those who may not reach it.
    for cluster in ["b", "nobody"] {
        let named = plain.clone().cluster(cluster, &token);
        let body = refused(&named, 403).await?;
        assert!(body.contains("reachable: a"), "{body}");
        let socks5 = named.socks5().dial("target:80").await;
        assert!(matches!(socks5, Err(DialError::Reply { reply: 2 })), "{socks5:?}");
    }
    let by_certificate = Client::new(Entry::Tls(proxy, alice.mutual_tls()?));
    let denied = by_certificate.dial("target.b.clusters.internal:80").await;
    assert!(matches!(denied, Err(DialError::Status { status: 403, .. })), "{denied:?}");
    // A token is what was said last: it counts, whatever the certificate.
    let (mut client, mut target) = b.connect(&by_certificate.cluster("b", &hub.credentials().token()?), "t:80").await?;
    carries(&mut client, &mut target).await?;
    for request in [Fetch::get("/v1/users"), Fetch::get("/v1/status"), Fetch::get("/nowhere")] {
        let answer = request.bearer(&token).tls(hub.addresses().api, HUB_NAME, alice.tls()?).await?;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert!(answer.text().contains(r#"User \"alice\" cannot"#), "{}", answer.text());
    }
    // Of the clusters she sees her own.
    let seen =
        Fetch::get("/v1/tunnels").bearer(&token).tls(hub.addresses().api, HUB_NAME, alice.tls()?).await?.json()?;
    let names: Vec<_> = seen["items"].as_object().into_iter().flatten().map(|(name, _)| name).collect();
    assert_eq!(names, ["a"]);
    Ok(())
}

#[tokio::test]
async fn a_hub_that_allows_no_clear_text_takes_tls_and_the_unix_socket_only() -> Result<()> {
    let hub = Hub::builder().args(["--plaintext", "never"]).start().await?;
    let agent = agent_of(&hub, "a").await?;
    let (token, proxy) = (hub.credentials().token()?, hub.addresses().proxy);
    let plain = hub.client("a")?;
    let body = refused(&plain, 403).await?;
    assert!(body.contains("TLS") && body.contains("--plaintext"), "{body}");
    let socks5 = plain.socks5().dial("target:80").await;
    assert!(matches!(socks5, Err(DialError::Reply { reply: 0xff })), "{socks5:?}");
    let login = format!("Basic {}", STANDARD.encode(format!("a:{token}")));
    let absolute = Fetch::get("http://target/").header("proxy-authorization", login).plain(proxy).await?;
    assert_eq!(absolute.status, 403, "{}", absolute.text());
    let tls = Client::new(Entry::Tls(proxy, hub.credentials().tls()?)).cluster("a", &token);
    let unix = Client::new(Entry::Unix(hub.socket()));
    for (client, target) in [(tls.clone(), "t:80"), (tls.socks5(), "t:80"), (unix, "t.a.clusters.internal:80")] {
        let (mut client, mut target) = agent.connect(&client, target).await?;
        carries(&mut client, &mut target).await?;
    }
    Ok(())
}

/// The only agent of a cluster that is accepted.
async fn agent_of(hub: &Hub, cluster: &str) -> Result<RawAgent> {
    RawAgent::open(hub, &AgentCredentials::joined(hub, cluster, "agent").await?).await
}

/// Demands a refusal of a dial with `expected`, and gives its sentence.
async fn refused(client: &Client, expected: u16) -> Result<String> {
    match client.dial("target:80").await {
        Err(DialError::Status { status, body, .. }) if status == expected => Ok(body),
        other => bail!("not {expected}: {other:?}"),
    }
}

/// Demands that bytes pass both ways.
async fn carries(client: &mut Connection, target: &mut Stream) -> Result<()> {
    let passing = async {
        let mut seen = [0; 4];
        client.write_all(b"ping").await?;
        client.flush().await?;
        target.read_exact(&mut seen).await?;
        ensure!(&seen == b"ping");
        target.write_all(b"pong").await?;
        client.read_exact(&mut seen).await?;
        ensure!(&seen == b"pong");
        Ok(())
    };
    timeout(BOUND, passing).await.context("nothing passes")?
}
