//! The files in `deploy/prometheus`: Prometheus' own tool takes them, and they name metrics that there are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::tool;

use super::metrics::{AGENT_FAMILIES, HUB_FAMILIES};

const BOUND: Duration = Duration::from_secs(30);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus")
}

/// The words that begin with one of `prefixes`.
fn words(text: &str, prefixes: &[&str]) -> BTreeSet<String> {
    let inner = |character: char| character.is_ascii_alphanumeric() || "_:".contains(character);
    let words = text.split(|character| !inner(character));
    words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix))).map(str::to_owned).collect()
}

#[tokio::test]
async fn promtool_takes_the_rules_and_the_configuration() -> Result<()> {
    let rules = folder().join("rules.yml");
    tool::promtool()?.args(["check", "rules"]).arg(&rules).run(BOUND).await?.success()?;
    tool::promtool()?.args(["test", "rules"]).arg(folder().join("rules_test.yml")).run(BOUND).await?.success()?;
    // The files of the credentials are another machine's.
    let config = ["check", "config", "--syntax-only"];
    tool::promtool()?.args(config).arg(folder().join("prometheus.yml")).run(BOUND).await?.success()?;
    Ok(())
}

#[test]
fn rules_and_dashboard_name_metrics_that_there_are() -> Result<()> {
    let (rules, dashboard) = (
        std::fs::read_to_string(folder().join("rules.yml"))?,
        std::fs::read_to_string(folder().join("dashboard.json"))?,
    );
    // What hub and agents export is held to these lists by a test of its own.
    let families: BTreeSet<&str> = HUB_FAMILIES.into_iter().chain(AGENT_FAMILIES).collect();
    for (file, text) in [("rules.yml", &rules), ("dashboard.json", &dashboard)] {
        let named = words(text, &["proxy_server_", "proxy_agent_"]);
        ensure!(named.len() > 8, "{file} names {named:?} only");
        for name in named {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            let known = families.contains(&*name) || family.is_some_and(|family| families.contains(family));
            ensure!(known, "{file} names {name}, which nobody exports");
        }
    }
    let recorded: BTreeSet<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- record: ").map(str::to_owned)).collect();
    for used in words(&format!("{rules}{dashboard}"), &["cluster_proxy:"]) {
        ensure!(recorded.contains(&used), "{used} is recorded by no rule");
    }
    Ok(())
}

#[tokio::test]
async fn every_query_of_the_dashboard_can_be_read() -> Result<()> {
    let dashboard: Value = serde_json::from_str(&std::fs::read_to_string(folder().join("dashboard.json"))?)?;
    let panels = dashboard["panels"].as_array().context("no panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let queries = targets.filter_map(|target| target["expr"].as_str());
    let rules: Vec<Value> = queries
        .enumerate()
        .map(|(at, query)| {
            let query = query.replace("$__rate_interval", "1m").replace("$cluster", ".*");
            serde_json::json!({ "record": format!("query:{at}"), "expr": query })
        })
        .collect();
    ensure!(rules.len() > panels.len() / 2, "{} queries", rules.len());
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(
        file.path(),
        serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] }).to_string(),
    )?;
    tool::promtool()?.args(["check", "rules"]).arg(file.path()).run(BOUND).await?.success().map(drop)
}
