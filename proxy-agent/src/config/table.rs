//! The agent's settings: their names, defaults, and how each is written.

use std::{net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use certs::{AgentName, ClusterName, Pin};
use clap::{Args, Parser};
use process::{LogFormat, settings::value};
use secrecy::SecretString;
use tunnel::{Mtu, TunnelMemory};

use crate::{
    gateway::{GatewayMode, GroupPattern},
    hub::HubAddress,
    policy::Rule,
    target::Target,
};

/// A shorter pause burdens the kube-apiserver.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// The agent of a spoke: keeps a tunnel open to its hubs, so that they reach the services of this cluster.
///
/// Every flag can also be set as `CLUSTER_PROXY_<FLAG>` in the environment, or in the TOML file given with --config, which is
/// read at the start. In that file are also the services that Prometheus is to scrape: tables 'export' with name and target, like
/// 'node-exporter.monitoring:9100', and job, labels, metrics-path and scheme where they differ from the usual.
#[derive(Debug, Parser)]
#[command(
    name = "proxy-agent",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = "First steps:\n  \
        on the hub    cluster-proxy join-command edge-1\n  \
        here          the line that it prints, which joins and goes on with 'run'"
)]
pub(super) struct Table {
    #[command(subcommand)]
    pub(super) command: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum Subcommand {
    /// Asks a hub to take this agent in, and keeps the certificate it gives.
    Join(Join),
    /// Keeps tunnels to the hub open and serves what comes through them, until SIGTERM.
    Run(Running),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    proxy-agent join --hub hub.example.com --pin sha256:… --token-file token --run --allow grafana.monitoring:80\n\n\
    'cluster-proxy join-command' on the hub prints the line with its values.")]
pub(super) struct Join {
    #[command(flatten)]
    pub(super) joining: Joining,
    #[command(flatten)]
    pub(super) running: Running,
}

/// What is for a join alone.
#[derive(Debug, Args)]
pub(super) struct Joining {
    /// The file that holds the token from 'cluster-proxy token create'; '-' reads it from standard input.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
    /// The token itself. Other users of the machine see command lines: prefer --token-file or CLUSTER_PROXY_TOKEN.
    #[arg(long, value_parser = value::secret)]
    pub(super) token: Option<SecretString>,
    /// The hub's pin, from 'cluster-proxy join-command'.
    #[arg(long, value_name = "sha256:…")]
    pub(super) pin: Option<Pin>,
    /// This cluster's name, unless the token is bound to one.
    #[arg(long, value_name = "NAME")]
    pub(super) cluster: Option<ClusterName>,
    /// This agent's name in the cluster [default: the host's name].
    #[arg(long, value_name = "NAME")]
    pub(super) agent: Option<AgentName>,
    /// How long to wait for the hub's administrator.
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = value::span)]
    pub(super) timeout: Duration,
    /// Go on with 'run' once joined.
    #[arg(long)]
    pub(super) run: bool,
}

#[derive(Debug, Parser)]
#[command(after_help = "Examples:\n  \
    proxy-agent run\n  \
    proxy-agent run --allow grafana.monitoring:80 --allow 10.0.0.0/24:5432 --metrics-listen none")]
pub(super) struct Running {
    /// The hub's address; several, each kept connected, with commas or by repeating the flag.
    #[arg(long, value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub(super) hub: Vec<HubAddress>,
    /// The state folder [default: /var/lib/cluster-proxy-agent for root, else ~/.local/state/cluster-proxy-agent].
    #[arg(long, value_name = "FOLDER")]
    pub(super) state: Option<PathBuf>,
    /// Let the hub reach only what such rules name: HOST_OR_CIDR[:PORT[-PORT]], like 'grafana.monitoring:80', '@cluster' for the
    /// Kubernetes API and the Services of the agent's own cluster, or '*'. Without a rule: '@cluster' in a pod, elsewhere nothing.
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    pub(super) allow: Vec<Rule>,
    /// Deny what such rules match, under every name and address of the target; wins over --allow.
    #[arg(long, value_name = "RULE", value_delimiter = ',')]
    pub(super) deny: Vec<Rule>,
    /// This cluster's API server [default: as for any pod, else kubernetes.default.svc:443].
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) kube_api: Option<Target>,
    /// Whose rights kubectl has through the hub: 'impersonate' the hub's user, by this agent's service account; 'token', the
    /// user's own for this cluster; or 'off'.
    #[arg(long, value_name = "HOW", default_value = "impersonate", hide_possible_values = true)]
    pub(super) gateway: GatewayMode,
    /// The groups of the hub's users to impersonate, like 'team-*'; 'system:' ones must be named [default: all others].
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub(super) gateway_groups: Vec<GroupPattern>,
    /// The CA of the API server, PEM [default: as for any pod].
    #[arg(long, value_name = "FILE")]
    pub(super) kube_ca: Option<PathBuf>,
    /// The token of a service account that may impersonate the hub's users and groups [default: as for any pod].
    #[arg(long, value_name = "FILE")]
    pub(super) kube_token: Option<PathBuf>,
    /// The CAs of services that the hub reaches by https, PEM [default: that of the API server].
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    pub(super) service_ca: Vec<PathBuf>,
    /// Export the Kubernetes services with such labels and the annotation prometheus.io/scrape: "true"; port, path and scheme
    /// are annotations, too. The agent's service account must be allowed to list services. Empty: all services.
    #[arg(long, value_name = "SELECTOR")]
    pub(super) export_services: Option<String>,
    /// How often to look for such services.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = interval)]
    pub(super) export_interval: Duration,
    /// Where to serve /metrics, /healthz and /readyz; 'none' for nowhere.
    #[arg(long, value_name = "ADDRESS", default_value = Listen::USUAL)]
    pub(super) metrics_listen: Listen,
    /// How long open connections may take to end when the agent stops.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = value::span)]
    pub(super) drain_timeout: Duration,
    /// The largest IP packet to send to the hub, 1280 to 9000: the upper limit of path MTU discovery.
    #[arg(long, value_name = "BYTES", default_value_t)]
    pub(super) max_mtu: Mtu,
    /// The most that the streams of one tunnel may hold together, 64MiB or more.
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub(super) tunnel_memory: TunnelMemory,
    /// 'text' or 'json'.
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    pub(super) log_format: LogFormat,
}

/// An address to listen on, or `none`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listen(pub(super) Option<SocketAddr>);

impl Listen {
    const USUAL: &str = "127.0.0.1:8093";
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self(None));
        }
        value::address(text).map(|address| Self(Some(address))).map_err(|error| format!("{error}, or 'none'"))
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = value::span(text)?;
    if interval < LEAST_INTERVAL {
        return Err("is too short: it burdens the kube-apiserver; use 100ms or more".into());
    }
    Ok(interval)
}
