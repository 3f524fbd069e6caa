//! `completion`: the script that completes this command in a shell.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::{command::CommandLine, failure::Failure};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    cluster-proxy completion bash > /etc/bash_completion.d/cluster-proxy\n  \
    source <(cluster-proxy completion zsh)")]
pub(crate) struct Completion {
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

impl Completion {
    pub(crate) fn run(&self) -> Result<(), Failure> {
        let mut script = Vec::new();
        generate(self.shell, &mut CommandLine::command(), "cluster-proxy", &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}
