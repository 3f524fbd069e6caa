//! A real Prometheus, which scrapes what a scenario tells it to and answers what it saw.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Fetch, Process, tool, wait_until};

/// How long Prometheus may take to listen, on a loaded machine.
const START: Duration = Duration::from_secs(60);
/// Both the time between two scrapes and the time one may take. Two seconds leave room for two loaded cores.
const SCRAPE: &str = "2s";

/// One entry of `scrape_configs`.
#[derive(Debug, Clone)]
pub struct Job(Value);

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    process: Process,
    address: SocketAddr,
    _folder: TempDir,
}

impl Job {
    /// A job that scrapes `http://TARGET/metrics` of each target.
    pub fn new<T: Into<String>>(name: &str, targets: impl IntoIterator<Item = T>) -> Self {
        let targets: Vec<String> = targets.into_iter().map(Into::into).collect();
        Self(json!({ "job_name": name, "static_configs": [{ "targets": targets }] }))
    }

    /// Scrapes through this proxy, e.g. `http://CLUSTER:TOKEN@HUB:PORT`.
    #[must_use]
    pub fn proxy_url(self, url: &str) -> Self {
        self.set("proxy_url", json!(url))
    }

    /// Scrapes over TLS with targets that this authority vouches for (a file of PEM).
    #[must_use]
    pub fn https(self, authority: &Path) -> Self {
        self.set("scheme", json!("https")).set("tls_config", json!({ "ca_file": authority }))
    }

    /// Sets any field of the entry.
    #[must_use]
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }
}

impl Prometheus {
    /// Starts the machine's Prometheus with these jobs, and waits until it is ready.
    pub async fn start(jobs: impl IntoIterator<Item = Job>) -> Result<Self> {
        let jobs: Vec<Value> = jobs.into_iter().map(|Job(job)| job).collect();
        let config = json!({
            "global": { "scrape_interval": SCRAPE, "scrape_timeout": SCRAPE },
            "scrape_configs": jobs,
        });
        // JSON is YAML.
        Self::start_on(&config.to_string()).await
    }

    /// The same with scrape jobs as YAML, which begins with `scrape_configs:`.
    pub async fn start_with(scrape_configs: &str) -> Result<Self> {
        let global = format!("global: {{ scrape_interval: {SCRAPE}, scrape_timeout: {SCRAPE} }}\n");
        Self::start_on(&(global + scrape_configs)).await
    }

    async fn start_on(config: &str) -> Result<Self> {
        let folder = TempDir::new().context("no temporary folder for Prometheus")?;
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config)?;
        let process = tool::prometheus()?
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--log.format=json", "--no-scrape.adjust-timestamps"])
            .spawn()?;
        let address = process.stderr_line(START, "its address", listening_address).await?;
        let prometheus = Self { process, address, _folder: folder };
        wait_until(START, "Prometheus to be ready", async || prometheus.is_ready().await).await?;
        Ok(prometheus)
    }

    /// Where its HTTP API is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// `up` of each target by its `instance` label (`host:port`): 1 after a scrape that worked, 0 after one that did not.
    /// A target that was not scraped yet is missing.
    pub async fn up(&self) -> Result<BTreeMap<String, f64>> {
        self.query_by("up", "instance").await
    }

    /// The value of each series an instant query gives, by one of its labels.
    pub async fn query_by(&self, query: &str, label: &str) -> Result<BTreeMap<String, f64>> {
        let answer = self.query(query).await?;
        let series = answer["data"]["result"].as_array().with_context(|| format!("no vector: {answer}"))?;
        series.iter().map(|series| labelled_value(series, label)).collect()
    }

    /// The whole answer to an instant query (`/api/v1/query`).
    pub async fn query(&self, query: &str) -> Result<Value> {
        let form: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        Fetch::get(format!("/api/v1/query?query={form}")).plain(self.address).await?.success()?.json()
    }

    /// What it knows of its targets (`/api/v1/targets`), with the last error of each: for a failed scenario's message.
    pub async fn targets(&self) -> Result<Value> {
        Fetch::get("/api/v1/targets?state=active").plain(self.address).await?.success()?.json()
    }

    async fn is_ready(&self) -> bool {
        Fetch::get("/-/ready").plain(self.address).await.is_ok_and(|answer| answer.status.is_success())
    }
}

/// Prometheus says which port it was given in one line of its log.
fn listening_address(line: &str) -> Option<SocketAddr> {
    let event: Value = serde_json::from_str(line).ok()?;
    (event["msg"] == "Listening on").then(|| event["address"].as_str()?.parse().ok())?
}

fn labelled_value(series: &Value, label: &str) -> Result<(String, f64)> {
    let name = series["metric"][label].as_str().with_context(|| format!("no label {label}: {series}"))?;
    let value = series["value"][1].as_str().with_context(|| format!("no value: {series}"))?;
    Ok((name.to_owned(), value.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_the_line_that_has_it() {
        let lines = [
            r#"{"msg":"Start listening for connections","address":"127.0.0.1:0"}"#,
            r#"{"msg":"Listening on","address":"127.0.0.1:37397"}"#,
            "noise",
        ];
        let found: Vec<SocketAddr> = lines.iter().filter_map(|line| listening_address(line)).collect();
        assert_eq!(found, ["127.0.0.1:37397".parse().unwrap()]);
    }
}
