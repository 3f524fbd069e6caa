//! A full disk and a damaged file: a clear error, and nothing that was acknowledged is lost.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use hyper::{Method, StatusCode};
use serde_json::json;
use tests::{Answer, Fetch, Hub, Program, wait_until};

use super::BOUND;

/// The hub's store in its state folder.
const STORE: &str = "registry.redb";
/// A limit on the size of files stands in for the disk's size, which needs no rights to set: writes beyond it fail. The signal
/// that the kernel sends with that error, and a full disk does not, is ignored.
const NO_SIGNAL: &str = "trap '' XFSZ";
/// Tokens until the store must have grown: each takes some hundred bytes.
const MOST_TOKENS: usize = 10_000;
/// Tokens asked for at a time.
const GROUP: usize = 50;

async fn ask_for_token(hub: &Hub) -> Result<Answer> {
    let new = json!({ "autoAccept": false, "reusable": false, "ttlSeconds": 3600 });
    hub.ask(Fetch::new(Method::POST, "/v1/tokens").json(&new)).await
}

fn id(created: &Answer) -> Result<String> {
    Ok(created.json()?["id"].as_str().context("a token without an id")?.to_owned())
}

/// The ids of all tokens that the hub knows.
async fn token_ids(hub: &Hub) -> Result<BTreeSet<String>> {
    let list = hub.ask(Fetch::get("/v1/tokens")).await?.success()?.json()?;
    let items = list["items"].as_array().with_context(|| format!("no items in {list}"))?;
    items.iter().map(|item| Ok(item["id"].as_str().context("a token without an id")?.to_owned())).collect()
}

/// Limits the size to which the hub's files may grow, in bytes, or lifts the limit.
async fn limit_files(hub: &Hub, bytes: Option<u64>) -> Result<()> {
    let limit = bytes.map_or_else(|| String::from("unlimited"), |bytes| bytes.to_string());
    let prlimit = Program::at("/usr/bin/prlimit").arg(format!("--pid={}", hub.process().pid()));
    // The soft limit only: the hard one cannot be raised again without rights.
    prlimit.arg(format!("--fsize={limit}:")).run(BOUND).await?.success()?;
    Ok(())
}

#[tokio::test]
async fn a_full_disk_is_a_clear_error_and_loses_nothing() -> Result<()> {
    let mut hub = Hub::builder().after_shell(NO_SIGNAL).start().await?;
    let mut acknowledged = BTreeSet::from([id(&ask_for_token(&hub).await?.success()?)?]);
    limit_files(&hub, Some(fs::metadata(hub.state().join(STORE))?.len())).await?;
    let refusal = loop {
        let mut refusal = None;
        // At once, so that the store commits them in groups.
        for answer in join_all((0..GROUP).map(|_| ask_for_token(&hub))).await {
            let answer = answer?;
            match answer.status.is_success() {
                true => drop(acknowledged.insert(id(&answer)?)),
                false => refusal = Some(answer),
            }
        }
        ensure!(acknowledged.len() < MOST_TOKENS, "the disk does not get full");
        if let Some(refusal) = refusal {
            break refusal;
        }
    };
    eprintln!("the disk was full after {} tokens: {}", acknowledged.len(), refusal.text());
    ensure!(refusal.status == StatusCode::SERVICE_UNAVAILABLE, "{refusal:?}");
    let message = refusal.json()?["message"].as_str().unwrap_or_default().to_owned();
    ensure!(message.contains("disk's free space"), "the operator is told {message:?}");
    // It still reads.
    ensure!(token_ids(&hub).await? == acknowledged, "what is read while the disk is full is not what was acknowledged");

    limit_files(&hub, None).await?;
    wait_until(BOUND, "a token, now that there is room", async || match ask_for_token(&hub).await {
        Ok(answer) if answer.status.is_success() => id(&answer).is_ok_and(|id| acknowledged.insert(id)),
        _ => false,
    })
    .await?;
    ensure!(token_ids(&hub).await? == acknowledged, "what is read afterwards is not what was acknowledged");
    hub.kill().await?;
    hub.start_again().await?;
    ensure!(token_ids(&hub).await? == acknowledged, "what is read after a restart is not what was acknowledged");
    Ok(())
}

#[tokio::test]
async fn a_damaged_store_is_refused_with_what_to_do_and_left_as_it_is() -> Result<()> {
    const BOUND: Duration = Duration::from_secs(30);
    let mut hub = Hub::start().await?;
    for _ in 0..20 {
        ask_for_token(&hub).await?.success()?;
    }
    let acknowledged = token_ids(&hub).await?;
    hub.stop().await?;
    let path = hub.state().join(STORE);
    let good = fs::read(&path)?;
    // In every copy: the file keeps pages that are of no use any more.
    let hashes = good.windows(5).enumerate().filter(|(_, bytes)| bytes == b"\"hash").map(|(at, _)| at);
    let without_tokens = hashes.fold(good.clone(), |damaged, at| overwritten(&damaged, at, 16));
    ensure!(without_tokens != good, "the store holds no token's hash");
    let damages: [(&str, Vec<u8>); 4] = [
        ("an overwritten head", overwritten(&good, 0, 512)),
        ("overwritten tokens", without_tokens),
        ("a lost end", good[..good.len() / 2].to_vec()),
        ("nothing", Vec::new()),
    ];
    for (name, damaged) in damages {
        fs::write(&path, &damaged)?;
        // A start that fails makes the next one neither succeed nor say anything else.
        for _ in 0..2 {
            let ended = hub.program()?.run(BOUND).await.context(name)?;
            ensure!(ended.status.code().is_some_and(|code| code != 0), "{name}: the hub ended with {}", ended.status);
            let said = &ended.stderr;
            ensure!(said.contains(STORE) && said.contains("restore a copy"), "{name}: the operator is told {said:?}");
            ensure!(!said.contains("panicked"), "{name}: {said}");
            ensure!(fs::read(&path)? == damaged, "{name}: the file was changed");
        }
    }
    // A copy restored brings everything back.
    fs::write(&path, &good)?;
    hub.start_again().await?;
    ensure!(token_ids(&hub).await? == acknowledged);
    Ok(())
}

fn overwritten(good: &[u8], start: usize, length: usize) -> Vec<u8> {
    let mut damaged = good.to_vec();
    damaged[start..start + length].fill(0xa5);
    damaged
}
