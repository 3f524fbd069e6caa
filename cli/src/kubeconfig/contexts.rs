//! The contexts of the hub's clusters: what a kubeconfig says of them, and by which command kubectl gets its credentials.

use std::path::{Path, PathBuf};

use base64::{Engine, prelude::BASE64_STANDARD};
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
    ca_pem: String,
    user: String,
    /// This program, by its absolute path.
    command: PathBuf,
    /// The folder of the user's credentials, by its absolute path.
    folder: PathBuf,
    /// Before each cluster's name in its context's.
    prefix: String,
    clusters: Vec<ClusterName>,
}

/// A name in one of a kubeconfig's lists, and what it stands for.
pub(crate) type Named = (String, Value);

impl Contexts {
    pub(crate) fn new(located: &Located, command: &Path, prefix: &str, clusters: Vec<ClusterName>) -> Self {
        let credentials = &located.credentials;
        let api = credentials.hub.api.trim_end_matches('/').to_owned();
        Self {
            hub: api.trim_start_matches("https://").to_owned(),
            api,
            ca_pem: credentials.ca_pem.clone(),
            user: credentials.hub.user.to_string(),
            command: command.to_owned(),
            folder: located.folder.clone(),
            prefix: prefix.to_owned(),
            clusters,
        }
    }

    /// The context's name, and the name of the cluster's entry, of each cluster.
    pub(crate) fn names(&self) -> impl Iterator<Item = (String, String)> {
        self.clusters.iter().map(|cluster| (format!("{}{cluster}", self.prefix), self.entry(cluster)))
    }

    /// The entries of the list `clusters`.
    pub(crate) fn clusters(&self) -> impl Iterator<Item = Named> {
        let ca = BASE64_STANDARD.encode(&self.ca_pem);
        self.clusters.iter().map(move |cluster| {
            let server = format!("{}/clusters/{cluster}", self.api);
            (self.entry(cluster), json!({"server": server, "certificate-authority-data": ca}))
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
