//! `init`: a kubeconfig, so that kubectl is the administrator's tool from the first minute.

use std::{fs, io, path::PathBuf};

use certs::{Credentials, write_secret};
use clap::Args;
use secrecy::ExposeSecret;

use crate::{
    failure::{Exit, Failure},
    output::{note, print},
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    cluster-proxy init --kubeconfig hub.kubeconfig\n  \
    kubectl --kubeconfig hub.kubeconfig get managedclusters\n\n\
    The file holds a private key: it is made its owner's alone (0600).")]
pub(crate) struct Init {
    /// Where the kubeconfig goes
    #[arg(long, value_name = "FILE", default_value = "hub.kubeconfig")]
    kubeconfig: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    overwrite: bool,
}

/// The kubeconfig cannot be written.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Init {
    pub(crate) fn run(&self, credentials: &Credentials) -> Result<(), Failure> {
        let path = &self.kubeconfig;
        if !self.overwrite && fs::exists(path).unwrap_or(true) {
            let failure = Failure::new(Exit::Usage, InitError::Exists(path.clone()));
            return Err(failure.next("name another with --kubeconfig FILE, or replace it with --overwrite"));
        }
        write_secret(path, credentials.kubeconfig().expose_secret())
            .map_err(|source| Failure::new(Exit::Other, InitError::Write { path: path.clone(), source }))?;
        note("kubectl administers the hub with:");
        print(format!("export KUBECONFIG={}", fs::canonicalize(path).unwrap_or_else(|_| path.clone()).display()))
    }
}
