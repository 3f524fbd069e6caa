//! The hub's configuration: flags, then `CLUSTER_PROXY_*` environment, then one TOML file; parsed once, all errors
//! at once, before any socket opens.

use std::{
    ffi::OsString,
    fmt,
    net::SocketAddr,
    num::NonZeroU8,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use certs::ClusterName;
use clap::{Args, Parser};
use nix::unistd::Uid;
use process::LogFormat;
use registry::store::Etcd;
use serde::{Deserialize, Deserializer, de};
use tunnel::{Mtu, TunnelMemory};

use crate::workers::default_count;

mod caps;
mod record;
mod store;
mod words;

pub use self::record::{AuditFailure, AuditTo};
use self::store::StoreSettings;
pub use self::words::{EndedAgents, Plaintext, ServiceUrls};
pub use crate::limits::Caps;

/// Exit code of a wrong command line or configuration (sysexits.h).
pub const EX_USAGE: u8 = 64;

/// An agent looks every thirty seconds whether its certificate is to be renewed.
const LEAST_LIFE: Duration = Duration::from_secs(60);

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

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// Help, version or a command line that clap refuses; it says itself what.
    CommandLine(clap::Error),
    /// Everything that is wrong, a sentence each.
    Problems(Vec<String>),
}

/// The hub: takes agents' tunnels, and proxies clients through them.
#[derive(Debug, Parser)]
#[command(
    name = "proxy-server",
    version,
    after_help = "Example:\n  proxy-server --advertise hub.example.com\n\nThe administrator's credentials are \
                  written to the state folder's admin/; 'cluster-proxy status' on the same machine finds them."
)]
struct CommandLine {
    /// TOML file with the same names as these flags, without the dashes in front
    #[arg(long, value_name = "FILE", env = "CLUSTER_PROXY_CONFIG")]
    config: Option<PathBuf>,
    /// Print the bound addresses on standard output, as one line of JSON
    #[arg(long)]
    print_addresses: bool,
    #[command(flatten)]
    settings: Settings,
}

/// What flags, environment and file may all say; text until it is parsed.
#[derive(Debug, Default, Args, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
#[allow(rustdoc::broken_intra_doc_links, reason = "these are help texts, which show addresses like [::]:8090")]
struct Settings {
    /// Folder of the CA, the registry and the administrator's credentials [default: /var/lib/cluster-proxy for root]
    #[arg(long, value_name = "DIR", env = "CLUSTER_PROXY_STATE")]
    state: Option<PathBuf>,
    /// What keeps the registry: redb (a file in the state folder) or etcd [default: redb]
    #[arg(long, value_name = "KIND", env = "CLUSTER_PROXY_STORE")]
    store: Option<String>,
    /// http:// or https:// URL of a member of the etcd (3.4 or newer) for --store etcd; may be given several times
    #[arg(long, value_name = "URL", env = "CLUSTER_PROXY_ETCD_ENDPOINT", value_delimiter = ',')]
    etcd_endpoint: Vec<String>,
    /// PEM file of the CAs that etcd's certificates are signed by
    #[arg(long, value_name = "FILE", env = "CLUSTER_PROXY_ETCD_CA")]
    etcd_ca: Option<PathBuf>,
    /// PEM file of the client certificate to show to etcd
    #[arg(long, value_name = "FILE", env = "CLUSTER_PROXY_ETCD_CERT")]
    etcd_cert: Option<PathBuf>,
    /// PEM file of the client certificate's key
    #[arg(long, value_name = "FILE", env = "CLUSTER_PROXY_ETCD_KEY")]
    etcd_key: Option<PathBuf>,
    /// What the keys in etcd begin with [default: /cluster-proxy]
    #[arg(long, value_name = "PREFIX", env = "CLUSTER_PROXY_ETCD_PREFIX")]
    etcd_prefix: Option<String>,
    /// Name or address under which agents and clients reach this hub; may be given several times
    #[arg(long, value_name = "HOST", env = "CLUSTER_PROXY_ADVERTISE", value_delimiter = ',')]
    advertise: Vec<String>,
    /// Further name under which clients reach the API, where it is not one of --advertise; may be given several times
    #[arg(long, value_name = "HOST", env = "CLUSTER_PROXY_API_NAME", value_delimiter = ',')]
    api_name: Vec<String>,
    /// Who may reach services by their URLs: all or no-browsers (they share one origin there) [default: all]
    #[arg(long, value_name = "WHO", env = "CLUSTER_PROXY_SERVICE_URLS")]
    service_urls: Option<String>,
    /// Where clients connect [default: [::]:8090]
    #[arg(long, value_name = "ADDR", env = "CLUSTER_PROXY_PROXY_LISTEN")]
    proxy_listen: Option<String>,
    /// Unix socket for clients of this machine, which reach every cluster without credentials; with =CLUSTER, the one
    /// that is meant where a client names none (kube-apiserver's egress selector); may be given several times
    #[arg(long, value_name = "PATH[=CLUSTER]", env = "CLUSTER_PROXY_PROXY_SOCKET", value_delimiter = ',')]
    proxy_socket: Vec<String>,
    /// Where agents connect, over UDP [default: [::]:8091]
    #[arg(long, value_name = "ADDR", env = "CLUSTER_PROXY_TUNNEL_LISTEN")]
    tunnel_listen: Option<String>,
    /// Where the HTTPS API is [default: [::]:8443]
    #[arg(long, value_name = "ADDR", env = "CLUSTER_PROXY_API_LISTEN")]
    api_listen: Option<String>,
    /// Where /metrics, /healthz and /readyz are [default: 127.0.0.1:8095]
    #[arg(long, value_name = "ADDR", env = "CLUSTER_PROXY_METRICS_LISTEN")]
    metrics_listen: Option<String>,
    /// From where clients may speak without TLS: loopback, any or never [default: loopback]
    #[arg(long, value_name = "WHERE", env = "CLUSTER_PROXY_PLAINTEXT")]
    plaintext: Option<String>,
    /// The domain under which clusters are named [default: clusters.internal]
    #[arg(long, value_name = "DOMAIN", env = "CLUSTER_PROXY_CLUSTERS_DOMAIN")]
    clusters_domain: Option<String>,
    /// How long a dial may take [default: 10s]
    #[arg(long, value_name = "DURATION", env = "CLUSTER_PROXY_DIAL_TIMEOUT")]
    dial_timeout: Option<String>,
    /// How long a client may take to say what it wants [default: 15s]
    #[arg(long, value_name = "DURATION", env = "CLUSTER_PROXY_HEAD_TIMEOUT")]
    head_timeout: Option<String>,
    /// How long connections may go on once the hub is told to stop [default: 30s]
    #[arg(long, value_name = "DURATION", env = "CLUSTER_PROXY_DRAIN_TIMEOUT")]
    drain_timeout: Option<String>,
    /// How long an agent's certificate lives, 1m or more; it is renewed at two thirds of that [default: 720h]
    #[arg(long, value_name = "DURATION", env = "CLUSTER_PROXY_AGENT_CERTIFICATE_LIFETIME")]
    agent_certificate_lifetime: Option<String>,
    /// What becomes of an accepted agent whose certificate has ended: renew, or refuse (it joins anew) [default: renew]
    #[arg(long, value_name = "HOW", env = "CLUSTER_PROXY_ENDED_AGENTS")]
    ended_agents: Option<String>,
    /// How the log is written: text or json [default: text]
    #[arg(long, value_name = "FORMAT", env = "CLUSTER_PROXY_LOG_FORMAT")]
    log_format: Option<String>,
    /// Audit events go here as JSON lines instead of into the log
    #[arg(long, value_name = "FILE", env = "CLUSTER_PROXY_AUDIT_LOG")]
    audit_log: Option<PathBuf>,
    /// What to do while audit events cannot be written: continue, or refuse connections and changes [default: continue]
    #[arg(long, value_name = "HOW", env = "CLUSTER_PROXY_AUDIT_FAILURE")]
    audit_failure: Option<String>,
    /// Connections to one cluster at a time [default: 4000]
    #[arg(long, value_name = "N", env = "CLUSTER_PROXY_MAX_CONNECTIONS_PER_CLUSTER")]
    #[serde(deserialize_with = "number_or_text")]
    max_connections_per_cluster: Option<String>,
    /// Unanswered dials to one cluster at a time [default: 1024]
    #[arg(long, value_name = "N", env = "CLUSTER_PROXY_MAX_PENDING_PER_CLUSTER")]
    #[serde(deserialize_with = "number_or_text")]
    max_pending_per_cluster: Option<String>,
    /// Connections of one user at a time [default: 8000]
    #[arg(long, value_name = "N", env = "CLUSTER_PROXY_MAX_CONNECTIONS_PER_USER")]
    #[serde(deserialize_with = "number_or_text")]
    max_connections_per_user: Option<String>,
    /// Unanswered dials of one user at a time [default: 2048]
    #[arg(long, value_name = "N", env = "CLUSTER_PROXY_MAX_PENDING_PER_USER")]
    #[serde(deserialize_with = "number_or_text")]
    max_pending_per_user: Option<String>,
    /// Connections of one user to one cluster at a time [default: 1000]
    #[arg(long, value_name = "N", env = "CLUSTER_PROXY_MAX_CONNECTIONS_PER_USER_PER_CLUSTER")]
    #[serde(deserialize_with = "number_or_text")]
    max_connections_per_user_per_cluster: Option<String>,
    /// Unanswered dials of one user to one cluster at a time [default: 512]
    #[arg(long, value_name = "N", env = "CLUSTER_PROXY_MAX_PENDING_PER_USER_PER_CLUSTER")]
    #[serde(deserialize_with = "number_or_text")]
    max_pending_per_user_per_cluster: Option<String>,
    /// The largest IP packet to send to agents, 1280 to 9000; what the path carries is found out [default: 9000]
    #[arg(long, value_name = "BYTES", env = "CLUSTER_PROXY_MAX_MTU")]
    #[serde(deserialize_with = "number_or_text")]
    max_mtu: Option<String>,
    /// Threads that move bytes, 1 to 255 [default: one for each processor]
    #[arg(long, value_name = "N", env = "CLUSTER_PROXY_WORKERS")]
    #[serde(deserialize_with = "number_or_text")]
    workers: Option<String>,
    /// The most that the streams of one tunnel may hold together, 64MiB or more [default: 512MiB]
    #[arg(long, value_name = "SIZE", env = "CLUSTER_PROXY_TUNNEL_MEMORY")]
    tunnel_memory: Option<String>,
}

impl Config {
    /// Parses the command line (program name first), the environment and the file that they name.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, ConfigError> {
        let line = CommandLine::try_parse_from(arguments).map_err(ConfigError::CommandLine)?;
        let mut problems = Problems::default();
        let file = line.config.as_deref().map(|path| read(path, &mut problems)).unwrap_or_default();
        let config = Self::resolve(line.settings, file, line.print_addresses, &mut problems);
        match config {
            Some(config) if problems.0.is_empty() => Ok(config),
            _ => Err(ConfigError::Problems(problems.0)),
        }
    }

    /// A hub on loopback with every port chosen by the system; for tests and demonstrations.
    pub fn on_loopback(state: PathBuf) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            state,
            etcd: None,
            advertise: vec!["127.0.0.1".into()],
            api_names: Vec::new(),
            service_urls: ServiceUrls::All,
            proxy_listen: any,
            proxy_sockets: Vec::new(),
            tunnel_listen: any,
            api_listen: any,
            metrics_listen: any,
            plaintext: Plaintext::Loopback,
            clusters_domain: "clusters.internal".into(),
            dial_timeout: Duration::from_secs(10),
            head_timeout: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(30),
            agent_lifetime: Duration::from_secs(30 * 24 * 3600),
            ended_agents: EndedAgents::Renew,
            log_format: LogFormat::Text,
            audit: AuditTo::Nowhere,
            audit_failure: AuditFailure::Continue,
            caps: Caps::default(),
            tunnel: tunnel::Settings::default(),
            workers: default_count(),
            print_addresses: false,
        }
    }

    fn resolve(flags: Settings, file: Settings, print_addresses: bool, problems: &mut Problems) -> Option<Self> {
        let caps = caps::resolve(&flags, &file, problems);
        let duration = |text: &str| match text.parse::<jiff::SignedDuration>() {
            Ok(duration) if duration.is_positive() => Ok(duration.unsigned_abs()),
            Ok(_) => Err("must be longer than nothing".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let mut address = |name, flag: Option<String>, file: Option<String>, default: &str| {
            problems.value(name, flag.or(file).unwrap_or_else(|| default.into()), parsed)
        };
        let proxy_listen = address("proxy-listen", flags.proxy_listen, file.proxy_listen, "[::]:8090");
        let tunnel_listen = address("tunnel-listen", flags.tunnel_listen, file.tunnel_listen, "[::]:8091");
        let api_listen = address("api-listen", flags.api_listen, file.api_listen, "[::]:8443");
        let metrics_listen = address("metrics-listen", flags.metrics_listen, file.metrics_listen, "127.0.0.1:8095");
        let mut time = |name, flag: Option<String>, file: Option<String>, default: &str| {
            problems.value(name, flag.or(file).unwrap_or_else(|| default.into()), duration)
        };
        let dial_timeout = time("dial-timeout", flags.dial_timeout, file.dial_timeout, "10s");
        let head_timeout = time("head-timeout", flags.head_timeout, file.head_timeout, "15s");
        let drain_timeout = time("drain-timeout", flags.drain_timeout, file.drain_timeout, "30s");
        let lifetime = flags.agent_certificate_lifetime.or(file.agent_certificate_lifetime);
        let agent_lifetime =
            problems.value("agent-certificate-lifetime", lifetime.unwrap_or_else(|| "720h".into()), |text| {
                duration(text)
                    .and_then(|life| if life < LEAST_LIFE { Err("must be 1m or more".into()) } else { Ok(life) })
            });
        let ended_agents = flags.ended_agents.or(file.ended_agents).unwrap_or_else(|| "renew".into());
        let ended_agents = problems.value("ended-agents", ended_agents, parsed);
        let max_mtu = flags.max_mtu.or(file.max_mtu).unwrap_or_else(|| Mtu::default().to_string());
        let max_mtu = problems.value("max-mtu", max_mtu, parsed);
        let workers = flags.workers.or(file.workers).unwrap_or_else(|| default_count().to_string());
        let workers = problems.value("workers", workers, parsed);
        let memory =
            flags.tunnel_memory.or(file.tunnel_memory).map(|text| problems.value("tunnel-memory", text, parsed));
        let memory = memory.unwrap_or_else(|| Some(TunnelMemory::default()));
        let plaintext = flags.plaintext.or(file.plaintext).unwrap_or_else(|| "loopback".into());
        let plaintext = problems.value("plaintext", plaintext, parsed);
        let service_urls = flags.service_urls.or(file.service_urls).unwrap_or_else(|| "all".into());
        let service_urls = problems.value("service-urls", service_urls, parsed);
        let log_format = flags.log_format.or(file.log_format).unwrap_or_else(|| "text".into());
        let log_format = problems.value("log-format", log_format, parsed);
        let failure = flags.audit_failure.or(file.audit_failure).unwrap_or_else(|| "continue".into());
        let audit_failure = problems.value("audit-failure", failure, parsed);
        let domain = flags.clusters_domain.or(file.clusters_domain).unwrap_or_else(|| "clusters.internal".into());
        let clusters_domain = problems.value("clusters-domain", domain, domain_name);
        let sockets = if flags.proxy_socket.is_empty() { file.proxy_socket } else { flags.proxy_socket };
        let sockets = sockets.into_iter().map(|socket| problems.value("proxy-socket", socket, parsed));
        let proxy_sockets = sockets.collect::<Vec<_>>().into_iter().flatten().collect();
        let store = StoreSettings {
            kind: flags.store.or(file.store),
            endpoints: if flags.etcd_endpoint.is_empty() { file.etcd_endpoint } else { flags.etcd_endpoint },
            ca: flags.etcd_ca.or(file.etcd_ca),
            cert: flags.etcd_cert.or(file.etcd_cert),
            key: flags.etcd_key.or(file.etcd_key),
            prefix: flags.etcd_prefix.or(file.etcd_prefix),
        };
        let etcd = store.resolve(problems);
        let state = flags.state.or(file.state).or_else(default_state);
        if state.is_none() {
            problems.0.push("state: no home folder to keep it in; name one with --state DIR".into());
        }
        Some(Self {
            state: state?,
            etcd,
            advertise: if flags.advertise.is_empty() { file.advertise } else { flags.advertise },
            api_names: if flags.api_name.is_empty() { file.api_name } else { flags.api_name },
            service_urls: service_urls?,
            proxy_listen: proxy_listen?,
            proxy_sockets,
            tunnel_listen: tunnel_listen?,
            api_listen: api_listen?,
            metrics_listen: metrics_listen?,
            plaintext: plaintext?,
            clusters_domain: clusters_domain?,
            dial_timeout: dial_timeout?,
            head_timeout: head_timeout?,
            drain_timeout: drain_timeout?,
            agent_lifetime: agent_lifetime?,
            ended_agents: ended_agents?,
            log_format: log_format?,
            audit: flags.audit_log.or(file.audit_log).map_or(AuditTo::Log(log_format?), AuditTo::File),
            audit_failure: audit_failure?,
            caps,
            tunnel: tunnel::Settings { max_mtu: max_mtu?, path: None, memory: memory? },
            workers: workers?,
            print_addresses,
        })
    }
}

/// Where a hub keeps its state unless told otherwise: `/var/lib/cluster-proxy` for root, else under
/// `$XDG_STATE_HOME` or `~/.local/state`.
#[expect(clippy::disallowed_methods, reason = "this is the file that reads the environment")]
pub fn default_state() -> Option<PathBuf> {
    // A job of the machine has no HOME.
    let root = || Uid::effective().is_root().then(|| "/root".to_owned());
    let home = std::env::var("HOME").ok().filter(|home| !home.is_empty()).or_else(root);
    if home.as_deref() == Some("/root") {
        return Some("/var/lib/cluster-proxy".into());
    }
    let states = std::env::var("XDG_STATE_HOME").ok().filter(|folder| !folder.is_empty()).map(PathBuf::from);
    states.or_else(|| home.map(|home| Path::new(&home).join(".local/state"))).map(|states| states.join("cluster-proxy"))
}

fn read(path: &Path, problems: &mut Problems) -> Settings {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            problems.0.push(format!("config: cannot read {}: {error}", path.display()));
            return Settings::default();
        }
    };
    toml::from_str(&text).unwrap_or_else(|error| {
        problems.0.push(format!("config: {}: {error}", path.display()));
        Settings::default()
    })
}

/// What is wrong so far.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn value<T>(&mut self, name: &str, text: String, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(&text) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.0.push(format!("{name}: {text:?}: {problem}"));
                None
            }
        }
    }
}

fn parsed<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn domain_name(text: &str) -> Result<String, String> {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') && label.len() < 64
    };
    let domain = text.trim_matches('.').to_ascii_lowercase();
    if domain.split('.').all(label) { Ok(domain) } else { Err("is no DNS domain".into()) }
}

fn number_or_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Number(i64),
        Text(String),
    }
    match Value::deserialize(deserializer).map_err(|_| de::Error::custom("expected a number"))? {
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Text(text) => Ok(Some(text)),
    }
}

impl FromStr for ProxySocket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, cluster) = match text.rsplit_once('=') {
            Some((path, cluster)) => (path, Some(parsed(cluster)?)),
            None => (text, None),
        };
        if path.is_empty() { Err("has no path".into()) } else { Ok(Self { path: path.into(), cluster }) }
    }
}

#[cfg(test)]
mod tests;
