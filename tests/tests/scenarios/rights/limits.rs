//! Caps: one connection too many is told so, costs nobody else anything, and finds room again.

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tests::client::{Connection, DialError, Entry};
use tests::hub::ClusterAccess;
use tests::raw_agent::RawAgent;
use tests::{Client, Fetch, Hub, allow_open_files, wait_for};
use tokio::time::timeout;
use tunnel::{Reason, Refusal, Stream};

use super::{BOUND, agent_of, carries, refused};

#[tokio::test]
async fn a_cluster_that_is_full_is_overloaded_until_one_leaves() -> Result<()> {
    let hub = Hub::builder().args(["--max-connections-per-cluster", "2"]).start().await?;
    let [a, b] = [agent_of(&hub, "a").await?, agent_of(&hub, "b").await?];
    let client = hub.client("a")?;
    let first = a.connect(&client, "target:80").await?;
    let mut second = a.connect(&client, "target:80").await?;
    match client.dial("target:80").await {
        Err(DialError::Status { status: 503, head, body }) => {
            assert!(head.contains("Retry-After: "), "{head}");
            assert!(body.contains("the cluster has 2 connections") && body.contains("--max-connections-per-cluster"));
        }
        other => bail!("{other:?}"),
    }
    let socks5 = client.clone().socks5().dial("target:80").await;
    assert!(matches!(socks5, Err(DialError::Reply { reply: 1 })), "{socks5:?}");
    let login = format!("Basic {}", STANDARD.encode(format!("a:{}", hub.credentials().token()?)));
    let absolute = Fetch::get("http://target/").header("proxy-authorization", login);
    let absolute = absolute.plain(hub.addresses().proxy).await?;
    assert_eq!(absolute.status, 503, "{}", absolute.text());
    assert!(absolute.headers.contains_key("retry-after"));
    // Whoever comes by the Unix socket has the same cluster.
    let local = Client::new(Entry::Unix(hub.socket())).dial("target.a.clusters.internal:80").await;
    assert!(matches!(local, Err(DialError::Status { status: 503, .. })), "{local:?}");

    let (mut elsewhere, mut target) = b.connect(&hub.client("b")?, "target:80").await?;
    carries(&mut elsewhere, &mut target).await?;
    carries(&mut second.0, &mut second.1).await?;
    drop(first);
    let (mut third, mut target) = wait_for(BOUND, "room", async || room(&a, &client).await).await?;
    carries(&mut third, &mut target).await
}

#[tokio::test]
async fn a_user_who_has_enough_is_refused_in_every_cluster_and_others_are_not() -> Result<()> {
    let hub = Hub::builder().args(["--max-connections-per-user", "2"]).start().await?;
    let [a, b] = [agent_of(&hub, "a").await?, agent_of(&hub, "b").await?];
    let token = hub.create_user("alice", &ClusterAccess::All).await?.token()?;
    let of = |cluster: &str| Client::new(Entry::Plain(hub.addresses().proxy)).cluster(cluster, &token);
    let first = a.connect(&of("a"), "target:80").await?;
    let _second = b.connect(&of("b"), "target:80").await?;
    for cluster in ["a", "b"] {
        let body = refused(&of(cluster), 503).await?;
        assert!(body.contains("the user has 2 connections") && body.contains("--max-connections-per-user"), "{body}");
    }
    let (mut admin, mut target) = a.connect(&hub.client("a")?, "target:80").await?;
    carries(&mut admin, &mut target).await?;
    drop(first);
    let (mut third, mut target) = wait_for(BOUND, "room", async || room(&b, &of("b")).await).await?;
    carries(&mut third, &mut target).await
}

#[tokio::test]
async fn one_user_cannot_take_a_cluster_from_the_others() -> Result<()> {
    allow_open_files(4_000)?;
    let hub = Hub::start().await?;
    let agent = agent_of(&hub, "a").await?;
    let token = hub.create_user("greedy", &ClusterAccess::All).await?.token()?;
    let greedy = Client::new(Entry::Plain(hub.addresses().proxy)).cluster("a", &token);
    let mut held = Vec::new();
    for _ in 0..1_000 {
        held.push(agent.connect(&greedy, "target:80").await?);
    }
    let overload = refused(&greedy, 503).await?;
    let expected = "the user has 1000 connections to this cluster";
    ensure!(overload.contains(expected) && overload.contains("--max-connections-per-user-per-cluster"), "{overload}");
    let (mut other, mut target) = agent.connect(&hub.client("a")?, "target:80").await?;
    carries(&mut other, &mut target).await
}

#[tokio::test]
async fn dials_without_an_answer_have_caps_of_their_own() -> Result<()> {
    for (flag, whose) in [("--max-pending-per-cluster", "the cluster"), ("--max-pending-per-user", "the user")] {
        let hub = Hub::builder().args([flag, "1"]).start().await?;
        let agent = agent_of(&hub, "a").await?;
        let client = hub.client("a")?;
        let (waited, checked) = tokio::join!(client.dial("slow:80"), async {
            let dial = agent.dial().await?;
            let body = refused(&client, 503).await?;
            ensure!(body.contains(&format!("{whose} has 1 dials without an answer")) && body.contains(flag), "{body}");
            Ok((dial.accept("192.0.2.1:80").await?, ()))
        });
        let (mut connection, (mut target, ())) = (waited?, checked?);
        carries(&mut connection, &mut target).await?;
        // The answer made room, though the connection is still open.
        let (mut second, mut target) = agent.connect(&client, "target:80").await?;
        carries(&mut second, &mut target).await?;
        // A client that leaves takes its dial along.
        let dial = {
            let leaving = client.dial("slow:80");
            tokio::select! {
                biased;
                dial = agent.dial() => dial?,
                _ = leaving => bail!("answered"),
            }
        };
        timeout(BOUND, dial.cancelled()).await.context("the dial goes on without its client")?;
        let (mut third, mut target) = wait_for(BOUND, "room", async || room(&agent, &client).await).await?;
        carries(&mut third, &mut target).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_dial_that_fails_gives_its_place_back() -> Result<()> {
    let caps = ["--max-connections-per-cluster", "1", "--max-pending-per-cluster", "1"];
    let more = ["--max-connections-per-user", "1", "--max-pending-per-user", "1", "--dial-timeout", "1s"];
    let hub = Hub::builder().args(caps.into_iter().chain(more)).start().await?;
    let agent = agent_of(&hub, "a").await?;
    let client = hub.client("a")?;
    for _ in 0..10 {
        let (body, answered) = tokio::join!(refused(&client, 502), async {
            let refusal = Refusal::new(Reason::ConnectionRefused, "nobody listens there");
            anyhow::Ok(agent.dial().await?.refuse(refusal).await?)
        });
        answered?;
        assert!(body?.contains("nobody listens there"));
    }
    // Nor does one that the agent never answers, or whose cluster has nobody.
    let (late, _unanswered) = tokio::join!(refused(&client, 504), agent.dial());
    late?;
    for _ in 0..3 {
        refused(&hub.client("nobody")?, 404).await?;
    }
    let (mut connection, mut target) = agent.connect(&client, "target:80").await?;
    carries(&mut connection, &mut target).await
}

/// A connection, if there is room for one.
async fn room(agent: &RawAgent, client: &Client) -> Result<(Connection, Stream)> {
    let dialling = client.dial("target:80");
    tokio::pin!(dialling);
    tokio::select! {
        // A refusal comes before any dial.
        refusal = &mut dialling => bail!("{:?}", refusal.err()),
        taken = agent.take() => Ok((dialling.await?, taken?)),
    }
}
