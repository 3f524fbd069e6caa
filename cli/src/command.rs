//! The command line: what can be asked for, and who does it.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{
    CommandFactory, FromArgMatches, Parser, Subcommand,
    builder::styling::{AnsiColor, Styles},
};

use crate::{
    api::Api,
    backup::{BackupCommand, Restore},
    ca::CaCommand,
    clusters::Clusters,
    completion::Completion,
    credential::Credential,
    credentials,
    decision::{Accept, Delete, Deny, Revoke},
    demo::Demo,
    failure::Failure,
    init::Init,
    join_command::JoinCommand,
    kubeconfig::Kubeconfig,
    kubectl::Kubectl,
    port_forward::PortForward,
    prometheus_config::PrometheusConfig,
    status,
    token::TokenCommand,
    user::UserCommand,
};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Yellow.on_default().bold())
    .usage(AnsiColor::Yellow.on_default().bold())
    .literal(AnsiColor::Green.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

/// What a user of the plug-in types.
const PLUGIN: &str = "kubectl cluster-proxy";

/// Reach services inside clusters that accept no inbound connection.
#[derive(Debug, Parser)]
#[command(
    name = "cluster-proxy",
    version,
    styles = STYLES,
    max_term_width = 110,
    after_help = "First steps:\n  \
        proxy-server                               on the hub: start it\n  \
        cluster-proxy join-command edge-1          on the hub: prints the line to paste in the cluster\n  \
        cluster-proxy clusters                     who is there\n  \
        cluster-proxy kubeconfig --all --merge     a kubectl context for each\n  \
        cluster-proxy port-forward -c edge-1 grafana.monitoring 3000:80\n\n\
        Or see all of it on this machine: cluster-proxy demo"
)]
pub(crate) struct CommandLine {
    /// Folder of the credentials to use [default: ~/.config/cluster-proxy, else those of the hub on this machine]
    #[arg(long, global = true, value_name = "DIR", env = "CLUSTER_PROXY_CREDENTIALS")]
    credentials: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a kubeconfig with which kubectl administers the hub
    Init(Init),
    /// List the clusters, and whether they can be reached
    Clusters(Clusters),
    /// Let clusters and agents in that asked to join, showing their keys
    Accept(Accept),
    /// Shut clusters out: their tunnels are closed and stay closed
    Deny(Deny),
    /// Send agents away: their tunnels are cut and their keys stay out
    Revoke(Revoke),
    /// Remove clusters, or single agents, from the hub
    Delete(Delete),
    /// Make, list and delete the tokens that clusters join with
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the one line to paste in a cluster to have it join
    JoinCommand(JoinCommand),
    /// Make, list and delete users of the proxy
    #[command(subcommand)]
    User(UserCommand),
    /// Write kubectl contexts for clusters, reached through the hub
    Kubeconfig(Kubeconfig),
    /// Run kubectl against a cluster
    Kubectl(Kubectl),
    /// Print a short-lived credential, as kubectl asks for it
    Credential(Credential),
    /// Forward local ports to services in clusters
    PortForward(PortForward),
    /// Print the configuration by which Prometheus scrapes what the clusters export
    PrometheusConfig(PrometheusConfig),
    /// Show the hub at a glance
    #[command(after_help = "Example:\n  cluster-proxy status")]
    Status,
    /// Show the hub's CA, and replace it while everybody stays connected
    #[command(subcommand)]
    Ca(CaCommand),
    /// Write the hub's registry and CA into one file, while it serves
    Backup(BackupCommand),
    /// Put a backup into the state folder of a hub that does not run
    Restore(Restore),
    /// Show all of it on this machine: a hub, two spokes, and every way through
    Demo(Demo),
    /// Print the completion script of a shell
    Completion(Completion),
}

impl CommandLine {
    /// Reads it. By the name that kubectl gives its plug-ins, the help shows how kubectl is asked.
    pub(crate) fn read(mut words: impl Iterator<Item = OsString>) -> Result<Self, clap::Error> {
        let program = words.next().unwrap_or_default();
        let name = if is_plugin(Path::new(&program)) { PLUGIN } else { "cluster-proxy" };
        let command = Self::command().name(name).bin_name(name).no_binary_name(true);
        Self::from_arg_matches(&command.try_get_matches_from(words)?)
    }

    /// Does what was asked.
    pub(crate) async fn run(self) -> Result<ExitCode, Failure> {
        let named = self.credentials.as_deref();
        let api = || -> Result<Api, Failure> { Ok(Api::of(&credentials::locate(named)?)?) };
        match self.command {
            Command::Init(init) => init.run(&credentials::find(named)?),
            Command::Clusters(clusters) => clusters.run(&api()?).await,
            Command::Accept(accept) => accept.run(&api()?).await,
            Command::Deny(deny) => deny.run(&api()?).await,
            Command::Revoke(revoke) => revoke.run(&api()?).await,
            Command::Delete(delete) => delete.run(&api()?).await,
            Command::Token(token) => token.run(&api()?).await,
            Command::JoinCommand(join_command) => join_command.run(&api()?).await,
            Command::User(user) => user.run(&credentials::locate(named)?).await,
            Command::Kubeconfig(kubeconfig) => kubeconfig.run(&credentials::locate(named)?).await,
            Command::Kubectl(kubectl) => return kubectl.run(&credentials::locate(named)?).await,
            Command::Credential(credential) => credential.run(&credentials::locate(named)?).await,
            Command::PortForward(forward) => forward.run(&credentials::locate(named)?).await,
            Command::PrometheusConfig(config) => {
                config.run(&credentials::find(named)?.hub, &credentials::folder(named)?)
            }
            Command::Ca(ca) => ca.run(&api()?).await,
            Command::Backup(backup) => backup.run(&api()?).await,
            Command::Restore(restore) => restore.run(),
            Command::Demo(demo) => demo.run().await,
            Command::Status => status::run(&api()?).await,
            Command::Completion(completion) => completion.run(),
        }
        .map(|()| ExitCode::SUCCESS)
    }
}

/// Whether this program was found by kubectl: as `kubectl-cluster_proxy`, in PATH.
fn is_plugin(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"kubectl-"))
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        fn check(command: &clap::Command) {
            if command.get_subcommands().next().is_none() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(command.get_name()), "{} shows no example", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&CommandLine::command());
    }

    #[test]
    fn kubectls_plug_in_is_helped_under_its_own_name() {
        let usage = |words: &[&str]| {
            let error = CommandLine::read(words.iter().map(OsString::from)).unwrap_err();
            error.to_string().lines().find(|line| line.starts_with("Usage:")).map(str::to_owned)
        };
        let expected = Some("Usage: kubectl cluster-proxy status [OPTIONS]".to_owned());
        assert_eq!(usage(&["/x/kubectl-cluster_proxy", "status", "--help"]), expected);
        assert_eq!(usage(&["x", "status", "--help"]).as_deref(), Some("Usage: cluster-proxy status [OPTIONS]"));
    }

    #[test]
    fn what_stands_behind_the_cluster_is_kubectls() {
        for line in [
            "p kubectl -C c1 get pods -c web -o json --credentials x",
            "p kubectl -c c1 --namespace x logs -f pod",
            "p kubectl --cluster c1 -- --help",
        ] {
            let words = line.split(' ').map(OsString::from);
            assert!(matches!(CommandLine::read(words).unwrap().command, Command::Kubectl(_)), "{line}");
        }
    }

    #[test]
    fn credentials_may_be_named_before_and_after_the_command() {
        for line in
            [["cluster-proxy", "--credentials", "x", "status"], ["cluster-proxy", "status", "--credentials", "x"]]
        {
            assert_eq!(CommandLine::try_parse_from(line).unwrap().credentials, Some("x".into()));
        }
        let error = CommandLine::try_parse_from(["cluster-proxy", "accept"]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
    }
}
