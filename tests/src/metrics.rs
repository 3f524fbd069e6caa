//! What a `/metrics` page says, in Prometheus' text format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use crate::Fetch;

/// One line of the page.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name, with `_bucket`, `_sum` or `_count` for a histogram's.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// All samples of one moment.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    samples: Vec<Sample>,
    families: BTreeSet<String>,
}

impl Metrics {
    /// Fetches and reads `http://ADDRESS/metrics`.
    pub async fn fetch(from: SocketAddr) -> Result<Self> {
        let page = Fetch::get("/metrics").plain(from).await?.success()?;
        Self::parse(&page.text())
    }

    /// Reads a page.
    pub fn parse(page: &str) -> Result<Self> {
        let lines = page.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let samples = lines.map(|line| sample(line).with_context(|| format!("not a sample: {line}")));
        let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
        Ok(Self { samples: samples.collect::<Result<_>>()?, families: types.map(str::to_owned).collect() })
    }

    /// The families that the page declares (its `# TYPE` lines) whose names begin with `prefix`.
    pub fn families(&self, prefix: &str) -> BTreeSet<String> {
        self.families.iter().filter(|family| family.starts_with(prefix)).cloned().collect()
    }

    /// The samples of a family, a histogram's buckets, sum and count among them.
    pub fn of_family(&self, family: &str) -> impl Iterator<Item = &Sample> {
        let suffixes = ["", "_bucket", "_sum", "_count"];
        self.samples
            .iter()
            .filter(move |sample| sample.name.strip_prefix(family).is_some_and(|suffix| suffixes.contains(&suffix)))
    }

    /// All samples.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// The sum of the samples of that name which carry (at least) these labels; 0 when there is none, as a counter that never
    /// moved may not be there yet.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let carries = |sample: &&Sample| {
            sample.name == name
                && labels.iter().all(|(label, value)| sample.labels.get(*label).is_some_and(|found| found == value))
        };
        self.samples.iter().filter(carries).map(|sample| sample.value).sum()
    }

    /// The names of all metrics on the page, each once, sorted.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.samples.iter().map(|sample| sample.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn sample(line: &str) -> Result<Sample> {
    let (name, rest) = line.split_at(line.find(['{', ' ']).context("no value")?);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_whitespace().next().context("no value")?;
    Ok(Sample { name: name.to_owned(), labels, value: value.parse()? })
}

/// Reads `name="value",…}`; gives what follows the brace too.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"").context("a label has no value")?;
        let (value, after) = quoted_value(quoted).context("a label's value does not end")?;
        labels.insert(name.to_owned(), value);
        rest = after;
    }
}

fn quoted_value(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    loop {
        match characters.next()? {
            (end, '"') => return Some((value, &text[end + 1..])),
            (_, '\\') => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            (_, character) => value.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{code="200",path="/a \"b\", {c}\n"} 3
requests_total{code="500",path="/"} 1 1700000000000

up 1
latency_bucket{le="+Inf"} 4e0
last +Inf
"#;

    #[test]
    fn samples_are_read_with_labels_escapes_and_timestamps() -> Result<()> {
        let metrics = Metrics::parse(PAGE)?;
        assert_eq!(metrics.names(), ["last", "latency_bucket", "requests_total", "up"]);
        assert_eq!(metrics.families("req").into_iter().collect::<Vec<_>>(), ["requests_total"]);
        assert_eq!((metrics.of_family("latency").count(), metrics.of_family("requests").count()), (1, 0));
        assert_eq!(metrics.sum("requests_total", &[]), 4.0);
        assert_eq!(metrics.sum("requests_total", &[("code", "500")]), 1.0);
        assert_eq!(metrics.sum("missing_total", &[]), 0.0);
        assert_eq!(metrics.samples()[0].labels["path"], "/a \"b\", {c}\n");
        assert_eq!(metrics.sum("last", &[]), f64::INFINITY);
        Ok(())
    }

    #[test]
    fn a_broken_page_is_an_error_that_shows_the_line() {
        for broken in ["novalue", "x{a=\"1\" 2", "x{a} 1", "x one"] {
            let error = Metrics::parse(broken).unwrap_err().to_string();
            assert!(error.contains(broken), "{error}");
        }
    }
}
