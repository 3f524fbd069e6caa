//! The command line: every setting as a text, so that all that is wrong with them can be told at once.

use std::{collections::BTreeMap, path::PathBuf};

use clap::{Args, Parser, Subcommand};

/// The agent of a spoke: keeps a tunnel open to its hubs, so that they reach the services of this cluster.
///
/// Every flag can also be set as `CLUSTER_PROXY_<FLAG>` in the environment, or in the TOML file given with --config.
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
pub struct Cli {
    #[command(subcommand)]
    command: CliCommand,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Asks a hub to take this agent in, and keeps the certificate it gives.
    Join(JoinArgs),
    /// Keeps tunnels to the hub open and serves what comes through them, until SIGTERM.
    Run(RunArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    proxy-agent join --hub hub.example.com --pin sha256:… --token-file token --run --allow grafana.monitoring:80\n\n\
    'cluster-proxy join-command' on the hub prints the line with its values.")]
struct JoinArgs {
    /// The file that holds the token from 'cluster-proxy token create'; '-' reads it from standard input.
    #[arg(long, value_name = "FILE")]
    token_file: Option<String>,
    /// The token itself. Other users of the machine see command lines: prefer --token-file or CLUSTER_PROXY_TOKEN.
    #[arg(long)]
    token: Option<String>,
    /// The hub's pin, from 'cluster-proxy join-command'.
    #[arg(long, value_name = "sha256:…")]
    pin: Option<String>,
    /// This cluster's name, unless the token is bound to one.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// This agent's name in the cluster [default: the host's name].
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// How long to wait for the hub's administrator [default: 10m].
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// Go on with 'run' once joined.
    #[arg(long)]
    run: bool,
    #[command(flatten)]
    rest: RunArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    proxy-agent run\n  \
    proxy-agent run --allow grafana.monitoring:80 --allow 10.0.0.0/24:5432 --metrics-listen none")]
struct RunArgs {
    /// The hub's address; several, each kept connected, with commas or by repeating the flag.
    #[arg(long, value_name = "HOST[:PORT]")]
    hub: Vec<String>,
    /// The state folder [default: /var/lib/cluster-proxy-agent for root, else ~/.local/state/cluster-proxy-agent].
    #[arg(long, value_name = "FOLDER")]
    state: Option<String>,
    /// Let the hub reach only what such rules name: HOST_OR_CIDR[:PORT[-PORT]], like 'grafana.monitoring:80', '@cluster' for the
    /// Kubernetes API and the Services of the agent's own cluster, or '*'. Without a rule: '@cluster' in a pod, elsewhere nothing.
    #[arg(long, value_name = "RULE")]
    allow: Vec<String>,
    /// Never let the hub reach what such rules name, by none of the names and addresses that it has.
    #[arg(long, value_name = "RULE")]
    deny: Vec<String>,
    /// This cluster's API server [default: as for any pod, else kubernetes.default.svc:443].
    #[arg(long, value_name = "HOST:PORT")]
    kube_api: Option<String>,
    /// Whose rights kubectl has through the hub: 'impersonate' the hub's user, by this agent's service account; 'token', the
    /// user's own for this cluster; or 'off' [default: impersonate].
    #[arg(long, value_name = "HOW")]
    gateway: Option<String>,
    /// The groups of the hub's users to impersonate, like 'team-*'; 'system:' ones must be named [default: all others].
    #[arg(long, value_name = "GROUP")]
    gateway_groups: Vec<String>,
    /// The CA of the API server, PEM [default: as for any pod].
    #[arg(long, value_name = "FILE")]
    kube_ca: Option<String>,
    /// The token of a service account that may impersonate the hub's users and groups [default: as for any pod].
    #[arg(long, value_name = "FILE")]
    kube_token: Option<String>,
    /// The CAs of services that the hub reaches by https, PEM [default: that of the API server].
    #[arg(long, value_name = "FILE")]
    service_ca: Vec<String>,
    /// Export the Kubernetes services with such labels and the annotation prometheus.io/scrape: "true"; port, path and scheme
    /// are annotations, too. The agent's service account must be allowed to list services. Empty: all services.
    #[arg(long, value_name = "SELECTOR")]
    export_services: Option<String>,
    /// How often to look for such services [default: 30s].
    #[arg(long, value_name = "DURATION")]
    export_interval: Option<String>,
    /// Where to serve /metrics, /healthz and /readyz; 'none' for nowhere [default: 127.0.0.1:8093].
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// How long open connections may take to end when the agent stops [default: 30s].
    #[arg(long, value_name = "DURATION")]
    drain_timeout: Option<String>,
    /// The largest IP packet to send to the hub, 1280 to 9000; what the path carries is found out [default: 9000].
    #[arg(long, value_name = "BYTES")]
    max_mtu: Option<String>,
    /// The most that the streams of one tunnel may hold together, 64MiB or more [default: 512MiB].
    #[arg(long, value_name = "SIZE")]
    tunnel_memory: Option<String>,
    /// 'text' or 'json' [default: text].
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// A TOML file with any of these settings, and with the services that Prometheus is to scrape: tables 'export' with
    /// name and target, like 'node-exporter.monitoring:9100', and job, labels, metrics-path and scheme where they differ from
    /// the usual. It is read at the start.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Cli {
    /// The flags by name, and the file. Only a join has the flag `run`.
    pub(crate) fn flags(self) -> (BTreeMap<&'static str, Vec<String>>, Option<PathBuf>) {
        let mut flags = BTreeMap::new();
        let rest = match self.command {
            CliCommand::Run(rest) => rest,
            CliCommand::Join(JoinArgs { token_file, token, pin, cluster, agent, timeout, run, rest }) => {
                let once = [
                    ("token-file", token_file),
                    ("token", token),
                    ("pin", pin),
                    ("cluster", cluster),
                    ("agent", agent),
                    ("timeout", timeout),
                ];
                flags.extend(once.map(|(name, text)| (name, Vec::from_iter(text))));
                flags.insert("run", if run { vec!["true".into()] } else { Vec::new() });
                rest
            }
        };
        let RunArgs {
            hub,
            state,
            allow,
            deny,
            kube_api,
            gateway,
            gateway_groups,
            kube_ca,
            kube_token,
            service_ca,
            export_services,
            export_interval,
            metrics_listen,
            drain_timeout,
            max_mtu,
            tunnel_memory,
            log_format,
            config,
        } = rest;
        flags.extend([("hub", hub), ("allow", allow), ("deny", deny)]);
        flags.extend([("gateway-groups", gateway_groups), ("service-ca", service_ca)]);
        flags.extend(
            [
                ("state", state),
                ("kube-api", kube_api),
                ("gateway", gateway),
                ("kube-ca", kube_ca),
                ("kube-token", kube_token),
                ("export-services", export_services),
                ("export-interval", export_interval),
                ("metrics-listen", metrics_listen),
                ("drain-timeout", drain_timeout),
                ("max-mtu", max_mtu),
                ("tunnel-memory", tunnel_memory),
                ("log-format", log_format),
            ]
            .map(|(name, text)| (name, Vec::from_iter(text))),
        );
        (flags, config)
    }
}
