//! Agents while the hub's CA is rotated: they are told the roots over their tunnels, and say what they have kept.

use std::time::Duration;

use certs::{Phase, Pin};
use registry::AgentTrust;
use tunnel::{CloseReason, HubControl, HubMessage, Roots, Trusts};

use super::{AgentIdentity, Agents};
use crate::agents::tunnels::LiveTunnel;

/// Agents that are to renew their certificates at the same time do so over a while: each costs a signature and the agent a
/// write. At this many a second, 10,000 are done in less than two minutes.
const RENEWALS_A_SECOND: usize = 100;

/// An agent names at most so many roots: it has those of one hub.
const ROOTS: usize = 64;

/// What an agent says of itself when its tunnel begins.
pub(super) fn trust_of(issuer: Option<Pin>, trusts: &[String]) -> AgentTrust {
    AgentTrust::new(issuer, pins(trusts))
}

impl Agents {
    /// Tells the agent the roots where it does not have them, or its certificate is another CA's than the one that signs.
    pub(super) fn tell_roots(&self, identity: &AgentIdentity, live: &LiveTunnel, control: &HubControl) {
        let authority = self.authorities.current();
        let trust = live.trust.lock().clone();
        self.note_trust(identity, &trust);
        // It takes none.
        if trust.trusts.is_empty() {
            return;
        }
        let retired: Vec<Pin> = authority.retired().collect();
        let knows = authority.pins().all(|(pin, _)| trust.trusts.contains(&pin));
        let is_certified = trust.issuer == Some(authority.signer());
        if knows && is_certified && !retired.iter().any(|over| trust.trusts.contains(over)) {
            return;
        }
        let all_at_once = Duration::from_secs((self.tunnels.count() / RENEWALS_A_SECOND).max(1) as u64);
        let renew_within = if is_certified { 0 } else { u32::try_from(all_at_once.as_secs()).unwrap_or(u32::MAX) };
        let retired = retired.iter().map(ToString::to_string).collect();
        // A tunnel that is gone asks again on the next.
        let _ = control.send(HubMessage::Roots(Roots { pem: authority.roots_pem(), retired, renew_within }));
    }

    /// Takes what the agent says that it has kept.
    pub(super) fn trusts(&self, identity: &AgentIdentity, live: &LiveTunnel, said: &Trusts) {
        let trust = AgentTrust::new(said.issuer.parse().ok(), pins(&said.pins));
        *live.trust.lock() = trust.clone();
        self.note_trust(identity, &trust);
    }

    /// Closes the tunnels of agents whose certificates no trusted CA has issued; says how many. An agent's word for it is good
    /// enough: its key, which the registry knows, is what no CA's thief has.
    pub(crate) fn cut_strangers(&self) -> usize {
        let authority = self.authorities.current();
        let trusted = |issuer: Pin| authority.pins().any(|(pin, _)| pin == issuer);
        let tunnels = self.tunnels.clusters().into_iter().flat_map(|cluster| self.tunnels.of_cluster(&cluster));
        let strangers = tunnels.filter(|live| !live.trust.lock().issuer.is_some_and(trusted));
        strangers.map(|live| live.close(CloseReason::Done, "the CA of the agent's certificate was revoked")).count()
    }

    /// Only while it matters: a fleet would be written down at every restart of the hub. And of the hub's own roots only.
    fn note_trust(&self, identity: &AgentIdentity, trust: &AgentTrust) {
        let authority = self.authorities.current();
        if authority.phase() == Phase::Settled {
            return;
        }
        let own: Vec<_> = authority.pins().map(|(pin, _)| pin).filter(|pin| trust.trusts.contains(pin)).collect();
        let mut foreign =
            trust.trusts.iter().filter(|pin| !own.contains(pin) && authority.retired().all(|over| over != **pin));
        let (cluster, agent) = (&identity.cluster, &identity.agent);
        if let Some(root) = foreign.next()
            && let Some(left_out) = self.rates.agents.next(&identity.named())
        {
            tracing::warn!(%cluster, %agent, %root, left_out, "an agent trusts a CA that this hub does not know; have it join again if no hub does");
        }
        // Whatever it makes up is one thing to write down.
        let issuer =
            trust.issuer.filter(|issuer| own.contains(issuer) || authority.retired().any(|over| over == *issuer));
        self.presence.trusts(cluster, agent, identity.key, AgentTrust::new(issuer, own));
    }
}

fn pins(texts: &[String]) -> Vec<Pin> {
    texts.iter().take(ROOTS).filter_map(|text| text.parse().ok()).collect()
}
