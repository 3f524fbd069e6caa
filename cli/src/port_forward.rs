//! `port-forward`: local ports that lead to a service in a cluster, with kubectl's habits.

use std::sync::Arc;

use certs::{ClusterName, Credentials};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    failure::{Failure, complain},
    output::{note, print},
};

mod entry;
mod listen;
mod pair;
mod relay;
mod serve;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use entry::Entry;
pub(crate) use listen::{Address, bind};
pub(crate) use pair::Pair;
pub(crate) use serve::{Events, serve};
pub(crate) use target::{Target, TargetError};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy port-forward -c edge-1 grafana.monitoring 3000:80\n  \
    cluster-proxy port-forward -c edge-1 10.0.0.7 5432 :9090\n  \
    cluster-proxy port-forward -c edge-1 kube-api 6443\n\n\
    The ports stay while the hub or the cluster's agent is away; connections opened meanwhile are tried for 5 seconds.")]
pub(crate) struct PortForward {
    /// The cluster that the target is in
    #[arg(long, short, value_name = "CLUSTER")]
    cluster: ClusterName,
    /// Host name or address, resolved in the cluster; or kube-api, the cluster's Kubernetes API
    #[arg(value_name = "TARGET")]
    target: Target,
    /// LOCAL:REMOTE; PORT for the same on both sides; :REMOTE for any free local port
    #[arg(required = true, value_name = "LOCAL:REMOTE")]
    ports: Vec<Pair>,
    /// Where to listen: localhost, or addresses of this machine, with commas between
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "localhost")]
    address: Vec<Address>,
}

impl PortForward {
    /// Ends well at Ctrl-C, and never otherwise.
    pub(crate) async fn run(&self, credentials: &Credentials) -> Result<(), Failure> {
        let entry = Entry::new(credentials, &self.cluster)?;
        // Before the first port: a signal must find its handler.
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let mut locals = Vec::new();
        for pair in &self.ports {
            locals.extend(bind(&self.address, *pair)?);
        }
        for local in &locals {
            print(format!("Forwarding from {} -> {}", local.address, local.remote))?;
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let serving = serve(locals, Arc::new(entry), self.target.clone(), tell(), &tasks, &stop);
        tokio::select! {
            () = serving => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        Ok(())
    }
}

/// What the person at the terminal is told.
fn tell() -> Events {
    Events {
        accepted: |local| note(format!("Handling connection for {}", local.port())),
        failed: |local, failure| complain(&format!("connection to {} reset: {}", local.port(), failure.line())),
    }
}
