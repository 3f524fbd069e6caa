//! A hub: a real `proxy-server` on ports of its own, with its state in a temporary folder.

mod admin;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::{Client, Entry};
use crate::credentials::Credentials;
use crate::{Finished, Process, Program, loopback};

pub use admin::{CLUSTERS, ClusterAccess, JoinTerms};

/// How long a start may take on a loaded machine: keys and certificates are made at the first.
const START: Duration = Duration::from_secs(30);
/// How long a stop may take beyond what the scenario sets as its drain time-out.
const STOP: Duration = Duration::from_secs(45);
/// How long one command of the operator may take.
const COMMAND: Duration = Duration::from_secs(30);

/// A hub about to start.
#[derive(Debug, Default)]
pub struct HubBuilder {
    arguments: Vec<String>,
    shell: Option<String>,
    quiet: bool,
    tunnel: Option<IpAddr>,
    tunnel_port: u16,
    proxy: Option<SocketAddr>,
    disk: Option<PathBuf>,
    ca_of: Option<PathBuf>,
}

/// A hub. It is killed and its state removed when dropped.
#[derive(Debug)]
pub struct Hub {
    process: Process,
    addresses: Addresses,
    arguments: Vec<String>,
    shell: Option<String>,
    quiet: bool,
    state: TempDir,
}

/// Where it listens, as it says itself.
#[derive(Debug, Clone)]
pub struct Addresses {
    /// Proxy frontends, TCP.
    pub proxy: SocketAddr,
    /// Agents' tunnels, UDP.
    pub tunnel: SocketAddr,
    /// HTTPS API, TCP.
    pub api: SocketAddr,
    /// `/metrics /healthz /readyz`, TCP.
    pub metrics: SocketAddr,
    /// The pin of its CA, `sha256:…`.
    pub pin: String,
}

impl HubBuilder {
    /// Adds arguments of `proxy-server`, e.g. `["--dial-timeout", "2s"]`.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Has a shell run `line` first, in the hub's own process; see [`Program::after_shell`].
    #[must_use]
    pub fn after_shell(mut self, line: &str) -> Self {
        self.shell = Some(line.to_owned());
        self
    }

    /// Does not show the addresses that it prints; see [`Program::quiet`].
    #[must_use]
    pub fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// Listens for agents at this address of the machine instead of loopback.
    #[must_use]
    pub fn tunnel_at(mut self, address: IpAddr) -> Self {
        self.tunnel = Some(address);
        self
    }

    /// Listens for agents on this port: one that no agent's socket can take while the hub is away, where they are thousands.
    #[must_use]
    pub fn tunnel_port(mut self, port: u16) -> Self {
        self.tunnel_port = port;
        self
    }

    /// Listens for clients at this address, where the shell of [`Self::after_shell`] has a socket for it.
    #[must_use]
    pub fn proxy_at(mut self, address: SocketAddr) -> Self {
        self.proxy = Some(address);
        self
    }

    /// Keeps its state below this folder.
    #[must_use]
    pub fn state_in(mut self, folder: &Path) -> Self {
        self.disk = Some(folder.to_owned());
        self
    }

    /// Has the CA of another hub.
    #[must_use]
    pub fn ca_of(mut self, other: &Hub) -> Self {
        self.ca_of = Some(other.state().to_owned());
        self
    }

    /// Starts it and waits until it is ready.
    pub async fn start(self) -> Result<Hub> {
        let Self { arguments, shell, quiet, tunnel, tunnel_port, proxy, disk, ca_of } = self;
        let state =
            disk.map_or_else(TempDir::new, TempDir::new_in).context("no temporary folder for the hub's state")?;
        for (other, name) in ca_of.iter().flat_map(|other| ["ca.crt", "ca.key"].map(|name| (other, name))) {
            fs::copy(other.join(name), state.path().join(name))?;
        }
        let any: SocketAddr = (loopback::unused(), 0).into();
        let tunnel = (tunnel.unwrap_or_else(|| any.ip()), tunnel_port).into();
        let server = server(state.path(), &arguments, shell.as_deref(), [proxy.unwrap_or(any), tunnel, any, any])?;
        let (process, addresses) = launch(&if quiet { server.quiet() } else { server }).await?;
        Ok(Hub { process, addresses, arguments, shell, quiet, state })
    }
}

impl Hub {
    /// A hub with defaults, or what [`HubBuilder::args`] adds.
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    /// Starts one with defaults.
    pub async fn start() -> Result<Self> {
        Self::builder().start().await
    }

    /// Where it listens; the same over restarts.
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The Unix socket of its proxy frontends.
    pub fn socket(&self) -> PathBuf {
        socket_in(self.state.path())
    }

    /// Its state folder.
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Whether its process has not ended.
    pub fn is_running(&mut self) -> Result<bool> {
        self.process.is_running()
    }

    /// The administrator's credentials, made at the first start.
    pub fn credentials(&self) -> Credentials {
        Credentials::at(self.state.path().join("admin"))
    }

    /// Asks it to stop and demands that it ends well.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.stopped().await
    }

    /// Demands that it ends well, having been asked to.
    pub async fn stopped(&mut self) -> Result<()> {
        self.process.exits_with(0, STOP).await
    }

    /// Kills it at once.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill`], with the same ports and state, and waits until it is ready.
    pub async fn start_again(&mut self) -> Result<()> {
        (self.process, self.addresses) = launch(&self.program()?).await?;
        Ok(())
    }

    /// As [`Self::start_again`], while the process before may still run; gives that back.
    pub async fn succeed(&mut self) -> Result<Process> {
        let (process, addresses) = launch(&self.program()?).await?;
        self.addresses = addresses;
        Ok(std::mem::replace(&mut self.process, process))
    }

    /// As [`Self::succeed`], and waits for nothing: the process before may still run, or not let the new one begin yet.
    pub fn begin_again(&mut self) -> Result<Process> {
        let process = self.program()?.spawn()?;
        Ok(std::mem::replace(&mut self.process, process))
    }

    /// The program that [`Self::start_again`] runs, for starts that are to fail.
    pub fn program(&self) -> Result<Program> {
        let Addresses { proxy, tunnel, api, metrics, .. } = self.addresses;
        let listen = [proxy, tunnel, api, metrics];
        let server = server(self.state.path(), &self.arguments, self.shell.as_deref(), listen)?;
        Ok(if self.quiet { server.quiet() } else { server })
    }

    /// Stops it well and starts it again, with the same ports and state.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Runs the operator's command `cluster-proxy` with the administrator's credentials, to its end.
    pub async fn command<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Result<Finished> {
        self.operator(&self.credentials())?
            .args(arguments.into_iter().map(|a| a.as_ref().to_owned()))
            .run(COMMAND)
            .await
    }

    /// The operator's command with some credentials, for what does not end by itself.
    pub fn operator(&self, credentials: &Credentials) -> Result<Program> {
        Ok(Program::of_workspace("cluster-proxy")?.arg("--credentials").arg(credentials.folder()))
    }

    /// A client of its plain proxy port with the administrator's token, for targets in `cluster`; see [`Client`] for others.
    pub fn client(&self, cluster: &str) -> Result<Client> {
        Ok(Client::new(Entry::Plain(self.addresses.proxy)).cluster(cluster, &self.credentials().token()?))
    }

    /// `http://CLUSTER:TOKEN@HOST:PORT` for `user`, as curl's `-x`, kubectl's `proxy-url` and Prometheus' `proxy_url` take it.
    pub fn proxy_url(&self, scheme: &str, cluster: &str, user: &Credentials) -> Result<String> {
        Ok(format!("{scheme}://{cluster}:{}@{}", user.token()?, self.addresses.proxy))
    }
}

/// The server with its state in `state`, to listen on `listen` (proxy, tunnel, API, metrics; port 0 for any).
fn server(state: &Path, arguments: &[String], shell: Option<&str>, listen: [SocketAddr; 4]) -> Result<Program> {
    let flags = ["--proxy-listen", "--tunnel-listen", "--api-listen", "--metrics-listen"];
    let mut server = Program::of_workspace("proxy-server")?.arg("--print-addresses").arg("--state").arg(state);
    for (flag, address) in flags.iter().zip(listen) {
        server = server.arg(flag).arg(address.to_string());
    }
    server = server.arg("--proxy-socket").arg(socket_in(state)).args(arguments);
    Ok(match shell {
        Some(line) => server.after_shell(line),
        None => server,
    })
}

/// Starts the server, reads where it really listens, and waits until it is ready.
async fn launch(server: &Program) -> Result<(Process, Addresses)> {
    let process = server.spawn()?;
    let addresses = Addresses::parse(&process.stdout_json(START).await?)?;
    let metrics = addresses.metrics;
    crate::wait_for(START, "the hub to be ready", async || {
        crate::Fetch::get("/readyz").plain(metrics).await?.success()
    })
    .await?;
    Ok((process, addresses))
}

fn socket_in(state: &Path) -> PathBuf {
    state.join("proxy.sock")
}

impl Addresses {
    fn parse(line: &Value) -> Result<Self> {
        let text = |field: &str| line[field].as_str().with_context(|| format!("no {field} in {line}"));
        let address = |field| Ok::<_, anyhow::Error>(text(field)?.parse()?);
        Ok(Self {
            proxy: address("proxy")?,
            tunnel: address("tunnel")?,
            api: address("api")?,
            metrics: address("metrics")?,
            pin: text("pin")?.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_printed_addresses_are_read() -> Result<()> {
        let line = json!({
            "proxy": "127.0.0.1:1", "tunnel": "[::1]:2", "api": "127.0.0.1:3", "metrics": "127.0.0.1:4", "pin": "sha256:00",
        });
        let addresses = Addresses::parse(&line)?;
        assert_eq!((addresses.proxy.port(), addresses.tunnel.port(), addresses.pin.as_str()), (1, 2, "sha256:00"));
        let error = Addresses::parse(&json!({ "proxy": "127.0.0.1:1" })).unwrap_err();
        assert!(error.to_string().contains("no tunnel"), "{error}");
        Ok(())
    }
}
