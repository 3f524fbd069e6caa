//! The contexts of the hub's clusters: what a kubeconfig says of them, and by which command kubectl gets its credentials.

use std::path::{Path, PathBuf};

use certs::ClusterName;
use serde_json::{Value, json};

use crate::credentials::Located;

/// What every name of ours in a list of a kubeconfig begins with, but for those of contexts.
const OURS: &str = "cluster-proxy";

/// Contexts of one user at one hub.
#[derive(Clone, Debug)]
pub(crate) struct Contexts {
    /// `host:port`
    hub: String,
    /// `https://host:port`
    api: String,
    user: String,
    /// This program, by its absolute path.
    command: String,
    /// The folder of the user's credentials, by its absolute path.
    folder: String,
    /// Before each cluster's name in its context's.
    prefix: String,
    clusters: Vec<ClusterName>,
}

/// A path that a kubeconfig cannot name: it is no UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a kubeconfig cannot name the path {}: move it to one that is text", .0.display())]
pub(crate) struct PathError(PathBuf);

/// A name in one of a kubeconfig's lists, and what it stands for.
pub(crate) type Named = (String, Value);

impl Contexts {
    pub(crate) fn new(
        located: &Located,
        command: &Path,
        prefix: &str,
        clusters: Vec<ClusterName>,
    ) -> Result<Self, PathError> {
        let text = |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| PathError(path.to_owned()));
        let credentials = &located.credentials;
        let api = credentials.hub.api.trim_end_matches('/').to_owned();
        Ok(Self {
            hub: api.trim_start_matches("https://").to_owned(),
            api,
            user: credentials.hub.user.to_string(),
            command: text(command)?,
            folder: text(&located.folder)?,
            prefix: prefix.to_owned(),
            clusters,
        })
    }

    /// The context's name, and the name of the cluster's entry, of each cluster.
    pub(crate) fn names(&self) -> impl Iterator<Item = (String, String)> {
        self.clusters.iter().map(|cluster| (format!("{}{cluster}", self.prefix), self.entry(cluster)))
    }

    /// The entries of the list `clusters`.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = Named> {
        // The file, and not what is in it: it follows when the hub's CA is rotated.
        let ca = format!("{}/ca.crt", self.folder);
        self.clusters.iter().map(move |cluster| {
            let server = format!("{}/clusters/{cluster}", self.api);
            (self.entry(cluster), json!({"server": server, "certificate-authority": ca}))
        })
    }

    /// The one entry of the list `users`.
    pub(crate) fn user(&self) -> Named {
        let user = json!({"exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": self.command,
            "args": ["credential", "--credentials", self.folder],
            "interactiveMode": "Never",
            "provideClusterInfo": false,
            "installHint": "Credentials come from cluster-proxy, which has been moved or removed; \
                            write the kubeconfig again with 'cluster-proxy kubeconfig'.",
        }});
        (format!("{OURS}/{}/{}", self.hub, self.user), user)
    }

    fn entry(&self, cluster: &ClusterName) -> String {
        format!("{OURS}/{}/{cluster}", self.hub)
    }
}
