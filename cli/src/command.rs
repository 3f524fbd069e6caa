//! The command line: what can be asked for, and who does it.

use std::path::PathBuf;

use clap::{
    Parser, Subcommand,
    builder::styling::{AnsiColor, Styles},
};

use crate::{
    api::Api,
    clusters::Clusters,
    completion::Completion,
    credentials,
    decision::{Accept, Delete, Deny},
    demo::Demo,
    failure::Failure,
    init::Init,
    join_command::JoinCommand,
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
    /// Let clusters in that asked to join, with all their agents that wait
    Accept(Accept),
    /// Shut clusters out: their tunnels are closed and stay closed
    Deny(Deny),
    /// Remove clusters and their agents from the hub
    Delete(Delete),
    /// Make, list and delete the tokens that clusters join with
    #[command(subcommand)]
    Token(TokenCommand),
    /// Print the one line to paste in a cluster to have it join
    JoinCommand(JoinCommand),
    /// Make, list and delete users of the proxy
    #[command(subcommand)]
    User(UserCommand),
    /// Forward local ports to a service in a cluster
    PortForward(PortForward),
    /// Print the configuration by which Prometheus scrapes what the clusters export
    PrometheusConfig(PrometheusConfig),
    /// Show the hub at a glance
    #[command(after_help = "Example:\n  cluster-proxy status")]
    Status,
    /// Show all of it on this machine: a hub, two spokes, and every way through
    Demo(Demo),
    /// Print the completion script of a shell
    Completion(Completion),
}

impl CommandLine {
    /// Does what was asked.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let named = self.credentials.as_deref();
        let api = || -> Result<Api, Failure> { Ok(Api::new(&credentials::find(named)?)?) };
        match self.command {
            Command::Init(init) => init.run(&credentials::find(named)?),
            Command::Clusters(clusters) => clusters.run(&api()?).await,
            Command::Accept(accept) => accept.run(&api()?).await,
            Command::Deny(deny) => deny.run(&api()?).await,
            Command::Delete(delete) => delete.run(&api()?).await,
            Command::Token(token) => token.run(&api()?).await,
            Command::JoinCommand(join_command) => join_command.run(&api()?).await,
            Command::User(user) => user.run(&credentials::find(named)?).await,
            Command::PortForward(forward) => forward.run(&credentials::find(named)?).await,
            Command::PrometheusConfig(config) => {
                config.run(&credentials::find(named)?.hub, &credentials::folder(named)?)
            }
            Command::Demo(demo) => demo.run().await,
            Command::Status => status::run(&api()?).await,
            Command::Completion(completion) => completion.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

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
