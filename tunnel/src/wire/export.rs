//! What an agent exports for Prometheus to scrape, and which exports are good. Both ends hold to the same rules.

use std::collections::BTreeMap;

use prost::Message;

/// The most exports of one agent.
pub const MAX_EXPORTS: usize = 500;

/// What they may take on the wire together: with the rest of a message less than [`crate::MESSAGE_LIMIT`].
const EXPORTS_BYTES: usize = 48 * 1024;

const MAX_LABELS: usize = 32;
/// A service and its namespace.
const LONGEST_NAME: usize = 127;
const LONGEST_HOST: usize = 253;
const LONGEST_JOB: usize = 128;
const LONGEST_PATH: usize = 512;
const LONGEST_LABEL_NAME: usize = 64;
const LONGEST_LABEL_VALUE: usize = 256;

/// Labels that the hub alone sets: a spoke must not pass its metrics off as another's.
const RESERVED: [&str; 3] = ["cluster", "job", "set"];

/// A service that Prometheus is to scrape through the hub.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Message)]
pub struct Export {
    /// What the spoke calls it.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Host name or IPv4 address; resolved in the spoke.
    #[prost(string, tag = "2")]
    pub host: String,
    /// TCP port, 1..=65535.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// `http` or `https`.
    #[prost(string, tag = "4")]
    pub scheme: String,
    #[prost(string, tag = "5")]
    pub metrics_path: String,
    /// Prometheus' label `job`.
    #[prost(string, tag = "6")]
    pub job: String,
    /// Labels of every sample.
    #[prost(btree_map = "string, string", tag = "7")]
    pub labels: BTreeMap<String, String>,
}

/// All that an agent exports from now on.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Exports {
    #[prost(message, repeated, tag = "1")]
    pub items: Vec<Export>,
}

/// Why an export is not good.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    #[error("the name is not 1 to {LONGEST_NAME} letters, digits, '-', '_' or '.'")]
    Name,
    #[error("the target's host is no host name and no IPv4 address; an IPv6 address needs a name in the spoke")]
    Host,
    #[error("the target's port is not one of 1 to 65535")]
    Port,
    #[error("the scheme is neither 'http' nor 'https'")]
    Scheme,
    #[error(
        "the metrics path does not begin with '/', is longer than {LONGEST_PATH} bytes, or has other characters than a path"
    )]
    MetricsPath,
    #[error("the job is empty or longer than {LONGEST_JOB} bytes")]
    Job,
    #[error("there are more than {MAX_LABELS} labels")]
    Labels,
    #[error(
        "{0:?} is no label: use letters, digits and '_', no digit first, not '__' first, at most {LONGEST_LABEL_NAME}"
    )]
    LabelName(String),
    #[error("the label {0:?} is the hub's to set; use another name")]
    ReservedLabel(String),
    #[error("the value of the label {0:?} is longer than {LONGEST_LABEL_VALUE} bytes")]
    LabelValue(String),
}

impl Export {
    /// Whether the export is good.
    pub fn check(&self) -> Result<(), ExportError> {
        let good = |good: bool, error: ExportError| if good { Ok(()) } else { Err(error) };
        good(is_name(&self.name), ExportError::Name)?;
        good(is_host(&self.host), ExportError::Host)?;
        good((1..=65_535).contains(&self.port), ExportError::Port)?;
        good(matches!(&*self.scheme, "http" | "https"), ExportError::Scheme)?;
        good(is_path(&self.metrics_path), ExportError::MetricsPath)?;
        good((1..=LONGEST_JOB).contains(&self.job.len()), ExportError::Job)?;
        good(self.labels.len() <= MAX_LABELS, ExportError::Labels)?;
        self.labels.iter().try_for_each(|(name, value)| check_label(name, value))
    }
}

/// How many of `exports`, from the first on, an agent may have.
pub fn within_limits(exports: &[Export]) -> usize {
    let mut bytes = 0;
    let fits = |export: &&Export| {
        // A tag and a length of two bytes, or three.
        bytes += export.encoded_len() + 4;
        bytes <= EXPORTS_BYTES
    };
    exports.iter().take(MAX_EXPORTS).take_while(fits).count()
}

fn check_label(name: &str, value: &str) -> Result<(), ExportError> {
    let shown = || name.chars().take(LONGEST_LABEL_NAME).collect();
    if !is_label_name(name) {
        return Err(ExportError::LabelName(shown()));
    }
    if RESERVED.contains(&name) {
        return Err(ExportError::ReservedLabel(shown()));
    }
    if value.len() > LONGEST_LABEL_VALUE {
        return Err(ExportError::LabelValue(shown()));
    }
    Ok(())
}

fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

fn is_host(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
    };
    text.len() <= LONGEST_HOST && text.split('.').all(label)
}

/// Prometheus escapes a `?`, so that a query would not be one.
fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= LONGEST_PATH
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#\"<>\\^`{|}".contains(&byte))
}

/// As Prometheus' data model has it; names with `__` in front are Prometheus' own.
fn is_label_name(name: &str) -> bool {
    let first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.len() <= LONGEST_LABEL_NAME
        && name.bytes().next().is_some_and(first)
        && name.bytes().all(|byte| first(byte) || byte.is_ascii_digit())
        && !name.starts_with("__")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn good() -> Export {
        Export {
            name: "node".into(),
            host: "node-exporter.monitoring".into(),
            port: 9100,
            scheme: "http".into(),
            metrics_path: "/metrics".into(),
            job: "node".into(),
            labels: BTreeMap::from([("team".into(), "a \"b\"".into())]),
        }
    }

    #[test]
    fn what_breaks_a_rule_is_told_apart() {
        assert_eq!(good().check(), Ok(()));
        let with = |change: fn(&mut Export)| {
            let mut export = good();
            change(&mut export);
            export.check().unwrap_err()
        };
        assert_eq!(with(|export| export.name = "a b".into()), ExportError::Name);
        assert_eq!(with(|export| export.name.clear()), ExportError::Name);
        for host in ["", "::1", "a..b", "A", "web/x", "a b"] {
            let error = Export { host: host.into(), ..good() }.check();
            assert_eq!(error, Err(ExportError::Host), "{host}");
        }
        assert_eq!(with(|export| export.port = 0), ExportError::Port);
        assert_eq!(with(|export| export.port = 65_536), ExportError::Port);
        assert_eq!(with(|export| export.scheme = "ftp".into()), ExportError::Scheme);
        for path in ["", "metrics", "/a?b", "/a b", "/é"] {
            let error = Export { metrics_path: path.into(), ..good() }.check();
            assert_eq!(error, Err(ExportError::MetricsPath), "{path}");
        }
        assert_eq!(with(|export| export.job.clear()), ExportError::Job);
        assert_eq!(with(|export| export.job = "x".repeat(129)), ExportError::Job);
    }

    #[test]
    fn labels_are_prometheus_and_the_hubs_own_are_reserved() {
        let label = |name: &str, value: &str| check_label(name, value);
        for name in ["team", "_x", "Team_2", "instance"] {
            assert_eq!(label(name, ""), Ok(()), "{name}");
        }
        for name in ["", "2x", "a-b", "__address__", "a.b", "é", &"x".repeat(65)] {
            assert!(matches!(label(name, "x"), Err(ExportError::LabelName(_))), "{name}");
        }
        for name in ["cluster", "set", "job"] {
            assert!(matches!(label(name, "x"), Err(ExportError::ReservedLabel(_))), "{name}");
        }
        assert!(matches!(label("x", &"y".repeat(257)), Err(ExportError::LabelValue(_))));
        let labels = (0..33).map(|number| (format!("l{number}"), String::new())).collect();
        assert_eq!(Export { labels, ..good() }.check(), Err(ExportError::Labels));
    }

    #[test]
    fn an_agent_has_as_many_exports_as_fit_a_message() {
        assert_eq!(within_limits(&vec![good(); 600]), MAX_EXPORTS);
        let large = Export { labels: (0..10).map(|at| (format!("l{at}"), "x".repeat(200))).collect(), ..good() };
        let many = vec![large; 600];
        let fit = within_limits(&many);
        assert!((10..100).contains(&fit), "{fit}");
        let message = Exports { items: many[..fit].to_vec() };
        assert!(message.encoded_len() + 1024 < crate::MESSAGE_LIMIT, "{}", message.encoded_len());
    }

    proptest! {
        #[test]
        fn an_export_survives_the_wire(name in ".{0,70}", port: u32, labels in prop::collection::btree_map(".{0,9}", ".{0,9}", 0..5)) {
            let export = Export { name, port, labels, ..good() };
            prop_assert_eq!(Export::decode(&*export.encode_to_vec()).unwrap(), export.clone());
            let _ = export.check();
        }
    }
}
