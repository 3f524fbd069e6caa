//! A hostile agent: with a certificate of its own it costs the hub no more than an agent may.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::join_all;
use tests::raw_agent::{AgentCredentials, RawAgent};
use tests::{Hub, wait_for};
use tunnel::{AgentMessage, CloseReason, ConnectionLost, Export, Exports, HubMessage, Renew};

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_agent_has_a_handful_of_tunnels_and_the_newest_stay() -> Result<()> {
    let hub = Hub::start().await?;
    let (a, b) = (AgentCredentials::joined(&hub, "a", "agent").await?, AgentCredentials::joined(&hub, "b", "b").await?);
    let neighbour = RawAgent::open(&hub, &b).await?;
    let mut opened = Vec::new();
    let mut refused = None;
    for _ in 0..200 {
        match RawAgent::open(&hub, &a).await {
            Ok(agent) => opened.push(agent),
            Err(error) => {
                refused = Some(error.to_string());
                break;
            }
        }
    }
    ensure!(opened.len() >= 20, "{} tunnels were opened", opened.len());
    let refused = refused.unwrap_or_default();
    ensure!(refused.contains("this agent opens too many tunnels"), "{refused}");
    has_tunnels(&hub, 8.0).await?;
    match opened[0].lost().await? {
        ConnectionLost::Closed { reason: CloseReason::Overloaded, .. } => {}
        other => anyhow::bail!("{other}"),
    }
    // The newest serves, and so does the neighbour.
    let newest = opened.pop().expect("many were opened");
    drop(opened);
    has_tunnels(&hub, 1.0).await?;
    newest.connect(&hub.client("a")?, "target:80").await?;
    neighbour.connect(&hub.client("b")?, "target:80").await?;
    Ok(())
}

async fn has_tunnels(hub: &Hub, wanted: f64) -> Result<()> {
    wait_for(BOUND, "the tunnels of cluster a", async || {
        let metrics = tests::metrics::Metrics::fetch(hub.addresses().metrics).await?;
        let count = metrics.sum("proxy_server_tunnels", &[("cluster", "a")]);
        ensure!(count == wanted, "{count} tunnels, not {wanted}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn renewals_and_exports_have_a_rate_and_the_last_list_counts() -> Result<()> {
    let hub = Hub::start().await?;
    let credentials = AgentCredentials::joined(&hub, "a", "agent").await?;
    let mut agent = RawAgent::open(&hub, &credentials).await?;
    let csr = credentials.key.csr_der()?;
    for _ in 0..40 {
        agent.say(AgentMessage::Renew(Renew { csr: csr.clone() }))?;
    }
    let (mut renewed, begun) = (0, Instant::now());
    while let Ok(heard) = tokio::time::timeout(Duration::from_secs(3), agent.hear()).await {
        ensure!(matches!(heard?, HubMessage::Renewed(_)));
        renewed += 1;
    }
    eprintln!("{renewed} certificates for 40 renewals within {:?}", begun.elapsed());
    ensure!((1..=12).contains(&renewed), "{renewed} certificates for 40 renewals");
    let list = |name: String| Exports {
        items: vec![Export {
            name,
            host: "web.ns".into(),
            port: 80,
            scheme: "http".into(),
            metrics_path: "/metrics".into(),
            job: "web".into(),
            ..Export::default()
        }],
    };
    for number in 0..20 {
        agent.say(AgentMessage::Exports(list(format!("list{number}"))))?;
    }
    wait_for(BOUND, "the last list", async || {
        let targets = hub.ask(tests::Fetch::get("/prometheus/targets")).await?.success()?.text();
        ensure!(targets.contains("web.ns"), "{targets}");
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_flood_of_messages_ends_the_tunnel_and_fills_no_log() -> Result<()> {
    let hub = Hub::start().await?;
    let credentials = AgentCredentials::joined(&hub, "a", "agent").await?;
    let agent = RawAgent::open(&hub, &credentials).await?;
    let bad = Export { name: "bad name!".into(), ..Export::default() };
    for _ in 0..2_000 {
        if agent.say(AgentMessage::Exports(Exports { items: vec![bad.clone(); 10] })).is_err() {
            break;
        }
    }
    match agent.lost().await? {
        ConnectionLost::Closed { reason: CloseReason::ProtocolError, text } => {
            ensure!(text.contains("more messages"), "{text}")
        }
        other => anyhow::bail!("{other}"),
    }
    // And refused handshakes cause a line now and then.
    let strange = AgentCredentials::issued_by(hub.state(), "a", "stranger", Duration::from_secs(3600))?;
    join_all((0..100).map(|_| RawAgent::refused(&hub, Some(&strange))))
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let lines = hub.process().stderr();
    let caused = |what: &str| lines.iter().filter(|line| line.contains(what)).count();
    let (exports, refused) = (caused("dropped"), caused("refused a tunnel"));
    eprintln!("{exports} lines about exports, {refused} about 100 refused tunnels");
    ensure!(exports < 100 && (1..=60).contains(&refused), "{exports} and {refused} lines");
    Ok(())
}
