//! The rates of agents: how often each may do what costs the hub something.

use std::time::Duration;

use super::Agent;
use crate::limits::rates::{Lines, Rate, Rates};

/// Tunnels that one agent may open: each is written down in the registry. An agent that is restarted in a loop begins ten
/// times a minute.
const OPENINGS: Rate = Rate { every: Duration::from_secs(2), burst: 30 };

/// Renewals of one agent's certificate, which is one in twenty days; each is a signature.
const RENEWALS: Rate = Rate { every: Duration::from_secs(10), burst: 10 };

/// New lists of one agent's exports, each of which is checked. An agent looks at its services every thirty seconds.
pub(super) const EXPORTS: Rate = Rate { every: Duration::from_secs(2), burst: 5 };

/// Messages of one agent, windows aside: ten times as many as all of the above. More end the tunnel: each is read before it is
/// known what it is.
const MESSAGES: Rate = Rate { every: Duration::from_millis(100), burst: 50 };

/// How often agents do what costs the hub something.
#[derive(Debug)]
pub(crate) struct AgentRates {
    pub(super) openings: Rates<Agent>,
    pub(super) renewals: Rates<Agent>,
    pub(super) exports: Rates<Agent>,
    pub(super) messages: Rates<Agent>,
    /// Lines of the log that anybody can cause, then those of agents.
    pub(super) strangers: Lines<()>,
    pub(super) agents: Lines<Agent>,
}

impl Default for AgentRates {
    fn default() -> Self {
        Self {
            openings: Rates::new(OPENINGS),
            renewals: Rates::new(RENEWALS),
            exports: Rates::new(EXPORTS),
            messages: Rates::new(MESSAGES),
            strangers: Lines::default(),
            agents: Lines::default(),
        }
    }
}
