//! Several hubs that share an etcd have one CA, in files of their own: each step is taken at one, and its files are copied.

use std::fs;

use anyhow::{Result, bail};
use tests::service::echo;
use tests::{Etcd, Hub, Spoke, wait_for, wait_until};

use super::{BOUND, Traffic, changed_over, roots, status, step};

/// In this order each copy makes a CA that works.
const FILES: [&str; 3] = ["ca.retired.crt", "ca.key", "ca.crt"];

fn copy(from: &Hub, to: &Hub) -> Result<()> {
    for name in FILES {
        let path = from.state().join(name);
        if path.exists() {
            fs::copy(path, to.state().join(name))?;
        }
    }
    Ok(())
}

/// Copies, and waits until the other hub has noticed.
async fn follows(from: &Hub, to: &Hub) -> Result<()> {
    copy(from, to)?;
    let expected = status(from).await?["phase"].clone();
    wait_for(BOUND, "the other hub to notice", async || match status(to).await?["phase"].clone() {
        found if found == expected => Ok(()),
        other => bail!("{other}"),
    })
    .await
}

#[tokio::test]
async fn two_hubs_of_one_registry_rotate_their_ca_by_copies_of_its_files() -> Result<()> {
    let etcd = Etcd::start().await?;
    let on_etcd = ["--store", "etcd", "--etcd-endpoint", &etcd.endpoint()].map(str::to_owned);
    let one = Hub::builder().args(on_etcd.clone()).start().await?;
    let two = Hub::builder().args(on_etcd).ca_of(&one).start().await?;
    let both = format!("{},{}", one.addresses().tunnel, two.addresses().tunnel);
    let spoke = Spoke::of(&one, "near").args(["--hub", &both]).start().await?;
    let service = echo::start().await?;
    let target = service.address().to_string();
    let mut traffic = Vec::new();
    for hub in [&one, &two] {
        wait_until(BOUND, "the agent to be at both", async || hub.is_available("near").await).await?;
        traffic.push(Traffic::over(hub.client("near")?.dial(&target).await?));
    }
    step(&one, "begin").await?;
    follows(&one, &two).await?;
    step(&one, "sign").await?;
    changed_over(&one, "near").await?;
    follows(&one, &two).await?;
    step(&one, "finish").await?;
    follows(&one, &two).await?;
    let ca = spoke.state().join("ca.crt");
    wait_until(BOUND, "the old CA to be gone", async || roots(&ca).is_ok_and(|count| count == 1)).await?;
    for traffic in traffic {
        traffic.end().await?;
    }
    for hub in [&one, &two] {
        hub.client("near")?.dial(&target).await?;
        hub.command(["clusters"]).await?.success()?;
    }
    Ok(())
}
