//! `cluster-proxy`: the operator's command.

use std::process::ExitCode;

mod api;
mod backup;
mod ca;
mod cluster_view;
mod clusters;
mod command;
mod completion;
mod config;
mod credential;
mod credentials;
mod decision;
mod demo;
mod dial;
mod duration;
mod failure;
mod follow;
mod init;
mod join_command;
mod kubeconfig;
mod kubectl;
mod output;
mod port_forward;
mod prometheus_config;
mod prompt;
mod quantity;
mod status;
mod subject;
mod suggestion;
mod table;
mod token;
mod user;
mod user_token;
mod yaml;

#[tokio::main]
async fn main() -> ExitCode {
    let line = match command::CommandLine::read(std::env::args_os()) {
        Ok(line) => line,
        Err(error) => return failure::usage(&error),
    };
    match line.run().await {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
