//! The hub's configuration, read once, before any socket opens.

use std::{ffi::OsString, net::SocketAddr, num::NonZeroU8, path::PathBuf, str::FromStr, time::Duration};

use ::store::Etcd;
use certs::{ClusterName, NameError};
use clap::Parser as _;
use process::{
    Folders, LogFormat,
    settings::{self, Environment, Stop},
};

use crate::hub::workers::default_count;

mod record;
mod store;
mod table;
mod words;

use self::table::Table;
pub use self::{
    record::{AuditFailure, AuditTo},
    words::{EndedAgents, Plaintext, ServiceUrls},
};
pub use crate::limits::Caps;

/// Everything that a hub needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Folder of the CA, the registry (unless it is in etcd) and the administrator's credentials.
    pub state: PathBuf,
    /// The etcd that keeps the registry instead of a file in the state folder.
    pub etcd: Option<Etcd>,
    /// Names and addresses under which agents and clients reach this hub.
    pub advertise: Vec<String>,
    /// Further names under which clients reach the API.
    pub api_names: Vec<String>,
    pub service_urls: ServiceUrls,
    /// Where clients connect.
    pub proxy_listen: SocketAddr,
    /// The same on Unix sockets.
    pub proxy_sockets: Vec<ProxySocket>,
    /// Where agents connect (UDP).
    pub tunnel_listen: SocketAddr,
    /// Where the HTTPS API is.
    pub api_listen: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub metrics_listen: SocketAddr,
    pub plaintext: Plaintext,
    /// The domain under which clusters are named.
    pub clusters_domain: String,
    pub dial_timeout: Duration,
    /// How long a client may take to say what it wants.
    pub head_timeout: Duration,
    /// How long connections may go on once the hub is told to stop.
    pub drain_timeout: Duration,
    /// How long an agent's certificate lives.
    pub agent_lifetime: Duration,
    pub ended_agents: EndedAgents,
    pub log_format: LogFormat,
    pub audit: AuditTo,
    pub audit_failure: AuditFailure,
    pub caps: Caps,
    pub tunnel: tunnel::Settings,
    /// Threads that move bytes.
    pub workers: NonZeroU8,
    /// Print the bound addresses on standard output, as one line of JSON.
    pub print_addresses: bool,
}

/// A Unix socket for clients of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxySocket {
    pub path: PathBuf,
    /// The cluster that is meant where a client names none, as kube-apiserver's egress selector does.
    pub cluster: Option<ClusterName>,
}

impl Config {
    /// Reads the command line (program name first), this process' environment and the file that they name.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, Stop> {
        Self::read_with(arguments, &process::environment, Folders::of_process().hub_state())
    }

    fn read_with(
        arguments: impl IntoIterator<Item = OsString>,
        environment: Environment<'_>,
        state: Option<PathBuf>,
    ) -> Result<Self, Stop> {
        let (table, mut settings) = settings::read::<Table>(arguments, environment)?;
        let state = settings.state(table.state.clone(), state);
        let etcd = store::resolve(&table, &mut settings);
        settings.finish()?;
        Ok(Self::new(table, state, etcd))
    }

    /// A hub on loopback with every port chosen by the system; for tests and demonstrations.
    pub fn on_loopback(state: PathBuf) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let defaults = Self::new(Table::parse_from(["proxy-server"]), state, None);
        Self {
            advertise: vec!["127.0.0.1".into()],
            proxy_listen: any,
            tunnel_listen: any,
            api_listen: any,
            metrics_listen: any,
            audit: AuditTo::Nowhere,
            ..defaults
        }
    }

    fn new(table: Table, state: PathBuf, etcd: Option<Etcd>) -> Self {
        Self {
            state,
            etcd,
            advertise: table.advertise,
            api_names: table.api_name,
            service_urls: table.service_urls,
            proxy_listen: table.proxy_listen,
            proxy_sockets: table.proxy_socket,
            tunnel_listen: table.tunnel_listen,
            api_listen: table.api_listen,
            metrics_listen: table.metrics_listen,
            plaintext: table.plaintext,
            clusters_domain: table.clusters_domain,
            dial_timeout: table.dial_timeout,
            head_timeout: table.head_timeout,
            drain_timeout: table.drain_timeout,
            agent_lifetime: table.agent_certificate_lifetime,
            ended_agents: table.ended_agents,
            log_format: table.log_format,
            audit: table.audit_log.map_or(AuditTo::Log(table.log_format), AuditTo::File),
            audit_failure: table.audit_failure,
            caps: table.caps,
            tunnel: tunnel::Settings { max_mtu: table.max_mtu, path: None, memory: table.tunnel_memory },
            workers: table.workers.unwrap_or_else(default_count),
            print_addresses: table.print_addresses,
        }
    }
}

impl FromStr for ProxySocket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, cluster) = match text.rsplit_once('=') {
            Some((path, cluster)) => (path, Some(cluster.parse().map_err(|error: NameError| error.to_string())?)),
            None => (text, None),
        };
        if path.is_empty() { Err("has no path".into()) } else { Ok(Self { path: path.into(), cluster }) }
    }
}

#[cfg(test)]
mod tests;
