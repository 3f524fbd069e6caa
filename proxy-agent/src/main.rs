//! The binary `proxy-agent`: configuration, signals, exit codes.

use std::{process::ExitCode, time::Duration};

use process::{Hangup, Signals, fail};
use proxy_agent::{
    Agent, Config, JoinError, ProgressDisplay, RunError,
    config::{Command, JoinConfig},
    join,
};

/// No hub decided about the join in time.
const EX_UNAVAILABLE: u8 = 69;
/// Something that should not happen.
const EX_SOFTWARE: u8 = 70;
/// The hub has refused, or is another one than the pinned.
const EX_NOPERM: u8 = 77;
/// Ended by a signal before there was anything to end well: 128 + SIGINT.
const EX_INTERRUPTED: u8 = 130;

/// How long a look-up of a name may hold the process up at its end.
const RUNTIME_TIMEOUT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let (command, format) = match Command::read(std::env::args_os()) {
        Ok(read) => read,
        Err(stop) => return stop.tell(),
    };
    let _log = match process::init(format) {
        Ok(log) => log,
        Err(error) => return fail(&error, EX_SOFTWARE),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error, EX_SOFTWARE),
    };
    let code = runtime.block_on(execute(command));
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    code
}

async fn execute(command: Command) -> ExitCode {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return fail(&error, EX_SOFTWARE),
    };
    let config = match command {
        Command::Run(config) => config,
        Command::Join { join, then_run } => {
            let joined = tokio::select! {
                joined = join_hub(&join, then_run.is_some()) => joined,
                () = signals.told() => Err(EX_INTERRUPTED.into()),
            };
            match (joined, then_run) {
                (Ok(()), Some(config)) => config,
                (Ok(()), None) => return ExitCode::SUCCESS,
                (Err(code), _) => return code,
            }
        }
    };
    run(config, signals).await
}

#[expect(clippy::print_stdout, reason = "the result of the command")]
async fn join_hub(config: &JoinConfig, runs: bool) -> Result<(), ExitCode> {
    let mut display = ProgressDisplay::new();
    let joined = join(config, |progress| display.show(&progress)).await;
    display.finish();
    let membership = joined.map_err(|error| {
        let code = match &error {
            JoinError::Refused(_) | JoinError::PinMismatch { .. } => EX_NOPERM,
            JoinError::NotDecided { .. } | JoinError::Unreachable { .. } => EX_UNAVAILABLE,
            JoinError::Csr(_) | JoinError::BadAnswer(_) | JoinError::Identity(_) => EX_SOFTWARE,
            JoinError::State(_) => 1,
        };
        fail(&error, code)
    })?;
    println!("joined as agent {} of cluster {}", membership.agent, membership.cluster);
    if !runs {
        println!("start it with: proxy-agent run --state {}", config.state.display());
        println!("(and --allow, --deny and whatever else it is to run with: a join keeps none of these)");
    }
    Ok(())
}

async fn run(config: Config, signals: Signals) -> ExitCode {
    process::raise_open_files();
    // From here on: a join that somebody waits for may end with its terminal.
    let hangup = match Hangup::listen() {
        Ok(hangup) => hangup,
        Err(error) => return fail(&error, EX_SOFTWARE),
    };
    let reopen = || {
        tracing::info!(
            "SIGHUP: the log is standard error, and the files of the identity are watched; nothing to reopen"
        );
    };
    let ended = match Agent::bind(config).await {
        Ok(agent) => signals.govern(hangup, reopen, |stop, abort| agent.run(stop, abort)).await,
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ RunError::Start(_)) => fail(&error, 1),
        Err(error @ RunError::Ended) => fail(&error, EX_SOFTWARE),
    }
}
