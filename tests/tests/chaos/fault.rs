//! The faults: what is done to a site, and what is undone.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::site::Site;

/// One fault. Numbers are seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    /// Killed, and nobody starts it again for a while.
    AgentKilled,
    /// Killed, and started again at once.
    AgentCrashed,
    AgentStopped,
    AgentFrozen(u64),
    HubKilled,
    HubStopped,
    HubFrozen(u64),
    LinkDown(u64),
    /// What the agent sends is lost.
    AgentMute,
    /// What the hub sends is lost.
    HubMute,
    /// The round trip takes 8 s.
    Spike,
    EtcdAway,
    EtcdSlow,
    EtcdRestarted,
    AgentClock,
    HubClock,
    DiskFull,
    NoDescriptors,
}

pub(crate) use Fault::*;

/// Every fault of the matrix.
pub(crate) const ALL: [Fault; 25] = [
    AgentKilled,
    AgentCrashed,
    AgentStopped,
    AgentFrozen(5),
    AgentFrozen(20),
    AgentFrozen(60),
    HubKilled,
    HubStopped,
    HubFrozen(5),
    HubFrozen(20),
    HubFrozen(60),
    LinkDown(5),
    LinkDown(13),
    LinkDown(30),
    LinkDown(120),
    AgentMute,
    HubMute,
    Spike,
    EtcdAway,
    EtcdSlow,
    EtcdRestarted,
    AgentClock,
    HubClock,
    DiskFull,
    NoDescriptors,
];

impl Fault {
    /// How long it lasts, until what was done is undone.
    pub(crate) fn lasts(self) -> Duration {
        Duration::from_secs(match self {
            AgentFrozen(seconds) | HubFrozen(seconds) | LinkDown(seconds) => seconds,
            AgentCrashed | AgentStopped | HubKilled | HubStopped | EtcdRestarted => 1,
            AgentKilled | AgentMute | HubMute | EtcdAway | EtcdSlow => 20,
            Spike => 18,
            AgentClock | HubClock | DiskFull | NoDescriptors => 10,
        })
    }

    /// Two of one kind are no pair: a process is not frozen twice.
    pub(crate) fn is_like(self, other: Self) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }

    pub(crate) fn needs_etcd(self) -> bool {
        matches!(self, EtcdAway | EtcdSlow | EtcdRestarted)
    }

    pub(crate) fn needs_clock(self) -> bool {
        matches!(self, AgentClock | HubClock)
    }

    /// Does it, to the agent at `place` where it concerns an agent.
    pub(crate) async fn begin(self, site: &mut Site, place: usize) -> Result<()> {
        match self {
            AgentKilled => site.kill_agent(place, false).await?,
            AgentCrashed => site.kill_agent(place, true).await?,
            AgentStopped => site.stop_agent(place)?,
            AgentFrozen(_) => site.freeze_agent(place, true)?,
            HubKilled => site.kill_hub().await?,
            HubStopped => site.succeed_hub().await?,
            HubFrozen(_) => site.freeze_hub(true)?,
            LinkDown(_) | AgentMute | HubMute | Spike => site.weather(place, self, true),
            EtcdAway => site.kill_etcd(false).await?,
            EtcdRestarted => site.kill_etcd(true).await?,
            EtcdSlow => site.slow_etcd(true)?,
            AgentClock => site.agent_clock(place, "-20h")?,
            HubClock => site.hub_clock("+3d")?,
            DiskFull => site.fill_disk(true).await?,
            NoDescriptors => site.take_descriptors().await?,
        }
        Ok(())
    }

    /// Undoes it.
    pub(crate) async fn end(self, site: &mut Site, place: usize) -> Result<()> {
        match self {
            AgentKilled => site.let_agent_run(place),
            AgentCrashed | AgentStopped | HubKilled | HubStopped | EtcdRestarted => {}
            AgentFrozen(_) => site.freeze_agent(place, false)?,
            HubFrozen(_) => site.freeze_hub(false)?,
            LinkDown(_) | AgentMute | HubMute | Spike => site.weather(place, self, false),
            EtcdAway => site.let_etcd_run(),
            EtcdSlow => site.slow_etcd(false)?,
            AgentClock => site.agent_clock(place, "+0")?,
            HubClock => site.hub_clock("+0")?,
            DiskFull => site.fill_disk(false).await?,
            NoDescriptors => site.give_descriptors().await?,
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let away = self.lasts().as_secs();
        match self {
            AgentKilled => write!(f, "agent killed, back after {away} s"),
            AgentCrashed => f.write_str("agent killed, back at once"),
            AgentStopped => f.write_str("agent stopped and started"),
            AgentFrozen(seconds) => write!(f, "agent frozen for {seconds} s"),
            HubKilled => f.write_str("hub killed, back at once"),
            HubStopped => f.write_str("hub stopped, the next one started"),
            HubFrozen(seconds) => write!(f, "hub frozen for {seconds} s"),
            LinkDown(seconds) => write!(f, "link down for {seconds} s"),
            AgentMute => write!(f, "link one way only for {away} s, agent not heard"),
            HubMute => write!(f, "link one way only for {away} s, hub not heard"),
            Spike => write!(f, "round trip of 8 s for {away} s"),
            EtcdAway => write!(f, "etcd away for {away} s"),
            EtcdSlow => write!(f, "etcd slow for {away} s"),
            EtcdRestarted => f.write_str("etcd restarted"),
            AgentClock => f.write_str("agent's clock 20 h slow"),
            HubClock => f.write_str("hub's clock 3 d fast"),
            DiskFull => write!(f, "hub's disk full for {away} s"),
            NoDescriptors => write!(f, "hub out of descriptors for {away} s"),
        }
    }
}

/// Freezes or thaws a process; one that has ended is none to do it to.
pub(crate) fn freeze(process: &tests::Process, frozen: bool) {
    // The process may be gone by another fault.
    drop(process.signal(if frozen { Signal::SIGSTOP } else { Signal::SIGCONT }));
}
