//! A real Prometheus scrapes targets in two spokes through the hub as its `proxy_url`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tests::prometheus::{Job, Prometheus};
use tests::service::authority::TargetAuthority;
use tests::service::web;
use tests::{Hub, Spoke, wait_for};

/// Some scrapes of two seconds each, on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);

/// Waits until `up` is exactly this, by job.
async fn wait_for_up(prometheus: &Prometheus, expected: &[(&str, f64)]) -> Result<()> {
    let expected: BTreeMap<String, f64> = expected.iter().map(|(job, up)| ((*job).to_owned(), *up)).collect();
    let what = format!("up to be {expected:?}");
    let matching = wait_for(BOUND, &what, async || {
        let up = prometheus.query_by("up", "job").await?;
        if up == expected { Ok(()) } else { Err(anyhow::anyhow!("{up:?}")) }
    });
    match matching.await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(prometheus.targets().await?.to_string())),
    }
}

#[tokio::test]
async fn it_scrapes_http_and_https_targets_in_two_spokes_and_sees_an_agent_go_and_return() -> Result<()> {
    let hub = Hub::start().await?;
    let mut one = Spoke::of(&hub, "one").start().await?;
    let _two = Spoke::of(&hub, "two").start().await?;
    let authority = TargetAuthority::new()?;
    let (plain, tls) = (web::plain("plain").await?, web::tls("tls", authority.server_config(&[])?).await?);
    let other = web::plain("other").await?;
    let admin = hub.credentials();
    let (of_one, of_two) = (hub.proxy_url("http", "one", &admin)?, hub.proxy_url("http", "two", &admin)?);
    let prometheus = Prometheus::start([
        Job::new("plain", [plain.service().address().to_string()]).proxy_url(&of_one),
        Job::new("tls", [tls.service().address().to_string()]).https(&authority.file()).proxy_url(&of_one),
        Job::new("other", [other.service().address().to_string()]).proxy_url(&of_two),
    ])
    .await?;
    let all = [("plain", 1.0), ("tls", 1.0), ("other", 1.0)];
    wait_for_up(&prometheus, &all).await?;
    let names: Vec<String> = prometheus.query_by("target_info", "name").await?.into_keys().collect();
    assert_eq!(names, ["other", "plain", "tls"]);

    one.kill().await?;
    wait_for_up(&prometheus, &[("plain", 0.0), ("tls", 0.0), ("other", 1.0)]).await?;
    let targets = prometheus.targets().await?;
    let errors: Vec<&str> = targets["data"]["activeTargets"]
        .as_array()
        .context("no targets")?
        .iter()
        .filter(|target| target["labels"]["job"] != "other")
        .filter_map(|target| target["lastError"].as_str())
        .collect();
    assert_eq!(errors.len(), 2);
    one.start_again().await?;
    wait_for_up(&prometheus, &all).await
}

#[tokio::test]
async fn it_names_targets_by_host_and_reaches_the_hub_over_tls() -> Result<()> {
    let hub = Hub::start().await?;
    let _one = Spoke::of(&hub, "one").start().await?;
    let _two = Spoke::of(&hub, "two").start().await?;
    let inside = ["localhost.one.clusters.internal", "localhost.two.clusters.internal"];
    let authority = TargetAuthority::new()?;
    let (plain, tls) = (web::plain("plain").await?, web::tls("tls", authority.server_config(&inside)?).await?);
    let target = |name: &str, web: &web::Web| format!("{name}:{}", web.service().port());
    // One TLS configuration of a job is for its proxy and its targets alike.
    let both = tempfile::NamedTempFile::new()?;
    let hub_authority = std::fs::read_to_string(hub.credentials().authority_file())?;
    std::fs::write(both.path(), authority.pem() + &hub_authority)?;
    let https = hub.proxy_url("https", "", &hub.credentials())?;
    let prometheus = Prometheus::start([
        Job::new("plain", [target(inside[0], &plain)])
            .proxy_url(&https)
            .set("tls_config", json!({ "ca_file": both.path() })),
        Job::new("tls", [target(inside[1], &tls)]).https(both.path()).proxy_url(&https),
        Job::new("wrong", [target("localhost.three.clusters.internal", &plain)]).proxy_url(&hub.proxy_url(
            "http",
            "",
            &hub.credentials(),
        )?),
    ])
    .await?;
    wait_for_up(&prometheus, &[("plain", 1.0), ("tls", 1.0), ("wrong", 0.0)]).await
}
