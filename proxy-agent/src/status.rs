//! How each hub's tunnel is doing: what `/readyz` tells, and what a caller may wait for.

use std::fmt::Write;

use tokio::sync::watch;

use crate::hub::HubAddress;

/// The state of every hub's tunnel.
#[derive(Debug)]
pub(crate) struct Status {
    hubs: watch::Sender<Vec<(HubAddress, HubState)>>,
}

/// How one hub's tunnel is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HubState {
    /// Not tried yet.
    Connecting,
    /// The tunnel is up.
    Ready,
    /// Another address of the same hub has the tunnel.
    Standby,
    /// The hub has said that it will stop: the tunnel serves what is open.
    HubDraining,
    /// Why there is no tunnel.
    Failed(String),
}

/// Waits for an agent to be ready.
#[derive(Clone, Debug)]
pub struct Readiness(watch::Receiver<Vec<(HubAddress, HubState)>>);

impl Status {
    pub(crate) fn new(hubs: &[HubAddress]) -> Self {
        Self { hubs: watch::Sender::new(hubs.iter().map(|hub| (hub.clone(), HubState::Connecting)).collect()) }
    }

    pub(crate) fn set(&self, hub: &HubAddress, state: HubState) {
        self.hubs.send_modify(|hubs| {
            if let Some((_, own)) = hubs.iter_mut().find(|(own, _)| own == hub) {
                *own = state;
            }
        });
    }

    /// At least one tunnel is up; otherwise each hub's reason, a line each.
    pub(crate) fn ready(&self) -> Result<(), String> {
        let hubs = self.hubs.borrow();
        if is_ready(&hubs) {
            return Ok(());
        }
        let mut text = String::from("no tunnel is up\n");
        for (hub, state) in hubs.iter() {
            let why = match state {
                HubState::Connecting | HubState::Ready => "connecting",
                HubState::Standby => "standing by for another address of the same hub",
                HubState::HubDraining => "the hub is stopping",
                HubState::Failed(why) => why,
            };
            // Writing to a text does not fail.
            let _ = writeln!(text, "{hub}: {why}");
        }
        Err(text)
    }

    pub(crate) fn subscribe(&self) -> Readiness {
        Readiness(self.hubs.subscribe())
    }
}

impl Readiness {
    /// Resolves once at least one tunnel is up; `false` when the agent has ended before. Bound the wait.
    pub async fn wait(&mut self) -> bool {
        self.0.wait_for(|hubs| is_ready(hubs)).await.is_ok()
    }
}

fn is_ready(hubs: &[(HubAddress, HubState)]) -> bool {
    hubs.iter().any(|(_, state)| *state == HubState::Ready)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_tunnel_makes_an_agent_ready() {
        let hubs: Vec<HubAddress> = vec!["a".parse().unwrap(), "b".parse().unwrap()];
        let status = Status::new(&hubs);
        let mut readiness = status.subscribe();
        status.set(&hubs[0], HubState::Failed("it does not answer".into()));
        assert_eq!(status.ready(), Err("no tunnel is up\na:8091: it does not answer\nb:8091: connecting\n".into()));
        status.set(&hubs[1], HubState::Ready);
        assert_eq!(status.ready(), Ok(()));
        assert!(readiness.wait().await);
        status.set(&hubs[1], HubState::HubDraining);
        assert!(status.ready().unwrap_err().contains("b:8091: the hub is stopping"));
        drop(status);
        assert!(!readiness.wait().await);
    }
}
