//! The demonstration as a newcomer uses it: it proves itself, and what it offers to paste works.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use tests::{Kubectl, Program, tool, wait_for};

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);

/// The API group of clusters and their sets.
const PREFIX: &str = "cluster.open-cluster-management.io";

#[tokio::test]
async fn kubectl_shows_the_columns_of_ocm_on_the_demos_hub() -> Result<()> {
    let mut demo = Program::of_workspace("cluster-proxy")?.arg("demo").spawn()?;
    let pasted = "kubectl --kubeconfig ";
    let snippet =
        demo.stdout_line(BOUND, "kubectl's snippet", |line| Some(line.strip_prefix(pasted)?.to_owned())).await?;
    let (kubeconfig, command) = snippet.split_once(' ').context("no command")?;
    demo.stdout_line(BOUND, "the end of the proof", |line| line.starts_with("Running until").then_some(())).await?;

    for program in [tool::kubectl()?, tool::newest_kubectl()?] {
        let kubectl = Kubectl::with(program, kubeconfig.as_ref())?;
        // The conditions are written a moment after the agents are there.
        let columns = async || {
            let tables = kubectl.ok(command).await?;
            let tables: Vec<_> = tables.split("\n\n").map(tests::rows).collect::<Result<_>>()?;
            let [clusters, _, _] = tables.as_slice() else { bail!("{tables:?}") };
            for (row, name) in clusters.iter().zip(["cluster1", "cluster2"]) {
                ensure!(row["NAME"] == format!("managedcluster.{PREFIX}/{name}"), "{row:?}");
                let columns = ["HUB ACCEPTED", "JOINED", "AVAILABLE"].map(|column| row[column].to_lowercase());
                ensure!(columns.iter().all(|value| value == "true"), "{row:?}");
                ensure!(row.contains_key("MANAGED CLUSTER URLS") && row.contains_key("AGE"), "{row:?}");
            }
            Ok(tables)
        };
        let tables = wait_for(BOUND, "the conditions of both clusters", columns).await?;
        let [clusters, sets, requests] = tables.as_slice() else { bail!("{tables:?}") };
        for (row, name) in sets.iter().zip(["default", "global"]) {
            ensure!(row["NAME"] == format!("managedclusterset.{PREFIX}/{name}"), "{row:?}");
            ensure!(row["EMPTY"] == "False" && row.contains_key("AGE"), "{row:?}");
        }
        ensure!(clusters.len() == 2 && sets.len() == 2 && requests.len() == 2, "{tables:?}");
        ensure!(requests.iter().all(|row| row["CONDITION"].starts_with("Approved")), "{requests:?}");
    }
    demo.signal(Signal::SIGTERM)?;
    demo.exits_with(0, BOUND).await
}
