//! The configuration of both commands: flags, then `CLUSTER_PROXY_*`, then one TOML file; read once, before any socket
//! opens. The only reader of the environment.

mod cli;

use std::{
    fs,
    io::{self, BufRead, IsTerminal, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use certs::{AgentName, ClusterName, Pin};
pub use cli::Cli;
use process::LogFormat;
use secrecy::SecretString;

use crate::{
    exports::{self, ExportConfig},
    gateway::GatewayConfig,
    hub::HubAddress,
    policy::{Cluster, Policy, Rule},
    settings::{ConfigErrors, Environment, Settings, Sources},
    target::Target,
};

/// Where the agent's `/metrics`, `/healthz` and `/readyz` are unless told otherwise.
pub const DEFAULT_METRICS: &str = "127.0.0.1:8093";

/// How long open streams may take to end when the agent stops.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(30);

/// How long a join waits for an administrator of the hub.
pub const DEFAULT_JOIN_TIMEOUT: Duration = Duration::from_secs(600);

/// The address of every cluster's own API server.
const KUBERNETES_SERVICE: &str = "kubernetes.default.svc:443";

/// Where the resolver's search list is, and in a pod with it the cluster's DNS domain.
const RESOLV_CONF: &str = "/etc/resolv.conf";

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

/// Why no command could be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {}: check the path given with --config", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no TOML", path.display())]
    Toml { path: PathBuf, source: toml::de::Error },
    #[error(transparent)]
    Settings(#[from] ConfigErrors),
}

impl Config {
    /// The defaults, for an agent that has joined into `state`.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        let kube_api = KUBERNETES_SERVICE.parse().expect("a host and a port");
        Self {
            state: state.into(),
            hubs: Vec::new(),
            policy: Policy::default(),
            kube_api: KubeApi::Assumed(kube_api),
            gateway: GatewayConfig::default(),
            service_ca: Vec::new(),
            exports: ExportConfig::default(),
            metrics_listen: None,
            drain_timeout: DEFAULT_DRAIN,
            tunnel: tunnel::Settings::default(),
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

impl Cli {
    /// Reads the rest of the configuration from the process's environment and the file that it names.
    pub fn resolve(self) -> Result<(Command, LogFormat), ConfigError> {
        #[allow(clippy::disallowed_methods, reason = "this is the one place")]
        let environment = |name: &str| std::env::var(name).ok();
        let resolv_conf = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
        self.resolve_with(&environment, nix::unistd::geteuid().is_root(), &host_name(), &resolv_conf)
    }

    fn resolve_with(
        self,
        environment: &dyn Fn(&str) -> Option<String>,
        root: bool,
        host_name: &str,
        resolv_conf: &str,
    ) -> Result<(Command, LogFormat), ConfigError> {
        let (flags, file) = self.flags();
        let file = file.or_else(|| environment("CLUSTER_PROXY_CONFIG").map(PathBuf::from));
        let file = file.map(|path| load(&path)).transpose()?.unwrap_or_default();
        let joins = flags.contains_key("run");
        let mut settings = Settings::new(Sources { flags, environment: Environment(environment), file });
        let log = settings.optional("log-format").unwrap_or_default();
        let config = read_run(&mut settings, environment, root, resolv_conf);
        let command = if joins { read_join(&mut settings, config, host_name) } else { Some(Command::Run(config)) };
        settings.finish()?;
        // Whatever could not be read has been noted, so that `finish` has failed.
        let command = command.ok_or_else(|| ConfigErrors(vec!["incomplete".into()]))?;
        Ok((command, log))
    }
}

fn load(path: &Path) -> Result<toml::Table, ConfigError> {
    let text = fs::read_to_string(path).map_err(|source| ConfigError::File { path: path.to_owned(), source })?;
    text.parse().map_err(|source| ConfigError::Toml { path: path.to_owned(), source })
}

fn read_run(
    settings: &mut Settings<'_>,
    environment: &dyn Fn(&str) -> Option<String>,
    root: bool,
    resolv_conf: &str,
) -> Config {
    let state = settings.optional::<PathBuf>("state").or_else(|| default_state(environment, root));
    if state.is_none() {
        settings.reject("--state is missing: neither XDG_STATE_HOME nor HOME is set to choose one".into());
    }
    let configured = settings.optional("kube-api").map(KubeApi::Configured);
    let told_api = told_kube_api(environment);
    let exports = read_exports(settings);
    let cluster = told_api.clone().map(|api| Cluster::new(api, resolv_conf));
    let assumed = told_api.unwrap_or_else(|| KUBERNETES_SERVICE.parse().expect("a host and a port"));
    Config {
        state: state.unwrap_or_default(),
        hubs: settings.list("hub"),
        policy: read_policy(settings, cluster, &exports),
        kube_api: configured.unwrap_or(KubeApi::Assumed(assumed)),
        gateway: read_gateway(settings),
        service_ca: settings.list("service-ca"),
        exports,
        metrics_listen: settings.optional::<Listen>("metrics-listen").unwrap_or_default().0,
        drain_timeout: settings.optional::<Span>("drain-timeout").map_or(DEFAULT_DRAIN, |span| span.0),
        tunnel: tunnel::Settings {
            max_mtu: settings.optional("max-mtu").unwrap_or_default(),
            path: None,
            memory: settings.optional("tunnel-memory").unwrap_or_default(),
        },
    }
}

fn read_policy(settings: &mut Settings<'_>, cluster: Option<Cluster>, exports: &ExportConfig) -> Policy {
    let (allow, deny) = (settings.list::<Rule>("allow"), settings.list::<Rule>("deny"));
    if deny.iter().any(Rule::is_cluster) {
        settings.reject("--deny @cluster names no host; leave @cluster out of --allow instead".into());
    }
    if cluster.is_none() && allow.iter().any(Rule::is_cluster) {
        settings.reject(
            "--allow @cluster is for an agent in a pod of its cluster (KUBERNETES_SERVICE_HOST is set there); name hosts \
             instead"
                .into(),
        );
    }
    // What is exported has been checked: it has a host and a port.
    let exported: Vec<_> =
        exports.fixed.iter().filter_map(|export| Target::new(&export.host, export.port).ok()).collect();
    Policy::new(allow, deny).within(cluster).exporting(&exported)
}

fn read_gateway(settings: &mut Settings<'_>) -> GatewayConfig {
    let own = GatewayConfig::default();
    GatewayConfig {
        mode: settings.optional("gateway").unwrap_or_default(),
        ca: settings.optional("kube-ca").unwrap_or(own.ca),
        token: settings.optional("kube-token").unwrap_or(own.token),
        groups: settings.list("gateway-groups"),
    }
}

fn read_exports(settings: &mut Settings<'_>) -> ExportConfig {
    let fixed = settings.tables("export", exports::read);
    if let Err(error) = exports::check_together(&fixed) {
        settings.reject(error);
    }
    let interval = settings.optional::<Span>("export-interval").map_or(exports::INTERVAL, |span| span.0);
    if interval < Duration::from_millis(100) {
        settings.reject("--export-interval is too short: it burdens the kube-apiserver; use 100ms or more".into());
    }
    ExportConfig { fixed, services: settings.optional("export-services"), interval }
}

fn read_join(settings: &mut Settings<'_>, config: Config, host_name: &str) -> Option<Command> {
    const COPY: &str = "copy it from 'cluster-proxy join-command' on the hub";
    let token = read_token(settings, COPY);
    let pin = settings.required("pin", COPY);
    let cluster = settings.optional("cluster");
    let agent = match settings.optional("agent") {
        None => agent_name(host_name),
        named => named,
    };
    let timeout = settings.optional::<Span>("timeout").map_or(DEFAULT_JOIN_TIMEOUT, |span| span.0);
    let then_run = settings.optional("run").unwrap_or(false);
    settings.demand("hub", COPY);
    if agent.is_none() {
        settings.reject(format!("--agent is missing: the host's name {host_name:?} is no name for an agent"));
    }
    let (state, hubs) = (config.state.clone(), config.hubs.clone());
    let join = JoinConfig { state, hubs, token: token?, pin: pin?, cluster, agent: agent?, timeout };
    Some(Command::Join { join, then_run: then_run.then_some(config) })
}

/// The token: from its file, or as it is.
fn read_token(settings: &mut Settings<'_>, hint: &str) -> Option<SecretString> {
    let Some(path) = settings.optional::<PathBuf>("token-file") else {
        return settings.required::<String>("token", hint).map(SecretString::from);
    };
    if settings.optional::<String>("token").is_some() {
        settings.reject("--token and --token-file: give one of them".into());
    }
    match token_from(&path) {
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

/// Root's agent is a service of the machine; anyone else's is that user's (XDG Base Directory Specification).
fn default_state(environment: &dyn Fn(&str) -> Option<String>, root: bool) -> Option<PathBuf> {
    if root {
        return Some("/var/lib/cluster-proxy-agent".into());
    }
    let absolute = |name: &str| environment(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    base.map(|base| base.join("cluster-proxy-agent"))
}

/// Every pod is told in these variables where its API server is, and nobody else.
fn told_kube_api(environment: &dyn Fn(&str) -> Option<String>) -> Option<Target> {
    let host = environment("KUBERNETES_SERVICE_HOST")?;
    let port = environment("KUBERNETES_SERVICE_PORT").and_then(|port| port.parse().ok()).unwrap_or(443);
    Target::new(&host, port).ok()
}

/// The first label of the host's name, in the shape of a name.
fn agent_name(host_name: &str) -> Option<AgentName> {
    let label = host_name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let shaped: String = label.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(63).collect();
    shaped.trim_matches('-').parse().ok()
}

fn host_name() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// An address to listen on, or `none`.
struct Listen(Option<SocketAddr>);

impl Default for Listen {
    fn default() -> Self {
        Self(Some(DEFAULT_METRICS.parse().expect("an address and a port")))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self(None)),
            text => text
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| format!("{text:?} is no address and port; write it like {DEFAULT_METRICS}, or 'none'")),
        }
    }
}

/// A length of time.
struct Span(Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = text.parse::<jiff::SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        // Longer than a year is a slip of the pen, and would overflow the clock.
        match span.filter(|span| *span <= Duration::from_secs(365 * 24 * 3600)) {
            Some(span) => Ok(Self(span)),
            None => Err(format!("{text:?} is no length of time; write it like 30s, 10m or 1h30m")),
        }
    }
}

#[cfg(test)]
mod tests;
