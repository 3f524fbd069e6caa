//! Watching with kubectl: what comes, changes and goes, of all or of one, by name or by label.

use anyhow::{Result, ensure};
use tests::{Hub, Kubectl, Process, tool, wait_until};

use super::{BOUND, admin, cluster, full, others};

/// Waits for a line of a watch that begins with these words.
pub(super) async fn shows(watch: &Process, words: &str) -> Result<()> {
    let wanted: Vec<&str> = words.split(' ').collect();
    let fits = |line: &str| line.split_whitespace().take(wanted.len()).eq(wanted.iter().copied()).then_some(());
    watch.stdout_line(BOUND, words, fits).await
}

#[tokio::test]
async fn every_kubectl_watches_clusters_come_change_and_go() -> Result<()> {
    let hub = Hub::start().await?;
    let admin = admin(&hub)?;
    let mut all = vec![Kubectl::administrator(&hub, tool::old_kubectl()?)?];
    all.extend(full(&hub)?.into_iter().chain(others(&hub)?));
    admin.ok(&format!("create -f {}", admin.file(&cluster("first", false))?)).await?;
    let mut watches = Vec::new();
    for kubectl in &all {
        let watch = kubectl.spawn("get mcl --watch --output-watch-events")?;
        shows(&watch, "ADDED first false").await?;
        watches.push(watch);
    }
    admin.ok(&format!("create -f {}", admin.file(&cluster("second", false))?)).await?;
    admin.ok("patch mcl second --type=merge -p '{\"spec\":{\"hubAcceptsClient\":true}}'").await?;
    admin.ok("delete mcl second").await?;
    for watch in &watches {
        for event in ["ADDED second false", "MODIFIED second true", "DELETED second true"] {
            shows(watch, event).await?;
        }
        let lines = watch.stdout();
        let heads = lines.iter().filter(|line| line.starts_with("EVENT")).count();
        ensure!(heads == 1 && lines[0].split_whitespace().eq(HEAD.split_whitespace()), "{lines:?}");
    }
    Ok(())
}

const HEAD: &str = "EVENT NAME HUB ACCEPTED MANAGED CLUSTER URLS JOINED AVAILABLE AGE";

#[tokio::test]
async fn a_watch_shows_only_what_its_selectors_want() -> Result<()> {
    let hub = Hub::start().await?;
    for kubectl in full(&hub)? {
        for name in ["one", "two"] {
            kubectl.ok(&format!("create -f {}", kubectl.file(&cluster(name, false))?)).await?;
        }
        let by_name = kubectl.spawn("get mcl one --watch --output-watch-events")?;
        let by_label = kubectl.spawn("get mcl -l color=red --watch --output-watch-events")?;
        let later = kubectl.spawn("get mcl --watch-only --output-watch-events --field-selector metadata.name=two")?;
        let json =
            kubectl.spawn("get mcl one --watch -o 'jsonpath={.metadata.name}/{.metadata.labels.color}{\"\\n\"}'")?;
        shows(&by_name, "ADDED one").await?;
        shows(&json, "one/").await?;
        // Nothing tells when a watch that does not list first has begun.
        let mut changes = 0;
        wait_until(BOUND, "the watch without a list", async || {
            changes += 1;
            let annotated = kubectl.ok(&format!("annotate --overwrite mcl two change={changes}")).await;
            annotated.is_ok() && later.stdout().iter().any(|line| line.starts_with("MODIFIED"))
        })
        .await?;
        kubectl.ok("label mcl two color=red").await?;
        shows(&by_label, "ADDED two").await?;
        kubectl.ok("label mcl one color=red").await?;
        shows(&by_name, "MODIFIED one").await?;
        shows(&by_label, "ADDED one").await?;
        shows(&json, "one/red").await?;
        // Out of the selection is gone, for who watches the selection.
        kubectl.ok("label mcl two color-").await?;
        shows(&by_label, "DELETED two").await?;
        kubectl.ok("delete mcl one two").await?;
        shows(&by_name, "DELETED one").await?;
        shows(&by_label, "DELETED one").await?;
        shows(&later, "DELETED two").await?;
        ensure!(!by_name.stdout().iter().any(|line| line.contains(" two ")), "{:?}", by_name.stdout());
        ensure!(!later.stdout().iter().any(|line| line.contains(" one ")), "{:?}", later.stdout());
    }
    Ok(())
}
