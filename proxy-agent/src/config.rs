//! The configuration of both commands, read once, before any socket opens.

mod table;

use std::{
    ffi::OsString,
    fs,
    io::{self, BufRead, IsTerminal, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use certs::{AgentName, ClusterName, Pin};
use clap::Parser as _;
use process::{
    Folders, LogFormat,
    settings::{self, Environment, Settings, Stop},
};
use secrecy::SecretString;

use self::table::{Joining, Running, Subcommand, Table};
use crate::{
    exports::{self, ExportConfig},
    gateway::GatewayConfig,
    hub::HubAddress,
    policy::{Cluster, Policy, Rule},
    target::Target,
};

/// What the folder of its state is called.
const PROGRAM: &str = "cluster-proxy-agent";

/// The address of every cluster's own API server.
const KUBERNETES_SERVICE: &str = "kubernetes.default.svc:443";

/// Where the resolver's search list is, and in a pod with it the cluster's DNS domain.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What the agent is told by the machine on which it runs.
struct Surroundings<'s> {
    environment: Environment<'s>,
    is_root: bool,
    host_name: &'s str,
    resolv_conf: &'s str,
}

/// How an agent runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The state folder, which a join has filled.
    pub state: PathBuf,
    /// The hub's addresses; empty: those that the join has kept.
    pub hubs: Vec<HubAddress>,
    /// What the hub may reach.
    pub policy: Policy,
    /// The spoke's kube-apiserver.
    pub kube_api: KubeApi,
    /// How requests of the hub's users reach it.
    pub gateway: GatewayConfig,
    /// PEM files with the CAs of services that speak TLS, where the agent ends it; empty: that of the kube-apiserver.
    pub service_ca: Vec<PathBuf>,
    /// What Prometheus is to scrape through the hub.
    pub exports: ExportConfig,
    /// Where `/metrics` and the probes are served; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// How long open streams may take to end when the agent stops.
    pub drain_timeout: Duration,
    pub tunnel: tunnel::Settings,
}

/// The spoke's kube-apiserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeApi {
    /// Named by the operator, and so allowed unless a `deny` rule says otherwise.
    Configured(Target),
    /// Where a pod finds it; bound by the whole policy.
    Assumed(Target),
}

/// How an agent joins.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// The state folder; made if absent.
    pub state: PathBuf,
    /// The hub's addresses, at least one.
    pub hubs: Vec<HubAddress>,
    /// The join token.
    pub token: SecretString,
    /// The hub's pin.
    pub pin: Pin,
    /// The cluster's name; `None` when the token is bound to one.
    pub cluster: Option<ClusterName>,
    /// This agent's name in the cluster.
    pub agent: AgentName,
    /// How long to wait until the hub has decided.
    pub timeout: Duration,
}

/// What the process was told to do.
#[derive(Debug)]
pub enum Command {
    /// `proxy-agent join`; `then_run` with `--run`.
    Join { join: JoinConfig, then_run: Option<Config> },
    /// `proxy-agent run`.
    Run(Config),
}

impl Config {
    /// The defaults, for an agent that has joined into `state`.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        let defaults = Self::of(Running::parse_from(["run"]), None);
        Self { state: state.into(), metrics_listen: None, ..defaults }
    }

    /// What the table says by itself.
    fn of(table: Running, told_api: Option<Target>) -> Self {
        let assumed = || told_api.unwrap_or_else(|| KUBERNETES_SERVICE.parse().expect("a host and a port"));
        let own = GatewayConfig::default();
        Self {
            state: table.state.unwrap_or_default(),
            hubs: table.hub,
            policy: Policy::new(table.allow, table.deny),
            kube_api: table.kube_api.map_or_else(|| KubeApi::Assumed(assumed()), KubeApi::Configured),
            gateway: GatewayConfig {
                mode: table.gateway,
                ca: table.kube_ca.unwrap_or(own.ca),
                token: table.kube_token.unwrap_or(own.token),
                groups: table.gateway_groups,
            },
            service_ca: table.service_ca,
            exports: ExportConfig {
                fixed: Vec::new(),
                services: table.export_services,
                interval: table.export_interval,
            },
            metrics_listen: table.metrics_listen.0,
            drain_timeout: table.drain_timeout,
            tunnel: tunnel::Settings { max_mtu: table.max_mtu, path: None, memory: table.tunnel_memory },
        }
    }
}

impl KubeApi {
    /// Where it is.
    pub fn target(&self) -> &Target {
        match self {
            Self::Configured(target) | Self::Assumed(target) => target,
        }
    }
}

impl Command {
    /// Reads the command line (program name first), and what environment and file say beside it.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<(Self, LogFormat), Stop> {
        let resolv_conf = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        let host_name = nix::unistd::gethostname().unwrap_or_default();
        let around = Surroundings {
            environment: &process::environment,
            is_root: nix::unistd::geteuid().is_root(),
            host_name: &host_name.to_string_lossy(),
            resolv_conf: &resolv_conf,
        };
        Self::read_with(arguments, &around)
    }

    fn read_with(
        arguments: impl IntoIterator<Item = OsString>,
        around: &Surroundings<'_>,
    ) -> Result<(Self, LogFormat), Stop> {
        let (table, mut settings) = settings::read::<Table>(arguments, around.environment)?;
        let (joining, running) = match table.command {
            Subcommand::Run(running) => (None, running),
            Subcommand::Join(join) => (Some(join.joining), join.running),
        };
        let log = running.log_format;
        let config = configure(running, &mut settings, around);
        let command = match joining {
            None => Some(Self::Run(config)),
            Some(joining) => join(joining, config, &mut settings, around.host_name),
        };
        settings.finish()?;
        Ok((command.expect("what is missing has been told"), log))
    }
}

fn configure(table: Running, settings: &mut Settings, around: &Surroundings<'_>) -> Config {
    // Root's agent is a service of the machine; anyone else's is that user's.
    let folders = if around.is_root { Folders::of_root() } else { Folders::new(around.environment, false) };
    let state = settings.state(table.state.clone(), folders.state(PROGRAM));
    let fixed = settings.tables("export", exports::read);
    if let Err(error) = exports::check_together(&fixed) {
        settings.reject(error);
    }
    let told_api = told_kube_api(around.environment);
    let cluster = told_api.clone().map(|api| Cluster::new(api, around.resolv_conf));
    if table.deny.iter().any(Rule::is_cluster) {
        settings.reject("--deny @cluster names no host; leave @cluster out of --allow instead");
    }
    if cluster.is_none() && table.allow.iter().any(Rule::is_cluster) {
        settings.reject(
            "--allow @cluster is for an agent in a pod of its cluster (KUBERNETES_SERVICE_HOST is set there); name hosts \
             instead",
        );
    }
    // What is exported has been checked: it has a host and a port.
    let exported: Vec<_> = fixed.iter().filter_map(|export| Target::new(&export.host, export.port).ok()).collect();
    let mut config = Config { state, ..Config::of(table, told_api) };
    config.policy = config.policy.within(cluster).exporting(&exported);
    config.exports.fixed = fixed;
    config
}

/// `None` where something is missing, which is told.
fn join(table: Joining, config: Config, settings: &mut Settings, host_name: &str) -> Option<Command> {
    const COPY: &str = "copy it from 'cluster-proxy join-command' on the hub";
    let Joining { token_file, token, pin, cluster, agent, timeout, run } = table;
    let token = read_token(token_file.as_deref(), token, settings, COPY);
    settings.demand("pin", COPY);
    settings.demand("hub", COPY);
    let usual = agent_name(host_name);
    match &usual {
        Some(name) => settings.assume("agent", &**name),
        None => settings.demand("agent", &format!("the host's name {host_name:?} is no name for an agent")),
    }
    let (state, hubs, agent) = (config.state.clone(), config.hubs.clone(), agent.or(usual)?);
    let join = JoinConfig { state, hubs, token: token?, pin: pin?, cluster, agent, timeout };
    Some(Command::Join { join, then_run: run.then_some(config) })
}

/// The token: from its file, or as it is.
fn read_token(
    file: Option<&Path>,
    token: Option<SecretString>,
    settings: &mut Settings,
    hint: &str,
) -> Option<SecretString> {
    // It is not shown, and nobody is to be asked for it.
    if settings.prints() {
        return None;
    }
    let Some(path) = file else {
        settings.demand("token", hint);
        return token;
    };
    if token.is_some() {
        settings.reject("--token and --token-file: give one of them");
    }
    match token_from(path) {
        Ok(token) => Some(token),
        Err(error) => {
            let place = if path == Path::new("-") { "standard input".into() } else { path.display().to_string() };
            settings.reject(format!("--token-file: no token can be read from {place} ({error}); {hint}"));
            None
        }
    }
}

fn token_from(path: &Path) -> io::Result<SecretString> {
    // A token is some 60 bytes; what is longer is none.
    const LONGEST: u64 = 4096;
    let mut text = String::new();
    if path == Path::new("-") {
        if io::stdin().is_terminal() {
            eprint!("token: ");
        }
        io::stdin().lock().take(LONGEST).read_line(&mut text)?;
    } else {
        fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    }
    match text.trim() {
        "" => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty")),
        token => Ok(SecretString::from(token)),
    }
}

/// Every pod is told in these variables where its API server is, and nobody else.
fn told_kube_api(environment: Environment<'_>) -> Option<Target> {
    let text = |name| environment(name)?.into_string().ok();
    let host = text("KUBERNETES_SERVICE_HOST")?;
    let port = text("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok()).unwrap_or(443);
    Target::new(&host, port).ok()
}

/// The first label of the host's name, in the shape of a name.
fn agent_name(host_name: &str) -> Option<AgentName> {
    let label = host_name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let shaped: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    shaped.trim_matches('-').parse().ok()
}

#[cfg(test)]
mod tests;
