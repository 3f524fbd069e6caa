//! The binary `proxy-agent`: configuration, signals, exit codes.

use std::{error::Error, process::ExitCode, time::Duration};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxy_agent::{
    Agent, Config, JoinError, RunError,
    config::{Command, JoinConfig},
    join,
    progress::ProgressDisplay,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

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
        Err(error) => return failed(&error, EX_SOFTWARE),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error, EX_SOFTWARE),
    };
    let code = runtime.block_on(execute(command));
    runtime.shutdown_timeout(RUNTIME_TIMEOUT);
    code
}

async fn execute(command: Command) -> ExitCode {
    let signals =
        signal(SignalKind::terminate()).and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => return failed(&error, EX_SOFTWARE),
    };
    let config = match command {
        Command::Run(config) => config,
        Command::Join { join, then_run } => {
            let joined = tokio::select! {
                joined = join_hub(&join, then_run.is_some()) => joined,
                () = either(&mut terminate, &mut interrupt) => Err(EX_INTERRUPTED.into()),
            };
            match (joined, then_run) {
                (Ok(()), Some(config)) => config,
                (Ok(()), None) => return ExitCode::SUCCESS,
                (Err(code), _) => return code,
            }
        }
    };
    match run(config, terminate, interrupt).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ RunError::Start(_)) => failed(&error, 1),
        Err(error @ RunError::Ended) => failed(&error, EX_SOFTWARE),
    }
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
        failed(&error, code)
    })?;
    println!("joined as agent {} of cluster {}", membership.agent, membership.cluster);
    if !runs {
        println!("start it with: proxy-agent run --state {}", config.state.display());
        println!("(and --allow, --deny and whatever else it is to run with: a join keeps none of these)");
    }
    Ok(())
}

async fn run(config: Config, mut terminate: Signal, mut interrupt: Signal) -> Result<(), RunError> {
    raise_file_limit();
    // From here on: a join that somebody waits for may end with its terminal.
    let hangup = signal(SignalKind::hangup()).ok();
    let agent = Agent::bind(config).await?;
    let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
    // The first signal drains, the second cuts.
    let signals = async {
        for token in [&stop, &abort] {
            either(&mut terminate, &mut interrupt).await;
            token.cancel();
        }
        std::future::pending().await
    };
    tokio::select! {
        ended = agent.run(stop.clone(), abort.clone()) => ended,
        () = signals => Ok(()),
        () = hung_up(hangup) => Ok(()),
    }
}

/// Tells that there is nothing to be opened again. Never returns.
async fn hung_up(mut hangup: Option<Signal>) {
    while let Some(signal) = &mut hangup
        && signal.recv().await.is_some()
    {
        tracing::info!(
            "SIGHUP: the log is standard error, and the files of the identity are watched; nothing to reopen"
        );
    }
    std::future::pending().await
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Every connection needs a descriptor, and the usual soft limit is 1024.
fn raise_file_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn failed(error: &dyn Error, code: u8) -> ExitCode {
    eprintln!("error: {}", process::Escaped(process::chain(error)));
    code.into()
}
