//! The binary `proxy-server`: configuration, signals, exit codes.

use std::{error::Error, process::ExitCode};

use nix::sys::signal::Signal;
use process::{Hangup, Signals};
use proxy_server::{Addresses, Config, Hub};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let config = match Config::read(std::env::args_os()) {
        Ok(config) => config,
        Err(stop) => return stop.tell(),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => process::fail(&*error, 1),
    }
}

fn run(config: Config) -> Result<(), Box<dyn Error>> {
    let _log = process::init(config.log_format)?;
    process::raise_open_files();
    // A long list of the registry must not hold up what goes through the gateway.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(config.workers.get().into()).enable_all().build()?;
    runtime.block_on(async {
        let (mut signals, hangup) = (Signals::listen()?, Hangup::listen()?);
        // Beyond a limit of a file's size, writing is an error, and not the end.
        let _too_large = signal(SignalKind::from_raw(Signal::SIGXFSZ as i32))?;
        let print_addresses = config.print_addresses;
        // It may wait for the hub before it.
        let hub = tokio::select! {
            hub = Hub::bind(config) => hub?,
            () = signals.told() => {
                tracing::info!("told to stop before it served");
                return Ok(());
            }
        };
        if print_addresses {
            print(hub.addresses());
        }
        let audit = hub.audit();
        Ok(signals.govern(hangup, || audit.reopen(), |stop, abort| hub.run(stop, abort)).await?)
    })
}

#[expect(clippy::print_stdout, reason = "asked for by --print-addresses")]
fn print(addresses: &Addresses) {
    let Addresses { proxy, tunnel, api, metrics, pin, admin } = addresses;
    let line = serde_json::json!({
        "proxy": proxy, "tunnel": tunnel, "api": api, "metrics": metrics, "pin": pin, "admin": admin,
    });
    println!("{line}");
}
