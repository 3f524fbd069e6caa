//! `port-forward`: local ports that lead to a service in a cluster, with kubectl's habits.

use std::{path::PathBuf, sync::Arc};

use certs::ClusterName;
use clap::Args;
use futures_util::future::join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{api::Api, credentials::Located, failure::Failure, output::print};

mod browser;
mod entry;
mod forwards;
mod listen;
mod lookup;
mod pair;
mod place;
mod relay;
mod reporter;
mod serve;
mod target;
#[cfg(test)]
mod tests;
mod traffic;

pub(crate) use entry::Entry;
pub(crate) use listen::{Address, bind};
pub(crate) use pair::Pair;
pub(crate) use reporter::Reporter;
pub(crate) use serve::{Service, serve};
pub(crate) use target::{Target, TargetError};

use forwards::{Forward, ForwardError};
use listen::Local;
use lookup::{Found, Lookup};
use pair::{AskedPair, RemotePort};
use place::Place;
use reporter::PortLine;
use traffic::Traffic;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy port-forward -c edge-1 svc/grafana.monitoring 3000:80 --open\n  \
    cluster-proxy port-forward -c edge-1 pod/db-0 -n data 5432\n  \
    cluster-proxy port-forward -c edge-1 svc/grafana -n monitoring 3000:http\n  \
    cluster-proxy port-forward -c edge-1 10.0.0.7 5432 :9090\n  \
    cluster-proxy port-forward -c edge-1 kube-api 6443\n  \
    cluster-proxy port-forward --file forwards.toml\n\n\
    A file has, for each place:\n  \
    [[forward]]\n  \
    cluster = \"edge-1\"\n  \
    target = \"svc/grafana.monitoring\"\n  \
    ports = [\"3000:80\"]\n\n\
    The ports stay while the hub or the cluster's agent is away; connections opened meanwhile are tried for 5 seconds. \
    Pods, deployments and names of ports are looked up once, through the hub's kube gateway; services are DNS names.")]
pub(crate) struct PortForward {
    /// The cluster that the target is in
    #[arg(long, short, value_name = "CLUSTER", required_unless_present = "file")]
    cluster: Option<ClusterName>,
    /// svc/NAME[.NAMESPACE], pod/NAME, deployment/NAME; a host name or address, resolved in the cluster, also HOST:PORT;
    /// or kube-api, the cluster's Kubernetes API
    #[arg(value_name = "TARGET", required_unless_present = "file")]
    target: Option<Place>,
    /// LOCAL:REMOTE; PORT for the same on both sides; :REMOTE for any free local port. Remote ports of services and pods
    /// may be names
    #[arg(value_name = "LOCAL:REMOTE")]
    ports: Vec<AskedPair>,
    /// The namespace of a service, pod or deployment [default: default]
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Forward to all places that a TOML file names
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cluster", "target", "namespace"])]
    file: Option<PathBuf>,
    /// Where to listen: localhost, or addresses of this machine, with commas between
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', default_value = "localhost")]
    address: Vec<Address>,
    /// Open the first port in the browser (BROWSER, or the desktop's)
    #[arg(long)]
    open: bool,
}

/// What is served, and what is shown of it.
struct Forwarding {
    forward: Forward,
    entry: Arc<Entry>,
    target: Target,
    /// The local ports of each pair.
    locals: Vec<Vec<Local>>,
}

impl PortForward {
    /// Ends well at Ctrl-C, and never otherwise.
    pub(crate) async fn run(&self, located: &Located) -> Result<(), Failure> {
        let forwards = self.forwards()?;
        // Before the first port: a signal must find its handler.
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let several = forwards.len() > 1;
        let mut forwardings = Vec::new();
        for forward in forwards {
            tokio::select! {
                found = self.prepare(located, forward) => forwardings.push(found?),
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            }
        }
        for Forwarding { forward, locals, .. } in &forwardings {
            for Local { address, remote, .. } in locals.iter().flatten() {
                let place =
                    if several { format!(" ({} in {})", forward.place, forward.cluster) } else { String::new() };
                print(format!("Forwarding from {address} -> {remote}{place}"))?;
            }
        }
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let reporter = Reporter::of_process();
        if self.open {
            open_first(&forwardings, &reporter, &tasks, &stop);
        }
        let (services, shown) = services(forwardings, &reporter);
        tokio::select! {
            _ = join_all(services.into_iter().map(|(locals, service)| serve(locals, service, &tasks, &stop))) => {}
            () = reporter.show(shown) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        Ok(())
    }

    fn forwards(&self) -> Result<Vec<Forward>, Failure> {
        match (&self.file, &self.cluster, &self.target) {
            (Some(file), _, _) => Ok(forwards::read(file)?),
            (None, Some(cluster), Some(place)) => {
                let pairs = self.ports.clone();
                Ok(vec![Forward::new(cluster.clone(), place.clone(), self.namespace.as_deref(), pairs)?])
            }
            // The command line demands them.
            (None, _, _) => Err(ForwardError::NoPorts(String::new()).into()),
        }
    }

    /// Finds the place and binds its ports.
    async fn prepare(&self, located: &Located, forward: Forward) -> Result<Forwarding, Failure> {
        let api = Api::of(located)?;
        let lookup = Lookup { api: &api, cluster: &forward.cluster };
        let by_name = forward.pairs.iter().any(|pair| matches!(pair.remote, RemotePort::Name(_)));
        let found: Found = lookup.find(&forward.place, by_name).await?;
        let mut locals = Vec::new();
        for pair in &forward.pairs {
            let remote = found.port(&forward.place, &pair.remote)?;
            locals.push(bind(&self.address, pair.with(remote))?);
        }
        let entry = Arc::new(Entry::of(located, &forward.cluster)?);
        Ok(Forwarding { forward, entry, target: found.target, locals })
    }
}

/// Each pair's ports with what serves them, and a line to show of each.
fn services(forwardings: Vec<Forwarding>, reporter: &Reporter) -> (Vec<(Vec<Local>, Service)>, Vec<PortLine>) {
    let (mut services, mut shown) = (Vec::new(), Vec::new());
    for Forwarding { forward, entry, target, locals } in forwardings {
        for locals in locals {
            let traffic = Arc::new(Traffic::default());
            if let Some(Local { address, remote, .. }) = locals.first() {
                let port = format!("{} {} {address} -> {remote}", forward.cluster, forward.place);
                shown.push(PortLine { port, traffic: traffic.clone() });
            }
            let (entry, target, reporter) = (entry.clone(), target.clone(), reporter.clone());
            services.push((locals, Service { entry, target, reporter, traffic }));
        }
    }
    (services, shown)
}

/// Opens the browser at the first port. It may run as long as it likes; the ports do not wait for it.
fn open_first(forwardings: &[Forwarding], reporter: &Reporter, tasks: &TaskTracker, stop: &CancellationToken) {
    let first = forwardings.iter().flat_map(|forwarding| forwarding.locals.iter().flatten()).next();
    let Some((address, remote)) = first.map(|local| (local.address, local.remote)) else { return };
    let (url, reporter, stop) = (browser::url(address, remote), reporter.clone(), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            opened = browser::open(&url) => {
                if let Err(error) = opened {
                    reporter.complain(&Failure::from(error).line());
                }
            }
            () = stop.cancelled() => {}
        }
    });
}
