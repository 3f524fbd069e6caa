//! The processes of a measurement: a program runs itself again, once for each role, so that CPU seconds can be told apart.

use std::env;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use tests::{Process, Program};
use tokio::runtime::Runtime;

use crate::fleet_agents::FleetAgents;
use crate::handshakes::{BareServer, Handshakes};
use crate::idlers::Idlers;
use crate::load::Load;
use crate::place::{self, Place};
use crate::quinn_ends::QuinnExit;
use crate::relay::Relay;
use crate::service::Service;
use crate::tls_relay::{TlsEntry, TlsExit};
use crate::yamux_tunnel::{YamuxEntry, YamuxExit};

/// The first argument of a process that plays a role.
const ROLE: &str = "role";
/// How long a role may take to listen.
const START: Duration = Duration::from_secs(10);

/// What one process does. It is told as JSON in one argument.
#[derive(Debug, Serialize, Deserialize)]
pub enum Role {
    /// The service at the end of every path.
    Service(Service),
    /// A hop of the plain TCP relay.
    Relay(Relay),
    /// The hop of the TLS relay at the clients.
    TlsEntry(TlsEntry),
    /// The hop of the TLS relay at the service.
    TlsExit(TlsExit),
    /// The far end of a raw QUIC connection, which is its own service.
    QuinnExit(QuinnExit),
    /// The hop of the yamux tunnel at the clients.
    YamuxEntry(YamuxEntry),
    /// The hop of the yamux tunnel at the service.
    YamuxExit(YamuxExit),
    /// The clients.
    Load(Load),
    /// Clients that do nothing.
    Idlers(Idlers),
    /// Many agents.
    FleetAgents(FleetAgents),
    /// The far end of bare TLS handshakes.
    BareServer(BareServer),
    /// The near end of handshakes of all kinds.
    Handshakes(Handshakes),
}

/// What a role that listens prints once it does.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificate it made for itself, DER, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Vec<u8>>,
}

impl Role {
    /// Starts a process that listens, and waits until it says where.
    pub async fn start(&self, place: &Place) -> Result<(Process, Ready)> {
        let process = self.program(place)?.spawn()?;
        let ready = process.stdout_json(START).await?;
        Ok((process, serde_json::from_value(ready).context("a role is ready in other words")?))
    }

    /// The process that plays this role, to be run.
    pub fn program(&self, place: &Place) -> Result<Program> {
        let program = Program::at(env::current_exe()?).arg(ROLE).arg(serde_json::to_string(self)?).quiet();
        Ok(match &place.netns {
            Some(netns) => program.arg(netns),
            None => program,
        })
    }

    /// Plays it to its end. Each role has one thread: on two cores that is the faster form of every path. Agents, which are a process
    /// each, share all processors with their hub.
    fn play(self) -> Result<()> {
        let mut builder = if matches!(self, Self::FleetAgents(_)) {
            tokio::runtime::Builder::new_multi_thread()
        } else {
            tokio::runtime::Builder::new_current_thread()
        };
        let runtime = builder.enable_all().build()?;
        match self {
            Self::Service(service) => runtime.block_on(service.run()),
            Self::Relay(relay) => runtime.block_on(relay.run()),
            Self::TlsEntry(entry) => runtime.block_on(entry.run()),
            Self::TlsExit(exit) => runtime.block_on(exit.run()),
            Self::QuinnExit(exit) => runtime.block_on(exit.run()),
            Self::YamuxEntry(entry) => runtime.block_on(entry.run()),
            Self::YamuxExit(exit) => runtime.block_on(exit.run()),
            Self::Load(load) => runtime.block_on(load.run()),
            Self::Idlers(idlers) => runtime.block_on(idlers.run()),
            Self::FleetAgents(agents) => runtime.block_on(agents.run()),
            Self::BareServer(server) => runtime.block_on(server.run()),
            Self::Handshakes(handshakes) => runtime.block_on(handshakes.run()),
        }
    }
}

impl Ready {
    /// One that only listens.
    pub fn at(address: SocketAddr) -> Self {
        Self { address, certificate: None }
    }
}

/// Plays the role that the command line names, if it names one. A program calls this before anything else.
pub fn run() -> Result<bool> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let (role, netns) = match arguments.as_slice() {
        [first, role] if first == ROLE => (role, None),
        [first, role, netns] if first == ROLE => (role, Some(netns)),
        [first, ..] if first == ROLE => bail!("a role is one argument of JSON"),
        _ => return Ok(false),
    };
    if let Some(netns) = netns {
        place::enter(Path::new(netns))?;
    }
    let role: Role = serde_json::from_str(&role.to_string_lossy()).context("a role that this program does not know")?;
    role.play()?;
    Ok(true)
}

/// Prints what the process that started this one waits for: one line of JSON.
#[expect(clippy::print_stdout, reason = "the way a role speaks to the program that started it")]
pub fn say(message: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(message)?);
    Ok(())
}

/// A runtime for the program itself, which only waits for others.
pub(crate) fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
