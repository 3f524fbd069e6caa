//! `accept`, `deny`, `delete`: what an administrator decides about clusters.

use certs::ClusterName;
use clap::Args;
use registry::api::ClusterView;

use crate::{
    api::{Api, CallError},
    failure::{Failure, complain},
    output::print,
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy accept edge-1 edge-2")]
pub(crate) struct Accept {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ClusterName>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy deny edge-1\n\nTo let it in again: cluster-proxy accept edge-1")]
pub(crate) struct Deny {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ClusterName>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy delete edge-1\n\nIts agents must join again to come back.")]
pub(crate) struct Delete {
    #[arg(required = true, value_name = "NAME")]
    names: Vec<ClusterName>,
}

impl Accept {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        each(&self.names, "accepted", async |name| decide(api, name, "accept").await).await
    }
}

impl Deny {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        each(&self.names, "denied", async |name| decide(api, name, "deny").await).await
    }
}

impl Delete {
    pub(crate) async fn run(&self, api: &Api) -> Result<(), Failure> {
        each(&self.names, "deleted", async |name| api.delete(&format!("/v1/clusters/{name}")).await).await
    }
}

async fn decide(api: &Api, name: &ClusterName, decision: &str) -> Result<(), CallError> {
    let decided: Result<ClusterView, CallError> = api.post(&format!("/v1/clusters/{name}/{decision}"), &()).await;
    decided.map(drop)
}

/// One name's failure does not keep the others from being decided; the last failure is the command's.
async fn each(
    names: &[ClusterName],
    done: &str,
    decide: impl AsyncFn(&ClusterName) -> Result<(), CallError>,
) -> Result<(), Failure> {
    let mut failed: Option<Failure> = None;
    for name in names {
        match decide(name).await {
            Ok(()) => print(format!("managedcluster/{name} {done}"))?,
            Err(error) => {
                if let Some(earlier) = failed.replace(error.into()) {
                    complain(&earlier.line());
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}
