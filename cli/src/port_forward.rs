//! `port-forward`: local ports that lead to a service in a cluster.

use clap::Args;

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  cluster-proxy port-forward -c edge-1 grafana.monitoring 3000:80")]
pub(crate) struct PortForward {}

impl PortForward {
    pub(crate) async fn run(&self, _: &certs::Credentials) -> Result<(), crate::failure::Failure> { Ok(()) }
}
