//! `prometheus-config`: scrape jobs for all that the clusters export. Secrets are named by their files and never printed.

use std::{
    fmt,
    path::{Path, PathBuf, absolute},
    time::Duration,
};

use certs::{HUB_SERVER_NAME, HubEntry};
use clap::Args;

use crate::{
    duration,
    failure::{Exit, Failure},
    output::print,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy user create prometheus --all-clusters --out /etc/prometheus/cluster-proxy\n  \
    cluster-proxy prometheus-config --credentials /etc/prometheus/cluster-proxy > /etc/prometheus/prometheus.yml\n  \
    cluster-proxy prometheus-config --set prod --job node\n\n\
    Prometheus must be able to read tls.key in the folder of the credentials. It sees what their user may reach.")]
pub(crate) struct PrometheusConfig {
    /// Only clusters of this set; may be given several times
    #[arg(long, value_name = "SET")]
    set: Vec<String>,
    /// Only exports with this job; may be given several times
    #[arg(long, value_name = "JOB")]
    job: Vec<String>,
    /// The folder with ca.crt, tls.crt and tls.key on Prometheus' machine [default: that of the credentials used]
    #[arg(long, value_name = "DIR")]
    credentials_files: Option<PathBuf>,
    /// How often Prometheus asks what there is
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    refresh_interval: Duration,
}

/// The scrape jobs as YAML.
struct Jobs<'a> {
    hub: &'a HubEntry,
    files: &'a Path,
    query: String,
    refresh: Duration,
}

/// A text in YAML: JSON's strings are strings of YAML, too.
struct Quoted<'a>(&'a str);

impl PrometheusConfig {
    /// `folder` is where the credentials are.
    pub(crate) fn run(&self, hub: &HubEntry, folder: &Path) -> Result<(), Failure> {
        let files = self.credentials_files.as_deref().unwrap_or(folder);
        let files = absolute(files).map_err(|error| Failure::new(Exit::Usage, error))?;
        print(self.jobs(hub, &files).to_string().trim_end())
    }

    fn jobs<'a>(&self, hub: &'a HubEntry, files: &'a Path) -> Jobs<'a> {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(self.set.iter().map(|set| ("set", set)));
        query.extend_pairs(self.job.iter().map(|job| ("job", job)));
        // Prometheus takes no interval of nothing.
        let refresh = self.refresh_interval.max(Duration::from_millis(1));
        Jobs { hub, files, query: query.finish(), refresh }
    }
}

impl Jobs<'_> {
    /// TLS to the hub, with `indent` before each line.
    fn tls(&self, indent: &str) -> String {
        let file = |name: &str| Quoted(&self.files.join(name).display().to_string()).to_string();
        let (ca, certificate, key) = (file("ca.crt"), file("tls.crt"), file("tls.key"));
        format!(
            "{indent}tls_config:\n\
             {indent}  ca_file: {ca}\n\
             {indent}  cert_file: {certificate}\n\
             {indent}  key_file: {key}\n\
             {indent}  server_name: {HUB_SERVER_NAME}\n"
        )
    }

    fn discovery(&self) -> String {
        let question = if self.query.is_empty() { "" } else { "?" };
        let url = format!("{}/prometheus/targets{question}{}", self.hub.api.trim_end_matches('/'), self.query);
        let (url, refresh, tls) = (Quoted(&url), self.refresh.as_millis(), self.tls("        "));
        format!("    http_sd_configs:\n      - url: {url}\n        refresh_interval: {refresh}ms\n{tls}")
    }
}

impl fmt::Display for Jobs<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (proxy, api) = (format!("https://{}", self.hub.proxy), self.hub.api.trim_end_matches('/'));
        let api = api.strip_prefix("https://").unwrap_or(api);
        let (proxy, api, tls, discovery) = (Quoted(&proxy), Quoted(api), self.tls("    "), self.discovery());
        write!(
            f,
            "scrape_configs:\n  \
               # What the clusters export by http, through the hub as a proxy.\n  \
               - job_name: cluster-proxy\n    \
                 proxy_url: {proxy}\n\
             {tls}\
             {discovery}    \
                 relabel_configs:\n      \
                   - source_labels: [__scheme__]\n        \
                     regex: http\n        \
                     action: keep\n  \
               # Kubernetes services that are exported by https: by their URL at the hub. The agent ends TLS, and verifies them\n  \
               # by the CAs of its --service-ca.\n  \
               - job_name: cluster-proxy-https\n\
             {tls}\
             {discovery}    \
                 relabel_configs:\n      \
                   - source_labels: [__scheme__, __meta_cluster_proxy_service_path]\n        \
                     regex: https;/.+\n        \
                     action: keep\n      \
                   - source_labels: [__address__]\n        \
                     target_label: instance\n      \
                   - source_labels: [__meta_cluster_proxy_service_path, __metrics_path__]\n        \
                     separator: \"\"\n        \
                     target_label: __metrics_path__\n      \
                   - target_label: __address__\n        \
                     replacement: {api}\n"
        )
    }
}

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        serde_json::Value::from(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(set: &[&str], job: &[&str]) -> String {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let (set, job) = (texts(set), texts(job));
        let asked = PrometheusConfig { set, job, credentials_files: None, refresh_interval: Duration::from_secs(30) };
        let pin = format!("sha256:{}", "0".repeat(64)).parse().unwrap();
        let hub = HubEntry {
            user: "prometheus".parse().unwrap(),
            api: "https://hub:8443".into(),
            proxy: "hub:8090".into(),
            pin,
        };
        asked.jobs(&hub, Path::new("/etc/cp \"x\"")).to_string()
    }

    #[test]
    fn both_jobs_name_the_hub_and_the_files() {
        let config = config(&[], &[]);
        for (line, times) in [
            ("proxy_url: \"https://hub:8090\"", 1),
            ("- url: \"https://hub:8443/prometheus/targets\"", 2),
            (r#"key_file: "/etc/cp \"x\"/tls.key""#, 4),
            ("server_name: hub.cluster-proxy.internal", 4),
            ("replacement: \"hub:8443\"", 1),
            ("refresh_interval: 30000ms", 2),
        ] {
            assert_eq!(config.matches(line).count(), times, "{line}\n{config}");
        }
        assert!(!config.contains("insecure"), "{config}");
    }

    #[test]
    fn the_filters_are_part_of_the_url() {
        let config = config(&["prod", "dev"], &["a b&c"]);
        assert!(config.contains("/prometheus/targets?set=prod&set=dev&job=a+b%26c\""), "{config}");
    }
}
