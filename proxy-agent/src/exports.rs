//! What this agent exports for Prometheus: the services of its configuration, and those that Kubernetes tells of.

mod services;

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use tunnel::{Export, MAX_EXPORTS, within_limits};

use crate::target::Target;

pub(crate) use services::Services;

/// Where a service's metrics are unless told otherwise.
pub(crate) const METRICS_PATH: &str = "/metrics";

/// How often Kubernetes is asked for services unless told otherwise.
pub(crate) const INTERVAL: Duration = Duration::from_secs(30);

/// What there is to export.
#[derive(Clone, Debug)]
pub struct ExportConfig {
    /// By the operator. A change of the file is seen at the next start.
    pub fixed: Vec<Export>,
    /// The label selector of the Kubernetes services to look at; `None`: look at none.
    pub services: Option<String>,
    /// How often to look.
    pub interval: Duration,
}

impl Default for ExportConfig {
    fn default() -> Self {
        Self { fixed: Vec::new(), services: None, interval: INTERVAL }
    }
}

/// A table `[[export]]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Entry {
    name: String,
    target: String,
    job: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    metrics_path: Option<String>,
    scheme: Option<String>,
}

/// Reads one table `[[export]]`.
pub(crate) fn read(table: &toml::Table) -> Result<Export, String> {
    let entry: Entry = table.clone().try_into().map_err(|error: toml::de::Error| error.message().to_owned())?;
    let Entry { name, target, job, labels, metrics_path, scheme } = entry;
    let Target { host, port } = target.parse().map_err(|error| format!("'target': {error}"))?;
    let export = Export {
        job: job.unwrap_or_else(|| name.clone()),
        name,
        host: host.to_string(),
        port: port.into(),
        scheme: scheme.unwrap_or_else(|| "http".into()),
        metrics_path: metrics_path.unwrap_or_else(|| METRICS_PATH.into()),
        labels,
    };
    export.check().map_err(|error| error.to_string())?;
    Ok(export)
}

/// What is wrong with good exports together.
pub(crate) fn check_together(exports: &[Export]) -> Result<(), String> {
    let names = exports.iter().map(|export| export.name.as_str());
    if let Some(twice) = names.clone().enumerate().find_map(|(at, name)| names.clone().take(at).find(|it| *it == name))
    {
        return Err(format!("two [[export]] are named {twice:?}; give each a name of its own"));
    }
    if within_limits(exports) < exports.len() {
        return Err(format!(
            "there are too many [[export]], or their labels are too long: at most {MAX_EXPORTS} and 48 KiB together"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Export, String> {
        read(&text.parse().unwrap())
    }

    #[test]
    fn an_entry_needs_a_name_and_a_target_alone() {
        let export = parse("name = \"node\"\ntarget = \"Node-Exporter.monitoring:9100\"").unwrap();
        let expected = Export {
            name: "node".into(),
            host: "node-exporter.monitoring".into(),
            port: 9100,
            scheme: "http".into(),
            metrics_path: "/metrics".into(),
            job: "node".into(),
            labels: BTreeMap::new(),
        };
        assert_eq!(export, expected);
        let full = "name = \"a\"\ntarget = \"10.0.0.1:1\"\njob = \"j\"\nmetrics-path = \"/m\"\nscheme = \"https\"\n\
                    labels = { team = \"x\" }";
        let export = parse(full).unwrap();
        assert_eq!((&*export.job, &*export.scheme, &*export.metrics_path), ("j", "https", "/m"));
        assert_eq!(export.labels, BTreeMap::from([("team".into(), "x".into())]));
    }

    #[test]
    fn what_is_wrong_with_an_entry_is_said_in_its_words() {
        let base = "name = \"a\"\ntarget = \"web:80\"\n";
        for (text, words) in [
            ("target = \"web:80\"".to_owned(), "`name`"),
            ("name = \"a\"".to_owned(), "`target`"),
            ("name = \"a\"\ntarget = \"web\"".to_owned(), "'target'"),
            ("name = \"a\"\ntarget = \"[::1]:80\"".to_owned(), "IPv6"),
            (format!("{base}path = \"/x\""), "`path`"),
            (format!("{base}labels = {{ team = 1 }}"), "string"),
            (format!("{base}labels = {{ cluster = \"x\" }}"), "cluster"),
            (format!("{base}scheme = \"ftp\""), "scheme"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(words) && !error.contains('\n'), "{text}: {error}");
        }
    }

    #[test]
    fn names_are_used_once_and_all_fit_one_message() {
        let export = parse("name = \"a\"\ntarget = \"web:80\"").unwrap();
        let other = Export { name: "b".into(), ..export.clone() };
        assert_eq!(check_together(&[export.clone(), other]), Ok(()));
        assert!(check_together(&[export.clone(), export.clone()]).unwrap_err().contains("\"a\""));
        let many: Vec<_> = (0..501).map(|at| Export { name: at.to_string(), ..export.clone() }).collect();
        assert!(check_together(&many).unwrap_err().contains("500"));
    }
}
