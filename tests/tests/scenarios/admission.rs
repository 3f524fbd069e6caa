//! Who is let in and sent away: agents as they were shown, one by one, and what a lost token cannot fill.

use std::time::Duration;

use anyhow::{Result, ensure};
use certs::PrivateKey;
use tests::hub::JoinTerms;
use tests::metrics::Metrics;
use tests::raw_agent::{AgentCredentials, RawAgent, RawJoin, join_request};
use tests::{Hub, Kubectl, tool, wait_for};
use tunnel::{CloseReason, ConnectionLost, JoinReply, Reason};

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(30);
/// The command's exit code for a command line that is not good enough (sysexits.h: EX_USAGE).
const USAGE: i32 = 64;

/// An agent that waits.
async fn waiting(hub: &Hub, token: &str, cluster: &str, agent: &str) -> Result<(RawJoin, PrivateKey)> {
    let key = PrivateKey::generate();
    let mut join = RawJoin::ask(hub, &join_request(token, cluster, agent, &key)?).await?;
    join.pending().await?;
    Ok((join, key))
}

/// A token of an administrator who wants to be asked.
async fn asking_token(hub: &Hub) -> Result<String> {
    hub.create_token(&JoinTerms { cluster: None, auto_accept: false, reusable: true, ttl_seconds: 3600 }).await
}

/// The agents of a cluster in this phase, by name.
async fn in_phase(hub: &Hub, cluster: &str, phase: &str) -> Result<Vec<String>> {
    let cluster = hub.cluster(cluster).await?;
    let agents = cluster["status"]["agents"].as_array().cloned().unwrap_or_default();
    let named = agents.iter().filter(|agent| agent["phase"] == phase).map(|agent| agent["name"].to_string());
    Ok(named.map(|name| name.trim_matches('"').to_owned()).collect())
}

fn closed_as(loss: &ConnectionLost, expected: CloseReason) -> Result<&str> {
    match loss {
        ConnectionLost::Closed { reason, text } if *reason == expected => Ok(text),
        other => anyhow::bail!("{other:?}"),
    }
}

#[tokio::test]
async fn an_accept_lets_in_what_was_shown_and_nobody_who_asked_since() -> Result<()> {
    let hub = Hub::start().await?;
    let token = asking_token(&hub).await?;
    let (mut seen, _) = waiting(&hub, &token, "a", "seen").await?;
    let shown = hub.waiting("a").await?;
    let (_since, _) = waiting(&hub, &token, "a", "since").await?;
    let agents = hub.cluster("a").await?["status"]["agents"].clone();
    ensure!(agents[0]["address"].as_str().is_some_and(|address| address.starts_with("127.")), "{agents}");
    // Who names another key lets in nobody.
    let other = serde_json::json!({"name": "seen", "key": PrivateKey::generate().fingerprint()});
    let refused = hub.accept_agents("a", &[other]).await.unwrap_err();
    ensure!(format!("{refused:#}").contains("422"), "{refused:#}");
    ensure!(hub.cluster("a").await?["spec"]["hubAcceptsClient"] == false);

    hub.accept_agents("a", &shown).await?;
    seen.issued().await?;
    ensure!(in_phase(&hub, "a", "Pending").await? == ["since"] && in_phase(&hub, "a", "Accepted").await? == ["seen"]);
    Ok(())
}

#[tokio::test]
async fn the_command_shows_who_waits_and_has_two_told_apart() -> Result<()> {
    let hub = Hub::start().await?;
    let token = asking_token(&hub).await?;
    let (mut one, key) = waiting(&hub, &token, "prod", "one").await?;
    let (mut two, _) = waiting(&hub, &token, "prod", "two").await?;
    let refused = hub.command(["accept", "prod"]).await?;
    for part in ["2 agents wait", "prod/one", "prod/two", &key.fingerprint().to_string(), "from 127.", "--all"] {
        ensure!(refused.stderr.contains(part), "no {part} in {}", refused.stderr);
    }
    refused.exited_with(USAGE)?;
    ensure!(in_phase(&hub, "prod", "Pending").await? == ["one", "two"]);

    let accepted = hub.command(["accept", "prod/one"]).await?;
    ensure!(accepted.stderr.contains(&key.fingerprint().to_string()), "{}", accepted.stderr);
    ensure!(accepted.success()?.trim_end() == "managedcluster/prod accepted with one");
    one.issued().await?;
    ensure!(in_phase(&hub, "prod", "Pending").await? == ["two"]);
    let listed = hub.command(["clusters"]).await?;
    ensure!(listed.stderr.contains("prod/two asked"), "{}", listed.stderr);
    hub.command(["accept", "prod", "--all"]).await?.success()?;
    two.issued().await?;
    let typo = hub.command(["accept", "prd"]).await?;
    ensure!(typo.stderr.contains("did you mean prod?"), "{}", typo.stderr);
    let agents = hub.command(["clusters", "-o", "agents"]).await?.success()?;
    ensure!(agents.lines().count() == 3 && agents.contains(&key.fingerprint().to_string()), "{agents}");
    Ok(())
}

#[tokio::test]
async fn kubectls_hub_accepts_client_alone_lets_in_nobody() -> Result<()> {
    let hub = Hub::start().await?;
    let kubectl = Kubectl::administrator(&hub, tool::kubectl()?)?;
    let token = asking_token(&hub).await?;
    let (mut join, key) = waiting(&hub, &token, "a", "node").await?;
    let (_other, _) = waiting(&hub, &token, "a", "other").await?;
    kubectl.ok("patch mcl a --type=merge -p '{\"spec\":{\"hubAcceptsClient\":true}}'").await?;
    ensure!(in_phase(&hub, "a", "Pending").await? == ["node", "other"]);
    let request = kubectl.get("csr a.node").await?;
    ensure!(
        request["metadata"]["annotations"]["cluster-proxy.internal/key"] == key.fingerprint().to_string(),
        "{request}"
    );
    kubectl.ok("certificate approve a.node").await?;
    join.issued().await?;
    ensure!(in_phase(&hub, "a", "Pending").await? == ["other"]);
    Ok(())
}

#[tokio::test]
async fn who_takes_a_denial_back_lets_in_nobody_who_only_waits() -> Result<()> {
    let hub = Hub::start().await?;
    let token = asking_token(&hub).await?;
    let (mut good, _) = waiting(&hub, &token, "a", "good").await?;
    let (_bad, _) = waiting(&hub, &token, "a", "bad").await?;
    hub.command(["accept", "a/good"]).await?.success()?;
    good.issued().await?;
    hub.command(["deny", "a"]).await?.success()?;
    let again = hub.command(["accept", "a"]).await?;
    ensure!(again.stderr.contains("still wait: bad (cluster-proxy accept a/bad)"), "{}", again.stderr);
    again.success()?;
    ensure!(in_phase(&hub, "a", "Accepted").await? == ["good"] && in_phase(&hub, "a", "Pending").await? == ["bad"]);
    ensure!(hub.cluster("a").await?["spec"]["hubAcceptsClient"] == true);
    // A cluster that only asks is denied by a condition, and an unknown one by nobody.
    let (_new, _) = waiting(&hub, &token, "b", "node").await?;
    hub.command(["deny", "b"]).await?.success()?;
    let denied = hub.cluster("b").await?["status"]["conditions"].clone();
    ensure!(denied[0]["reason"] == "HubClusterAdminDenied" && denied[0]["status"] == "False", "{denied}");
    hub.command(["deny", "c"]).await?.exited_with(1)?;
    Ok(())
}

#[tokio::test]
async fn a_revoked_agent_is_cut_its_key_stays_out_and_its_name_is_free() -> Result<()> {
    let hub = Hub::start().await?;
    let [first, beside] = [
        AgentCredentials::joined(&hub, "edge", "node").await?,
        AgentCredentials::joined(&hub, "edge", "beside").await?,
    ];
    let [agent, bystander] = [RawAgent::open(&hub, &first).await?, RawAgent::open(&hub, &beside).await?];
    let unsure = hub.command(["revoke", "edge/node"]).await?;
    ensure!(unsure.stderr.contains("--yes"), "{}", unsure.stderr);
    unsure.exited_with(USAGE)?;
    let typo = hub.command(["revoke", "edge/nod", "--yes"]).await?;
    ensure!(typo.stderr.contains("did you mean edge/node?"), "{}", typo.stderr);
    typo.exited_with(1)?;
    hub.command(["revoke", "edge", "--yes"]).await?.exited_with(USAGE)?;

    hub.command(["revoke", "edge/node", "--yes"]).await?.success()?;
    ensure!(closed_as(&agent.lost().await?, CloseReason::Denied)?.contains("denied by an admin"));
    let loss = RawAgent::refused(&hub, Some(&first)).await?;
    ensure!(closed_as(&loss, CloseReason::Denied)?.contains("join-command edge"), "{loss}");
    // A key that is out stays out, whatever token it brings.
    let token = hub.create_token(&JoinTerms::auto_accepted("edge")).await?;
    let (reason, message) = RawJoin::refused(&hub, &join_request(&token, "edge", "node", &first.key)?).await?;
    ensure!(reason == Reason::Denied, "{message}");
    let second = AgentCredentials::joined(&hub, "edge", "node").await?;
    RawAgent::open(&hub, &second).await?;
    closed_as(&RawAgent::refused(&hub, Some(&first)).await?, CloseReason::UnknownAgent)?;

    // One that is long gone is forgotten, by the command and by kubectl.
    hub.command(["delete", "edge/node"]).await?.success()?;
    ensure!(in_phase(&hub, "edge", "Accepted").await? == ["beside"]);
    Kubectl::administrator(&hub, tool::kubectl()?)?.ok("delete csr edge.beside").await?;
    closed_as(&bystander.lost().await?, CloseReason::UnknownAgent)?;
    ensure!(hub.cluster("edge").await?["status"]["agents"].as_array().is_some_and(Vec::is_empty));
    Ok(())
}

#[tokio::test]
async fn an_agent_that_has_lost_its_state_comes_back_and_its_old_key_is_cut() -> Result<()> {
    let hub = Hub::start().await?;
    let old = AgentCredentials::joined(&hub, "edge", "node").await?;
    let tunnel = RawAgent::open(&hub, &old).await?;
    let anew = PrivateKey::generate();
    // A token for any cluster, and one that vouches for nobody, take nobody's place.
    let any = hub.create_token(&JoinTerms { cluster: None, ..JoinTerms::auto_accepted("") }).await?;
    let asking = hub.create_token(&JoinTerms { auto_accept: false, ..JoinTerms::auto_accepted("edge") }).await?;
    for token in [any, asking] {
        let (reason, message) = RawJoin::refused(&hub, &join_request(&token, "edge", "node", &anew)?).await?;
        ensure!(reason == Reason::AgentNameTaken && message.contains("join-command edge"), "{message}");
    }
    let own = hub.create_token(&JoinTerms::auto_accepted("edge")).await?;
    let issued = RawJoin::ask(&hub, &join_request(&own, "edge", "node", &anew)?).await?.issued().await?;
    closed_as(&tunnel.lost().await?, CloseReason::UnknownAgent)?;
    closed_as(&RawAgent::refused(&hub, Some(&old)).await?, CloseReason::UnknownAgent)?;
    RawAgent::open(&hub, &AgentCredentials::new(&issued.chain_pem, anew)?).await?;
    Ok(())
}

#[tokio::test]
async fn a_key_waits_once() -> Result<()> {
    let hub = Hub::start().await?;
    let (token, key) = (asking_token(&hub).await?, PrivateKey::generate());
    let request = join_request(&token, "a", "node", &key)?;
    let mut first = RawJoin::ask(&hub, &request).await?;
    first.pending().await?;
    let mut second = RawJoin::ask(&hub, &request).await?;
    second.pending().await?;
    let (_, message) = first.refusal().await?;
    ensure!(message.contains("same key"), "{message}");
    hub.accept("a").await?;
    second.issued().await?;
    Ok(())
}

#[tokio::test]
async fn a_lost_token_fills_neither_a_cluster_nor_the_hub() -> Result<()> {
    let hub = Hub::start().await?;
    AgentCredentials::joined(&hub, "prod", "own").await?;
    let token = asking_token(&hub).await?;
    let (mut waiting, mut refused) = (Vec::new(), 0);
    for n in 0..100 {
        // Half of them for the cluster that is there.
        let cluster = if n % 2 == 0 { "prod".to_owned() } else { format!("c{n}") };
        let request = join_request(&token, &cluster, &format!("agent-{n}"), &PrivateKey::generate())?;
        let mut join = RawJoin::ask(&hub, &request).await?;
        match join.next().await? {
            JoinReply::Pending(_) => waiting.push(join),
            JoinReply::Refused(refusal) => {
                ensure!(refusal.reason() == Reason::Overloaded && refusal.message.contains("too many agents wait"));
                refused += 1;
            }
            issued @ JoinReply::Issued(_) => anyhow::bail!("{issued:?}"),
        }
    }
    ensure!((waiting.len(), refused) == (64, 36), "{} wait, {refused} refused", waiting.len());
    wait_for(BOUND, "the refusals to be counted", async || {
        let metrics = Metrics::fetch(hub.addresses().metrics).await?;
        let counted = metrics.sum("proxy_server_joins_total", &[("result", "waiting_agents_full")]);
        ensure!(counted == 36.0, "{counted}");
        Ok(())
    })
    .await?;
    // The cluster's own agents find room.
    let own = AgentCredentials::joined(&hub, "prod", "second").await?;
    RawAgent::open(&hub, &own).await?;
    Ok(())
}
