//! What is to be forwarded: one place from the command line, or many from a file.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    str::FromStr,
};

use certs::ClusterName;
use serde::Deserialize;
use toml::Spanned;

use super::{
    pair::{AskedPair, LocalPort},
    place::{Place, PlaceError},
};
use crate::failure::{Exit, Failure};

/// A place in a cluster, and the ports that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    pub(crate) cluster: ClusterName,
    pub(crate) place: Place,
    pub(crate) pairs: Vec<AskedPair>,
}

/// Why a place cannot be forwarded to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForwardError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("{0} has no ports; write some behind it, like 3000:80")]
    NoPorts(String),
    #[error("{place} has a port of its own; write '{place}' alone, or the place without it and '{pairs}' behind it")]
    Port { place: String, pairs: String },
}

/// Why a file of forwards cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ForwardsError {
    #[error("cannot read {}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} line {line}: {why}", .path.display())]
    Line { path: PathBuf, line: usize, why: String },
    #[error("{} has no [[forward]]", .0.display())]
    Empty(PathBuf),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    forward: Vec<Spanned<Written>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    cluster: Spanned<String>,
    target: Spanned<String>,
    namespace: Option<String>,
    #[serde(default)]
    ports: Vec<Spanned<String>>,
}

impl Forward {
    /// A port behind the place is the same as one beside it.
    pub(crate) fn new(
        cluster: ClusterName,
        place: Place,
        namespace: Option<&str>,
        pairs: Vec<AskedPair>,
    ) -> Result<Self, ForwardError> {
        let mut place = place.in_namespace(namespace)?;
        let pairs = match (place.port.take(), pairs) {
            (None, pairs) if pairs.is_empty() => return Err(ForwardError::NoPorts(place.to_string())),
            (None, pairs) => pairs,
            (Some(remote), pairs) if pairs.is_empty() => vec![AskedPair { local: LocalPort::Same, remote }],
            (Some(remote), _) => {
                return Err(ForwardError::Port { place: place.to_string(), pairs: format!("LOCAL:{remote}") });
            }
        };
        Ok(Self { cluster, place, pairs })
    }
}

/// All that a file says.
pub(crate) fn read(path: &Path) -> Result<Vec<Forward>, ForwardsError> {
    let text = fs::read_to_string(path).map_err(|source| ForwardsError::File { path: path.to_owned(), source })?;
    let forwards = parse(&text).map_err(|(line, why)| ForwardsError::Line { path: path.to_owned(), line, why })?;
    if forwards.is_empty() { Err(ForwardsError::Empty(path.to_owned())) } else { Ok(forwards) }
}

/// The forwards, or the line that is wrong and why.
fn parse(text: &str) -> Result<Vec<Forward>, (usize, String)> {
    let document: Document = toml::from_str(text)
        .map_err(|error| (line(text, error.span().unwrap_or_default()), error.message().replace('\n', "; ")))?;
    document.forward.into_iter().map(|written| forward(text, written)).collect()
}

fn forward(text: &str, written: Spanned<Written>) -> Result<Forward, (usize, String)> {
    let whole = written.span();
    let Written { cluster, target, namespace, ports } = written.into_inner();
    let pairs = ports.iter().map(|port| read_at(text, port)).collect::<Result<_, _>>()?;
    let (cluster, place) = (read_at(text, &cluster)?, read_at(text, &target)?);
    Forward::new(cluster, place, namespace.as_deref(), pairs).map_err(|error| (line(text, whole), error.to_string()))
}

fn read_at<T: FromStr<Err: ToString>>(text: &str, written: &Spanned<String>) -> Result<T, (usize, String)> {
    written.get_ref().parse().map_err(|error: T::Err| (line(text, written.span()), error.to_string()))
}

fn line(text: &str, span: Range<usize>) -> usize {
    text.bytes().take(span.start).filter(|byte| *byte == b'\n').count() + 1
}

impl From<ForwardError> for Failure {
    fn from(error: ForwardError) -> Self {
        Self::new(Exit::Usage, error)
    }
}

impl From<ForwardsError> for Failure {
    fn from(error: ForwardsError) -> Self {
        let next = match &error {
            ForwardsError::Empty(_) => "write one: cluster = \"edge-1\", target = \"svc/web\", ports = [\"3000:80\"]",
            ForwardsError::File { .. } | ForwardsError::Line { .. } => "",
        };
        Self::new(Exit::Usage, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_many_forwards() {
        let text = "[[forward]]\ncluster = \"c1\"\ntarget = \"svc/grafana.monitoring\"\nports = [\"3000:80\", \":http\"]\n\n\
                    [[forward]]\ncluster = \"c2\"\ntarget = \"pod/db-0\"\nnamespace = \"data\"\nports = [\"5432\"]\n\
                    [[forward]]\ncluster = \"c2\"\ntarget = \"10.0.0.7:9090\"\n";
        let forwards = parse(text).unwrap();
        let shown: Vec<String> =
            forwards.iter().map(|forward| format!("{} {}", forward.cluster, forward.place)).collect();
        assert_eq!(shown, ["c1 svc/grafana.monitoring", "c2 pod/db-0", "c2 10.0.0.7:9090"]);
        assert_eq!(forwards[0].pairs.len(), 2);
        assert_eq!(forwards[2].pairs, ["9090".parse().unwrap()]);
    }

    #[test]
    fn an_error_names_its_line() {
        let good = "[[forward]]\ncluster = \"c1\"\n";
        let table = [
            ("target = \"web\"\nports = [\"80\",\n \"x:80\"]\n".to_owned(), 5, "\"x\" is no port"),
            ("target = \"cm/web\"\nports = [\"80\"]\n".to_owned(), 3, "svc/NAME"),
            ("target = \"web\"\n".to_owned(), 1, "has no ports"),
            ("target = \"web\"\nport = [\"80\"]\n".to_owned(), 4, "unknown field `port`"),
            ("target = \n".to_owned(), 3, ""),
            ("target = \"web\"\nnamespace = \"x\"\nports = [\"80\"]\n".to_owned(), 1, "no namespace"),
            ("target = \"web\"\nports = [80]\n".to_owned(), 4, "invalid type"),
        ];
        for (rest, line, why) in table {
            let error = parse(&format!("{good}{rest}")).unwrap_err();
            assert_eq!(error.0, line, "{rest}: {}", error.1);
            assert!(error.1.contains(why), "{rest}: {}", error.1);
        }
        assert_eq!(parse("[[forward]]\ncluster = \"A B\"\ntarget = \"web:80\"").unwrap_err().0, 2);
    }

    #[test]
    fn a_port_is_said_once() {
        let new = |place: &str, pairs: &[&str]| {
            let pairs = pairs.iter().map(|pair| pair.parse().unwrap()).collect();
            Forward::new("c".parse().unwrap(), place.parse().unwrap(), None, pairs)
        };
        assert!(new("web:80", &[]).is_ok() && new("web", &["80"]).is_ok());
        assert!(matches!(new("web", &[]), Err(ForwardError::NoPorts(_))));
        assert!(new("web:80", &["3000:80"]).unwrap_err().to_string().contains("'LOCAL:80'"));
    }
}
