//! The binary `proxy-server`: configuration, signals, exit codes.

use std::{error::Error, process::ExitCode};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    signal::Signal,
};
use proxy_server::{Addresses, Audit, Config, Hub};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let config = match Config::read(std::env::args_os()) {
        Ok(config) => config,
        Err(stop) => return stop.tell(),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", process::Escaped(process::chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

fn run(config: Config) -> Result<(), Box<dyn Error>> {
    let _log = process::init(config.log_format)?;
    raise_open_files();
    // A long list of the registry must not hold up what goes through the gateway.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(config.workers.get().into()).enable_all().build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        // Beyond a limit of a file's size, writing is an error, and not the end.
        let _too_large = signal(SignalKind::from_raw(Signal::SIGXFSZ as i32))?;
        let print_addresses = config.print_addresses;
        // It may wait for the hub before it.
        let hub = tokio::select! {
            hub = Hub::bind(config) => hub?,
            () = told(&mut terminate, &mut interrupt) => {
                tracing::info!("told to stop before it served");
                return Ok(());
            }
        };
        if print_addresses {
            print(hub.addresses());
        }
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let audit = hub.audit();
        let running = hub.run(stop.clone(), abort.clone());
        tokio::select! {
            ended = running => ended?,
            () = forward_signals(terminate, interrupt, stop, abort) => {}
            () = reopen(hangup, audit) => {}
        }
        Ok(())
    })
}

/// A hub holds a file for each client; the soft limit is there for programs that use select(2).
fn raise_open_files() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// The first signal drains, the second cuts. Never returns: the hub's own end does.
async fn forward_signals(
    mut terminate: Signals,
    mut interrupt: Signals,
    stop: CancellationToken,
    abort: CancellationToken,
) {
    for token in [stop, abort] {
        told(&mut terminate, &mut interrupt).await;
        token.cancel();
    }
    std::future::pending().await
}

/// Waits for a signal to stop.
async fn told(terminate: &mut Signals, interrupt: &mut Signals) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Never returns.
async fn reopen(mut hangup: Signals, audit: Audit) {
    while hangup.recv().await.is_some() {
        audit.reopen();
    }
    std::future::pending().await
}

#[expect(clippy::print_stdout, reason = "asked for by --print-addresses")]
fn print(addresses: &Addresses) {
    let Addresses { proxy, tunnel, api, metrics, pin, admin } = addresses;
    let line = serde_json::json!({
        "proxy": proxy, "tunnel": tunnel, "api": api, "metrics": metrics, "pin": pin, "admin": admin,
    });
    println!("{line}");
}
