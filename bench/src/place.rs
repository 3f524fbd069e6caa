//! Where processes run: on loopback, or in network namespaces at the two ends of a link.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};

/// One end: the address to listen on and the network namespace to be in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// This end's own address.
    pub ip: IpAddr,
    /// The namespace's file, e.g. `/run/netns/far`; none: that of this process.
    pub netns: Option<PathBuf>,
}

/// Both ends. The load, and the hub or first relay, are near; the agent or second relay, and the service, are far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Where the clients are.
    pub near: Place,
    /// Where the service is.
    pub far: Place,
}

impl Place {
    /// 127.0.0.1 of this machine.
    pub fn loopback() -> Self {
        Self { ip: Ipv4Addr::LOCALHOST.into(), netns: None }
    }

    /// Any port here.
    pub fn any_port(&self) -> SocketAddr {
        SocketAddr::new(self.ip, 0)
    }
}

impl Places {
    /// Both ends on loopback.
    pub fn loopback() -> Self {
        Self { near: Place::loopback(), far: Place::loopback() }
    }
}

/// Moves this thread, and those it starts later, into a network namespace.
pub fn enter(netns: &Path) -> Result<()> {
    let file = File::open(netns).with_context(|| format!("no network namespace at {}", netns.display()))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {}", netns.display()))
}
