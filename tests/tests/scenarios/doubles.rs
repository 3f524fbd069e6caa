//! The doubles are good enough for the real thing: stock kubectl and Prometheus use them directly, with no proxy between.

use std::time::Duration;

use anyhow::Result;
use tests::prometheus::{Job, Prometheus};
use tests::service::apiserver::ApiServer;
use tests::service::authority::TargetAuthority;
use tests::service::web;
use tests::{Program, tool, wait_until};

const BOUND: Duration = Duration::from_secs(60);

async fn apiserver() -> Result<ApiServer> {
    let server = ApiServer::start(&TargetAuthority::new()?, &[]).await?;
    Ok(server)
}

/// The default kubectl, then all with a version in their names, each with its minor version where it is known.
fn kubectls() -> Result<Vec<(Option<u32>, Program)>> {
    let by_minor = tool::kubectls_by_minor()?.into_iter().map(|(minor, program)| (Some(minor), program));
    Ok([(None, tool::kubectl()?)].into_iter().chain(by_minor).collect())
}

#[tokio::test]
async fn every_kubectl_gets_pods() -> Result<()> {
    let server = apiserver().await?;
    server.add_pod("first");
    let config = server.kubeconfig(format!("https://{}", server.address())).write()?;
    for (_, kubectl) in kubectls()? {
        let kubectl = config.configure(kubectl);
        let table = kubectl.clone().args(["get", "pods"]).run(BOUND).await?.success()?;
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows, [["NAME", "READY", "STATUS", "RESTARTS", "AGE"], ["first", "1/1", "Running", "0", "1m"]]);
        let named = kubectl.clone().args(["get", "pod", "first", "-o", "name"]).run(BOUND).await?.success()?;
        assert_eq!(named, "pod/first\n");
        let missing = kubectl.args(["get", "pod", "second"]).run(BOUND).await?;
        assert!(missing.stderr.contains(r#"pods "second" not found"#), "{missing:?}");
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_watches_pods_come_and_go() -> Result<()> {
    for (_, kubectl) in kubectls()? {
        let server = apiserver().await?;
        server.add_pod("first");
        let config = server.kubeconfig(format!("https://{}", server.address())).write()?;
        let watch = config.configure(kubectl).args(["get", "pods", "-w", "--output-watch-events"]).spawn()?;
        let event = async |kind: &str, pod: &str| {
            let fits = |line: &str| (line.split_whitespace().take(2).eq([kind, pod])).then_some(());
            watch.stdout_line(BOUND, &format!("{kind} {pod}"), fits).await
        };
        event("ADDED", "first").await?;
        server.add_pod("second");
        event("ADDED", "second").await?;
        server.delete_pod("first");
        event("DELETED", "first").await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_follows_a_log_line_by_line_to_its_end() -> Result<()> {
    for (_, kubectl) in kubectls()? {
        let server = apiserver().await?;
        server.add_pod("first");
        server.log("first", "before");
        let config = server.kubeconfig(format!("https://{}", server.address())).write()?;
        let kubectl = config.configure(kubectl);
        assert_eq!(kubectl.clone().args(["logs", "first"]).run(BOUND).await?.success()?, "before\n");
        let mut follower = kubectl.args(["logs", "-f", "first"]).spawn()?;
        for line in ["before", "during", "later"] {
            if line != "before" {
                server.log("first", line);
            }
            follower.stdout_line(BOUND, line, |found| (found == line).then_some(())).await?;
        }
        server.end_log("first");
        follower.exits_with(0, BOUND).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_with_websockets_execs() -> Result<()> {
    let server = apiserver().await?;
    server.add_pod("first");
    let config = server.kubeconfig(format!("https://{}", server.address())).write()?;
    let with_websockets = kubectls()?.into_iter().filter(|(minor, _)| minor.is_none_or(|minor| minor >= 29));
    let mut execs = 0;
    for (_, kubectl) in with_websockets {
        execs += 3;
        crate::kubectl::exec(config.configure(kubectl)).await?;
    }
    let upgrades = server.requests().into_iter().filter(|request| request.headers.contains_key("upgrade")).count();
    assert_eq!(upgrades, execs, "some exec did not use a WebSocket, or a second try");
    Ok(())
}

#[tokio::test]
async fn a_wrong_token_is_unauthorized() -> Result<()> {
    let authority = TargetAuthority::new()?;
    let server = ApiServer::start(&authority, &[]).await?;
    let url = format!("https://{}", server.address());
    let config = tests::kubeconfig::Kubeconfig::new(url, &authority.pem(), "wrong").write()?;
    let refused = config.kubectl()?.args(["get", "pods"]).run(BOUND).await?;
    assert!(refused.stderr.contains("Unauthorized") || refused.stderr.contains("must be logged in"), "{refused:?}");
    refused.exited_with(1)?;
    Ok(())
}

#[tokio::test]
async fn prometheus_scrapes_plain_and_tls_targets_and_sees_one_go() -> Result<()> {
    let authority = TargetAuthority::new()?;
    let plain = web::plain("plain").await?;
    let tls = web::tls("tls", authority.server_config(&[])?).await?;
    let (plain_at, tls_at) = (plain.service().address().to_string(), tls.service().address().to_string());
    let prometheus =
        Prometheus::start([Job::new("plain", [&plain_at]), Job::new("tls", [&tls_at]).https(&authority.file())])
            .await?;
    let up = async |instance: &str| prometheus.up().await.ok().and_then(|up| up.get(instance).copied());
    wait_until(BOUND, "both targets up", async || up(&plain_at).await == Some(1.0) && up(&tls_at).await == Some(1.0))
        .await?;
    assert_eq!(prometheus.query_by("target_info", "name").await?.len(), 2);
    drop(tls);
    wait_until(BOUND, "one target down", async || up(&tls_at).await == Some(0.0)).await?;
    assert_eq!(up(&plain_at).await, Some(1.0));
    Ok(())
}
