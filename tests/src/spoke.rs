//! A spoke: a real `proxy-agent`, joined to a hub, that may reach this machine's loopback where the targets are.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::hub::JoinTerms;
use crate::{Fetch, Hub, Process, Program, loopback, wait_for};

/// How long a join that needs no accept, or a start, may take on a loaded machine.
const START: Duration = Duration::from_secs(30);
/// How long a stop may take beyond what the scenario sets as its drain time-out.
const STOP: Duration = Duration::from_secs(45);
/// The port of an agent's metrics; each agent of a run gets a loopback address of its own instead of a port.
const METRICS_PORT: u16 = 8093;

/// A spoke about to start.
#[derive(Debug)]
pub struct SpokeBuilder<'a> {
    hub: &'a Hub,
    cluster: String,
    agent: Option<String>,
    token: Option<String>,
    via: Option<SocketAddr>,
    policy: Vec<String>,
    arguments: Vec<String>,
    shell: Option<String>,
    hosts: Option<PathBuf>,
    netns: Option<Netns>,
}

/// A network namespace to run in.
#[derive(Debug, Clone)]
struct Netns {
    file: PathBuf,
    /// Of the namespace, and reached from where the test is.
    address: IpAddr,
}

/// An agent of a cluster. It is killed and its state removed when dropped.
#[derive(Debug)]
pub struct Spoke {
    process: Process,
    cluster: String,
    metrics: SocketAddr,
    arguments: Vec<String>,
    shell: Option<String>,
    hosts: Option<PathBuf>,
    netns: Option<Netns>,
    state: TempDir,
}

impl SpokeBuilder<'_> {
    /// Names the agent, where a cluster has several.
    #[must_use]
    pub fn agent(mut self, name: &str) -> Self {
        self.agent = Some(name.to_owned());
        self
    }

    /// Joins with this token instead of one made for it.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Dials the hub by this address instead of its own, e.g. a [`crate::Nat`]'s.
    #[must_use]
    pub fn via(mut self, address: SocketAddr) -> Self {
        self.via = Some(address);
        self
    }

    /// Replaces the target policy, which allows all of loopback: `["--allow", RULE, "--deny", RULE, …]`.
    #[must_use]
    pub fn policy<A: Into<String>>(mut self, flags: impl IntoIterator<Item = A>) -> Self {
        self.policy = flags.into_iter().map(Into::into).collect();
        self
    }

    /// Adds arguments of `proxy-agent run`.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Has a shell run `line` first, in the agent's own process; see [`Program::after_shell`].
    #[must_use]
    pub fn after_shell(mut self, line: &str) -> Self {
        self.shell = Some(line.to_owned());
        self
    }

    /// Resolves names by this file instead of the machine's `/etc/hosts`.
    #[must_use]
    pub fn hosts(mut self, file: &Path) -> Self {
        self.hosts = Some(file.to_owned());
        self
    }

    /// Runs inside a network namespace, given by its file and by an address it has there. Targets at that address are allowed too.
    #[must_use]
    pub fn inside(mut self, netns: &Path, address: IpAddr) -> Self {
        self.policy.extend(["--allow".to_owned(), address.to_string()]);
        self.netns = Some(Netns { file: netns.to_owned(), address });
        self
    }

    /// The `proxy-agent join` of this spoke with its state in `state`, for scenarios about joining itself.
    pub async fn join(&self, state: &Path) -> Result<Program> {
        let token = match &self.token {
            Some(token) => token.clone(),
            None => self.hub.create_token(&JoinTerms::auto_accepted(&self.cluster)).await?,
        };
        let addresses = self.hub.addresses();
        let hub = self.via.unwrap_or(addresses.tunnel);
        let mut join = Program::of_workspace("proxy-agent")?.args(["join", "--hub", &hub.to_string()]);
        join = join.args(["--token", &token, "--pin", &addresses.pin, "--cluster", &self.cluster]);
        if let Some(agent) = &self.agent {
            join = join.args(["--agent", agent]);
        }
        Ok(within(self.netns.as_ref(), join.arg("--state").arg(state)))
    }

    /// Joins, runs the agent, and waits until its tunnel is up.
    pub async fn start(self) -> Result<Spoke> {
        let state = TempDir::new().context("no temporary folder for the agent's state")?;
        self.join(state.path()).await?.run(START).await?.success()?;
        let Self { cluster, policy, arguments, shell, hosts, netns, .. } = self;
        let (arguments, metrics) = ([policy, arguments].concat(), own_metrics_address(netns.as_ref()));
        let agent = agent(state.path(), metrics, &arguments, shell.as_deref(), hosts.as_deref(), netns.as_ref())?;
        let process = agent.spawn()?;
        ready(metrics).await?;
        Ok(Spoke { process, cluster, metrics, arguments, shell, hosts, netns, state })
    }
}

impl Spoke {
    /// An agent for `cluster`, to be started.
    pub fn of<'a>(hub: &'a Hub, cluster: &str) -> SpokeBuilder<'a> {
        SpokeBuilder {
            hub,
            cluster: cluster.to_owned(),
            agent: None,
            token: None,
            via: None,
            policy: ["--allow", "127.0.0.0/8", "--allow", "::1/128"].map(str::to_owned).to_vec(),
            arguments: Vec::new(),
            shell: None,
            hosts: None,
            netns: None,
        }
    }

    /// Its cluster's name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its `/metrics /healthz /readyz`.
    pub fn metrics(&self) -> SocketAddr {
        self.metrics
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

    /// Asks it to stop and demands that it ends well.
    pub async fn stop(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.exits_with(0, STOP).await
    }

    /// Kills it at once.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.kill().await
    }

    /// Runs it again after [`Self::stop`] or [`Self::kill`], without joining anew, and waits until its tunnel is up.
    pub async fn start_again(&mut self) -> Result<()> {
        self.begin_again()?;
        ready(self.metrics).await
    }

    /// As [`Self::start_again`], and waits for nothing.
    pub fn begin_again(&mut self) -> Result<()> {
        let Self { metrics, arguments, shell, hosts, netns, state, .. } = self;
        let agent = agent(state.path(), *metrics, arguments, shell.as_deref(), hosts.as_deref(), netns.as_ref())?;
        self.process = agent.spawn()?;
        Ok(())
    }
}

/// The agent, to be run.
fn agent(
    state: &Path,
    metrics: SocketAddr,
    arguments: &[String],
    shell: Option<&str>,
    hosts: Option<&Path>,
    netns: Option<&Netns>,
) -> Result<Program> {
    let agent = Program::of_workspace("proxy-agent")?.arg("run").arg("--state").arg(state);
    let agent = agent.args(["--metrics-listen", &metrics.to_string()]).args(arguments);
    let agent = match shell {
        Some(line) => agent.after_shell(line),
        None => agent,
    };
    let agent = match hosts {
        Some(file) => agent.with_hosts(file),
        None => agent,
    };
    Ok(within(netns, agent))
}

/// Waits until an agent says that its tunnel is up.
async fn ready(metrics: SocketAddr) -> Result<()> {
    wait_for(START, "the agent's tunnel", async || Fetch::get("/readyz").plain(metrics).await?.success()).await?;
    Ok(())
}

fn within(netns: Option<&Netns>, program: Program) -> Program {
    match netns {
        Some(netns) => program.inside(&netns.file),
        None => program,
    }
}

/// An address of its own for a new agent's probes. In a network namespace, a port that no other agent of this run has.
fn own_metrics_address(netns: Option<&Netns>) -> SocketAddr {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    match netns {
        Some(netns) => {
            let number = TAKEN.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            (netns.address, METRICS_PORT.wrapping_add(number)).into()
        }
        None => (loopback::unused(), METRICS_PORT).into(),
    }
}
