//! `cluster-proxy`: the operator's command.

use std::process::ExitCode;

use clap::Parser;

mod api;
mod clusters;
mod command;
mod completion;
mod config;
mod credentials;
mod decision;
mod demo;
mod dial;
mod duration;
mod failure;
mod init;
mod join_command;
mod output;
mod port_forward;
mod prometheus_config;
mod quantity;
mod status;
mod table;
mod token;
mod user;

#[tokio::main]
async fn main() -> ExitCode {
    let line = match command::CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => return failure::usage(&error),
    };
    match line.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
