//! The hub's settings: their names, defaults, and how each is written.

use std::{net::SocketAddr, num::NonZeroU8, path::PathBuf, time::Duration};

use ::store::Etcd;
use clap::Parser;
use process::{LogFormat, settings::value};
use tunnel::{Mtu, TunnelMemory};

use super::{AuditFailure, Caps, EndedAgents, Plaintext, ProxySocket, ServiceUrls};

/// An agent looks every thirty seconds whether its certificate is to be renewed.
const LEAST_LIFE: Duration = Duration::from_secs(60);

/// The hub: takes agents' tunnels, and proxies clients through them.
#[derive(Debug, Parser)]
#[command(
    name = "proxy-server",
    version,
    after_help = "Example:\n  proxy-server --advertise hub.example.com\n\nThe administrator's credentials are \
                  written to the state folder's admin/; 'cluster-proxy status' on the same machine finds them.\n\n\
                  Every flag can also be set as CLUSTER_PROXY_<FLAG> in the environment, or in the file of --config."
)]
pub(super) struct Table {
    /// Print the bound addresses on standard output, as one line of JSON
    #[arg(long)]
    pub(super) print_addresses: bool,
    /// Folder of the CA, the registry and the administrator's credentials [default: /var/lib/cluster-proxy for root, else
    /// ~/.local/state/cluster-proxy]
    #[arg(long, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
    /// What keeps the registry: redb (a file in the state folder) or etcd
    #[arg(long, value_name = "KIND", default_value = "redb", hide_possible_values = true)]
    pub(super) store: StoreKind,
    /// http:// or https:// URL of a member of the etcd (3.4 or newer) for --store etcd; may be given several times
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub(super) etcd_endpoint: Vec<String>,
    /// PEM file of the CAs that etcd's certificates are signed by
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_ca: Option<PathBuf>,
    /// PEM file of the client certificate to show to etcd
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_cert: Option<PathBuf>,
    /// PEM file of the client certificate's key
    #[arg(long, value_name = "FILE")]
    pub(super) etcd_key: Option<PathBuf>,
    /// What the keys in etcd begin with [default: /cluster-proxy]
    #[arg(long, value_name = "PREFIX", value_parser = etcd_prefix)]
    pub(super) etcd_prefix: Option<String>,
    /// Name or address under which agents and clients reach this hub; may be given several times
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(super) advertise: Vec<String>,
    /// Further name under which clients reach the API, where it is not one of --advertise; may be given several times
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    pub(super) api_name: Vec<String>,
    /// Who may reach services by their URLs: all or no-browsers (they share one origin there)
    #[arg(long, value_name = "WHO", default_value = "all", hide_possible_values = true)]
    pub(super) service_urls: ServiceUrls,
    /// Where clients connect
    #[arg(long, value_name = "ADDR", default_value = "[::]:8090", value_parser = value::address)]
    pub(super) proxy_listen: SocketAddr,
    /// Unix socket for clients of this machine, which reach every cluster without credentials; with =CLUSTER, the one
    /// that is meant where a client names none (kube-apiserver's egress selector); may be given several times
    #[arg(long, value_name = "PATH[=CLUSTER]", value_delimiter = ',')]
    pub(super) proxy_socket: Vec<ProxySocket>,
    /// Where agents connect, over UDP
    #[arg(long, value_name = "ADDR", default_value = "[::]:8091", value_parser = value::address)]
    pub(super) tunnel_listen: SocketAddr,
    /// Where the HTTPS API is
    #[arg(long, value_name = "ADDR", default_value = "[::]:8443", value_parser = value::address)]
    pub(super) api_listen: SocketAddr,
    /// Where /metrics, /healthz and /readyz are
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8095", value_parser = value::address)]
    pub(super) metrics_listen: SocketAddr,
    /// From where clients may speak without TLS: loopback, any or never
    #[arg(long, value_name = "WHERE", default_value = "loopback", hide_possible_values = true)]
    pub(super) plaintext: Plaintext,
    /// The domain under which clusters are named
    #[arg(long, value_name = "DOMAIN", default_value = "clusters.internal", value_parser = domain_name)]
    pub(super) clusters_domain: String,
    /// How long a dial may take
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = value::positive_span)]
    pub(super) dial_timeout: Duration,
    /// How long a client may take to say what it wants
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = value::positive_span)]
    pub(super) head_timeout: Duration,
    /// How long connections may go on once the hub is told to stop
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = value::positive_span)]
    pub(super) drain_timeout: Duration,
    /// How long an agent's certificate lives, 1m or more; it is renewed at two thirds of that
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = lifetime)]
    pub(super) agent_certificate_lifetime: Duration,
    /// What becomes of an accepted agent whose certificate has ended: renew, or refuse (it joins anew)
    #[arg(long, value_name = "HOW", default_value = "renew", hide_possible_values = true)]
    pub(super) ended_agents: EndedAgents,
    /// How the log is written: text or json
    #[arg(long, value_name = "FORMAT", default_value = "text", hide_possible_values = true)]
    pub(super) log_format: LogFormat,
    /// Audit events go here as JSON lines instead of into the log
    #[arg(long, value_name = "FILE")]
    pub(super) audit_log: Option<PathBuf>,
    /// What to do while audit events cannot be written: continue, or refuse connections and changes
    #[arg(long, value_name = "HOW", default_value = "continue", hide_possible_values = true)]
    pub(super) audit_failure: AuditFailure,
    #[command(flatten)]
    pub(super) caps: Caps,
    /// The largest IP packet to send to agents, 1280 to 9000: the upper limit of path MTU discovery
    #[arg(long, value_name = "BYTES", default_value_t)]
    pub(super) max_mtu: Mtu,
    /// Threads that move bytes, 1 to 255 [default: one for each processor]
    #[arg(long, value_name = "N")]
    pub(super) workers: Option<NonZeroU8>,
    /// The most that the streams of one tunnel may hold together, 64MiB or more
    #[arg(long, value_name = "SIZE", default_value = "512MiB")]
    pub(super) tunnel_memory: TunnelMemory,
}

/// What keeps the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum StoreKind {
    Redb,
    Etcd,
}

fn etcd_prefix(text: &str) -> Result<String, String> {
    if text.len() <= Etcd::MAX_PREFIX {
        return Ok(text.into());
    }
    Err(format!("is longer than {} bytes", Etcd::MAX_PREFIX))
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let life = value::positive_span(text)?;
    if life < LEAST_LIFE { Err("must be 1m or more".into()) } else { Ok(life) }
}

fn domain_name(text: &str) -> Result<String, String> {
    let domain = text.trim_matches('.').to_ascii_lowercase();
    if domain.len() <= 253 && domain.split('.').all(certs::is_dns_label) {
        Ok(domain)
    } else {
        Err("is no DNS domain".into())
    }
}
