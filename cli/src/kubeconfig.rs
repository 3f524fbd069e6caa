//! `kubeconfig`: a kubectl context for each cluster, through the hub's kube gateway.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use certs::{ClusterName, write_secret};
use clap::Args;
use registry::AcceptanceStatus;
use serde_json::Value;

use crate::{
    api::{Api, CallError},
    cluster_view::{self, ClusterList, ClusterView},
    config,
    credentials::Located,
    failure::{Exit, Failure},
    output::{note, print},
};

mod contexts;
mod document;
mod file;

use contexts::{Contexts, PathError};
use document::Document;
use file::{FileError, LockedFile};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy kubeconfig --all --merge\n  \
    kubectl --context edge-1 get pods\n  \
    cluster-proxy kubeconfig -c edge-1 -c edge-2 --prefix work- --merge\n  \
    cluster-proxy kubeconfig --set production --output production.kubeconfig\n\n\
    The file holds no secret: kubectl gets a certificate for an hour from 'cluster-proxy credential'. With --merge all \
    that is in the file stays, and so does the current context; only comments are lost.")]
pub(crate) struct Kubeconfig {
    #[command(flatten)]
    chosen: Chosen,
    /// Prefix for the names of the contexts
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,
    /// Add the contexts to the first file of KUBECONFIG, or to ~/.kube/config
    #[arg(long)]
    merge: bool,
    /// Write a new file [default: standard output]
    #[arg(long, short, value_name = "FILE", conflicts_with = "merge")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
struct Chosen {
    /// A cluster; may be given several times
    #[arg(long, short, value_name = "CLUSTER")]
    cluster: Vec<ClusterName>,
    /// A cluster set, with all its clusters; may be given several times
    #[arg(long, value_name = "SET")]
    set: Vec<String>,
    /// Every cluster that you may see
    #[arg(long)]
    all: bool,
}

/// Why there is no kubeconfig.
#[derive(Debug, thiserror::Error)]
enum KubeconfigError {
    #[error("there is no cluster {0} that you may see")]
    UnknownCluster(ClusterName),
    #[error("{0:?} is no name of a cluster set")]
    SetName(String),
    #[error("no cluster is chosen: you may see no accepted cluster there")]
    None,
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot determine the path of this program")]
    Program(#[source] io::Error),
    #[error(transparent)]
    Path(PathError),
}

impl Kubeconfig {
    pub(crate) async fn run(&self, located: &Located) -> Result<(), Failure> {
        let chosen = self.chosen.clusters(&Api::of(located)?).await?;
        let count = chosen.len();
        let contexts = contexts(located, &self.prefix, chosen)?;
        if self.merge {
            let file = LockedFile::lock(&config::kubeconfig().ok_or(FileError::Nowhere)?).await?;
            file.change(|document| document.merge(&contexts))?;
            note(format!("{count} {} in {}", if count == 1 { "context" } else { "contexts" }, file.path().display()));
            return print_names(&contexts);
        }
        let text = fresh(&contexts);
        match &self.output {
            None => print(text.trim_end()),
            Some(path) => {
                write_new(path, &text)?;
                print(format!(
                    "export KUBECONFIG={}",
                    fs::canonicalize(path).unwrap_or_else(|_| path.clone()).display()
                ))
            }
        }
    }
}

/// A kubeconfig for one cluster alone. It holds no secret.
pub(crate) fn of_one(located: &Located, cluster: &ClusterName) -> Result<String, Failure> {
    Ok(fresh(&contexts(located, "", vec![cluster.clone()])?))
}

fn fresh(contexts: &Contexts) -> String {
    let mut document = Document::new();
    // In a new document no name is taken, but twice by the same clusters, which lead to the same place.
    let _ = document.merge(contexts);
    document.to_yaml()
}

/// By which kubectl comes back to this program.
fn contexts(located: &Located, prefix: &str, clusters: Vec<ClusterName>) -> Result<Contexts, KubeconfigError> {
    let program = std::env::current_exe().map_err(KubeconfigError::Program)?;
    Contexts::new(located, &program, prefix, clusters).map_err(KubeconfigError::Path)
}

/// What `kubectl --context` takes, one a line.
fn print_names(contexts: &Contexts) -> Result<(), Failure> {
    print(contexts.names().map(|(name, _)| name).collect::<Vec<_>>().join("\n"))
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    if fs::exists(path).unwrap_or(true) {
        let failure = Failure::new(Exit::Usage, KubeconfigError::Exists(path.to_owned()));
        return Err(failure.next(format!(
            "name another, or add to it: KUBECONFIG={} cluster-proxy kubeconfig --merge",
            path.display()
        )));
    }
    write_secret(path, text)
        .map_err(|source| Failure::new(Exit::Other, KubeconfigError::Write { path: path.to_owned(), source }))
}

impl Chosen {
    /// The clusters that are meant, of those that the user may see.
    async fn clusters(&self, api: &Api) -> Result<Vec<ClusterName>, Failure> {
        let visible = cluster_view::list(api).await?;
        let mut sets = Vec::new();
        for name in &self.set {
            sets.push(set(api, name).await?);
        }
        Ok(self.choose(&visible, &sets)?)
    }

    /// Those named, whatever their state; of sets and of all, those that are accepted.
    fn choose(&self, visible: &ClusterList, sets: &[Value]) -> Result<Vec<ClusterName>, KubeconfigError> {
        let name = |view: &ClusterView| view.cluster.name().clone();
        let mut chosen = BTreeSet::new();
        for cluster in &self.cluster {
            let known = visible.items.iter().any(|view| view.cluster.name() == cluster);
            chosen.extend(known.then(|| cluster.clone()));
            if !known {
                return Err(KubeconfigError::UnknownCluster(cluster.clone()));
            }
        }
        let accepted = visible.items.iter().filter(|view| view.cluster.acceptance() == AcceptanceStatus::Accepted);
        chosen.extend(accepted.filter(|view| self.all || sets.iter().any(|set| view.is_in(set))).map(name));
        if chosen.is_empty() { Err(KubeconfigError::None) } else { Ok(chosen.into_iter().collect()) }
    }
}

/// A cluster set as the hub has it.
async fn set(api: &Api, name: &str) -> Result<Value, Failure> {
    // It becomes part of a path.
    let is_name = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte));
    if name.is_empty() || !is_name {
        return Err(KubeconfigError::SetName(name.to_owned()).into());
    }
    let path = format!("/apis/cluster.open-cluster-management.io/v1beta2/managedclustersets/{name}");
    let set: Result<Value, CallError> = api.get(&path).await;
    Ok(set?)
}

impl From<KubeconfigError> for Failure {
    fn from(error: KubeconfigError) -> Self {
        let (exit, next) = match &error {
            KubeconfigError::UnknownCluster(_) | KubeconfigError::None => {
                (Exit::Other, "'cluster-proxy clusters' lists them")
            }
            KubeconfigError::SetName(_) | KubeconfigError::Exists(_) => (Exit::Usage, ""),
            KubeconfigError::Write { .. } | KubeconfigError::Program(_) | KubeconfigError::Path(_) => (Exit::Other, ""),
        };
        Self::new(exit, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use registry::{ManagedCluster, api::TunnelView};
    use serde_json::json;

    use super::*;

    fn visible() -> ClusterList {
        let cluster = |name: &str, set: &str, accepted| {
            let mut cluster = ManagedCluster::new(name.parse().unwrap(), "u".into(), Timestamp::UNIX_EPOCH);
            cluster.metadata.labels = [("cluster.open-cluster-management.io/clusterset".into(), set.into())].into();
            cluster.spec.hub_accepts_client = accepted;
            ClusterView::new(cluster, TunnelView::default(), Value::Null)
        };
        ClusterList { items: vec![cluster("a", "x", true), cluster("b", "y", true), cluster("c", "x", false)] }
    }

    fn chosen(cluster: &[&str], sets: &[&str], all: bool) -> Result<String, String> {
        let cluster = cluster.iter().map(|name| name.parse().unwrap()).collect();
        let sets: Vec<Value> = sets.iter().map(|name| json!({"metadata": {"name": name}})).collect();
        let names = Chosen { cluster, set: Vec::new(), all }.choose(&visible(), &sets);
        let names = names.map_err(|error| error.to_string())?;
        Ok(names.iter().map(AsRef::as_ref).collect::<Vec<&str>>().join(" "))
    }

    #[test]
    fn clusters_are_chosen_by_name_by_set_and_all_without_twice() {
        assert_eq!(chosen(&["b", "a", "b"], &[], false).unwrap(), "a b");
        assert_eq!(chosen(&["b"], &["x", "y"], false).unwrap(), "a b");
        assert_eq!(chosen(&[], &["x"], false).unwrap(), "a");
        assert_eq!(chosen(&[], &[], true).unwrap(), "a b");
        assert_eq!(chosen(&["c"], &[], true).unwrap(), "a b c", "who names one that waits, means it");
    }

    #[test]
    fn a_cluster_that_is_not_there_or_nobodys_is_an_error() {
        assert_eq!(chosen(&["a", "d"], &[], true).unwrap_err(), "there is no cluster d that you may see");
        assert!(chosen(&[], &["z"], false).unwrap_err().contains("no cluster is chosen"));
    }
}
