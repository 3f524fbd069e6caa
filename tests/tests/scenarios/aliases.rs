//! A target by its other names: an agent is closed until it is told, and what it denies has no second door.

use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use tempfile::TempDir;
use tests::service::web;
use tests::{Answer, Fetch, Hub, Spoke};

const BOUND: Duration = Duration::from_secs(30);

/// Asks for a page of the cluster `one` through the hub's proxy.
async fn page(hub: &Hub, host: &str, port: u16) -> Result<Answer> {
    let credentials = STANDARD.encode(format!("one:{}", hub.credentials().token()?));
    let fetch = Fetch::get(format!("http://{host}:{port}/"));
    fetch.header("proxy-authorization", format!("Basic {credentials}")).plain(hub.addresses().proxy).await
}

async fn refused(hub: &Hub, host: &str, port: u16, why: &str) -> Result<()> {
    let answer = page(hub, host, port).await?;
    ensure!(answer.status == StatusCode::FORBIDDEN, "{host}: {} {}", answer.status, answer.text());
    ensure!(answer.text().contains(why), "{host}: {}", answer.text());
    Ok(())
}

/// The agent's word of what is open, in the line of its start.
async fn open(spoke: &Spoke) -> Result<String> {
    let started = |line: &str| line.contains("agent started").then(|| line.to_owned());
    spoke.process().stderr_line(BOUND, "the agent's first line", started).await
}

#[tokio::test]
async fn an_agent_is_closed_until_it_is_told() -> Result<()> {
    let hub = Hub::start().await?;
    let none: [&str; 0] = [];
    let mut spoke = Spoke::of(&hub, "one").policy(none).start().await?;
    ensure!(open(&spoke).await?.contains("nothing but what is configured; add --allow"));
    for (host, flag) in [
        ("grafana.monitoring", "--allow 'grafana.monitoring:80'"),
        ("10.96.0.1", "--allow '10.96.0.1:80'"),
        ("192.0.2.1", "--allow '192.0.2.1:80'"),
        ("localhost", "--allow 'localhost:80'"),
        ("kubernetes.default.svc", "--allow 'kubernetes.default.svc:80'"),
    ] {
        refused(&hub, host, 80, flag).await?;
    }
    spoke.stop().await
}

#[tokio::test]
async fn in_a_pod_the_clusters_own_services_are_open_by_their_names_alone() -> Result<()> {
    let hub = Hub::start().await?;
    let web = web::plain("grafana").await?;
    let port = web.service().port();
    let folder = TempDir::new()?;
    let hosts = folder.path().join("hosts");
    // The cluster's DNS knows full names; an outsider's name leads to the same address.
    let names = "127.0.0.1 localhost grafana.monitoring.svc.cluster.local. outside.test 10-0-0-5.a.pod.cluster.local\n";
    std::fs::write(&hosts, names)?;
    let pod = "export KUBERNETES_SERVICE_HOST=10.96.0.1 KUBERNETES_SERVICE_PORT=443";
    let none: [&str; 0] = [];
    let mut spoke = Spoke::of(&hub, "one").policy(none).hosts(&hosts).after_shell(pod).start().await?;
    ensure!(open(&spoke).await?.contains("Kubernetes API and Services, by their names"));
    let (add, keep) = ("start the agent with --allow", "--allow @cluster");
    for host in ["outside.test", "10-0-0-5.a.pod.cluster.local", "10.96.7.7", "192.0.2.1", "loki.monitoring"] {
        refused(&hub, host, port, &format!("{add} '{host}:{port}' (and {keep}")).await?;
    }
    // A Service that leads to the agent's own host goes no further.
    refused(&hub, "grafana.monitoring", port, "a loopback address of the agent's own host must be named").await?;
    spoke.stop().await?;
    drop(spoke);

    let flags = ["--allow", "@cluster", "--allow", "127.0.0.1:1"];
    let flags = flags.map(str::to_owned).into_iter().chain(["--allow".to_owned(), format!("127.0.0.1:{port}")]);
    let spoke = Spoke::of(&hub, "one").agent("second").policy(flags).hosts(&hosts).after_shell(pod).start().await?;
    for host in ["grafana.monitoring", "grafana.monitoring.svc", "Grafana.monitoring.svc.cluster.local."] {
        let answer = page(&hub, host, port).await?.success()?;
        ensure!(answer.text() == "grafana\n", "{host}: {}", answer.text());
    }
    drop(spoke);
    Ok(())
}

#[tokio::test]
async fn a_denied_name_is_denied_by_its_aliases_and_its_addresses() -> Result<()> {
    let hub = Hub::start().await?;
    let web = web::plain("vault").await?;
    let port = web.service().port();
    let folder = TempDir::new()?;
    let hosts = folder.path().join("hosts");
    let lines = "127.0.0.1 localhost vault.security.svc.cluster.local vault.security.svc vault.security elsewhere.test\n\
                 127.0.0.2 other.test\n";
    std::fs::write(&hosts, lines)?;
    let flags = ["--allow", "*", "--allow", "127.0.0.0/8", "--deny", "vault.security"];
    let spoke = Spoke::of(&hub, "one").policy(flags).hosts(&hosts).start().await?;
    for host in [
        "vault.security",
        "vault.security.svc",
        "VAULT.security.svc.cluster.local",
        "vault.security.svc.cluster.local.",
        "vault.security.svc.other.domain",
        "elsewhere.test",
        "localhost",
        "127.0.0.1",
        "[::ffff:127.0.0.1]",
        "127.1",
        "0x7f000001",
    ] {
        refused(&hub, host, port, "vault.security").await?;
    }
    ensure!(web.requests() == 0, "somebody got through");
    // Nothing else is closed by it.
    let other = page(&hub, "other.test", port).await?;
    ensure!(other.status == StatusCode::BAD_GATEWAY, "{} {}", other.status, other.text());
    drop(spoke);
    Ok(())
}
