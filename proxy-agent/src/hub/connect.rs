//! One attempt to open a connection to a hub, and what to do about one that failed.

use std::{
    io,
    time::{Duration, SystemTime},
};

use certs::{Distrust, HUB_SERVER_NAME, HubTls, WrongClock, shown_span, shown_time};
use tokio::time::{Instant, timeout, timeout_at};
use tunnel::{
    AgentControl, AgentTunnel, CloseReason, Connection, ConnectionLost, ControlError, EstablishError, HANDSHAKE, Hello,
    TunnelMemory, Welcome,
};

use crate::{hub::HubAddress, hub::path::Path, target::race::race, target::resolve::Resolver};

/// Why there is no connection to a hub.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the hub's name {hub} does not resolve; check --hub, and the DNS of this machine")]
    NameNotFound { hub: HubAddress, source: io::Error },
    #[error("the hub {hub} does not answer; check that it runs, and that UDP port {} is open", .hub.port())]
    TimedOut { hub: HubAddress },
    #[error("the hub {hub} has no room for this agent yet; it asked to come again in {wait:.1?}")]
    Later { hub: HubAddress, wait: Duration },
    #[error("the hub {hub} is not trusted")]
    Distrusted { hub: HubAddress, source: Distrust },
    #[error("cannot connect to the hub {hub}")]
    Connect { hub: HubAddress, source: tunnel::ConnectError },
    #[error("the hub {hub} opened no tunnel")]
    Establish { hub: HubAddress, source: EstablishError },
}

/// Why one of a hub's addresses brought no connection.
enum DialError {
    Distrusted(Distrust),
    Tunnel(tunnel::ConnectError),
}

/// A hub's no to this agent, which stands until somebody does something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// What the hub said.
    pub(crate) why: String,
    /// What to do about it.
    pub(crate) remedy: &'static str,
    /// As a metric's label.
    pub(crate) label: &'static str,
}

/// What is done, and counted, where clocks differ.
const CLOCKS: &str = "compare 'date -u' on both machines; the agent comes back by itself";
const WRONG_CLOCK: &str = "wrong_clock";

/// How long a look-up may take: a name server that is away costs 5 s before the next one is asked.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Connects to `hub` by one of its addresses, resolved anew. One that says nothing is given up after `limit`; what one has begun
/// with is not begun anew.
pub(crate) async fn connect(
    resolver: &Resolver,
    hub: &HubAddress,
    tls: &HubTls,
    settings: tunnel::Settings,
    path: Option<Path>,
    limit: Duration,
) -> Result<Connection, ConnectError> {
    let timed_out = || ConnectError::TimedOut { hub: hub.clone() };
    let unknown = |source| ConnectError::NameNotFound { hub: hub.clone(), source };
    let resolved = timeout(LOOK_UP, resolver.resolve(hub.host(), hub.port())).await;
    let addresses = resolved.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(unknown)?;
    let deadline = Instant::now() + limit;
    // Each has its own patience, until all together have had theirs.
    let dial = async |address| {
        let settings = Path::settings(path, address, settings);
        let (tls, witness) = tls.witnessed();
        let dialled = tunnel::connect(address, tls, HUB_SERVER_NAME, settings, left(deadline)).await;
        dialled.map_err(|error| witness.distrust().map_or(DialError::Tunnel(error), DialError::Distrusted))
    };
    match timeout_at(deadline + HANDSHAKE, race(&addresses, dial, telling)).await {
        Ok(Ok(connection)) => Ok(connection),
        Err(_) | Ok(Err(Some(DialError::Tunnel(tunnel::ConnectError::TimedOut(_))))) => Err(timed_out()),
        Ok(Err(Some(DialError::Tunnel(tunnel::ConnectError::Later { wait, .. })))) => {
            Err(ConnectError::Later { hub: hub.clone(), wait })
        }
        Ok(Err(Some(DialError::Tunnel(source)))) => Err(ConnectError::Connect { hub: hub.clone(), source }),
        Ok(Err(Some(DialError::Distrusted(source)))) => Err(ConnectError::Distrusted { hub: hub.clone(), source }),
        Ok(Err(None)) => Err(unknown(io::ErrorKind::NotFound.into())),
    }
}

/// Turns a connection into a tunnel. A hub that has come so far has done most of the work: it has its time for the rest.
pub(crate) async fn establish(
    connection: Connection,
    hub: &HubAddress,
    hello: Hello,
    memory: TunnelMemory,
) -> Result<(AgentTunnel, AgentControl, Welcome), ConnectError> {
    let established = AgentTunnel::establish(connection.clone(), hello, memory, HANDSHAKE).await;
    established.map_err(|source| {
        // A hub that took the connection and says nothing need not keep it.
        connection.close(CloseReason::DeadlineExceeded, "no Welcome");
        ConnectError::Establish { hub: hub.clone(), source }
    })
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

impl ConnectError {
    /// The hub's no, if that is what it is.
    pub(crate) fn refused(&self) -> Option<Refused> {
        match self {
            Self::Distrusted { source, .. } => Some(Refused::by_agent(source)),
            Self::NameNotFound { .. }
            | Self::TimedOut { .. }
            | Self::Later { .. }
            | Self::Connect { .. }
            | Self::Establish { .. } => Refused::of(self.loss()?),
        }
    }

    /// Whether there is a hub that has said something.
    pub(crate) fn is_answer(&self) -> bool {
        match self {
            Self::Later { .. } | Self::Distrusted { .. } | Self::Establish { .. } => true,
            Self::Connect { source, .. } => matches!(source, tunnel::ConnectError::Handshake { .. }),
            Self::NameNotFound { .. } | Self::TimedOut { .. } => false,
        }
    }

    /// As a metric's label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NameNotFound { .. } => "name_not_found",
            Self::TimedOut { .. } | Self::Establish { source: EstablishError::TimedOut(_), .. } => "timed_out",
            Self::Later { .. } => "put_off",
            Self::Distrusted { .. } | Self::Connect { .. } | Self::Establish { .. } => {
                self.refused().map_or("failed", |refused| refused.label)
            }
        }
    }

    /// Why the connection was lost, if there was one.
    pub(crate) fn loss(&self) -> Option<&ConnectionLost> {
        match self {
            Self::Connect { source: tunnel::ConnectError::Handshake { source, .. }, .. } => Some(source),
            Self::Establish { source: EstablishError::Lost(loss), .. }
            | Self::Establish { source: EstablishError::Control(ControlError::Lost(loss)), .. } => Some(loss),
            Self::NameNotFound { .. }
            | Self::TimedOut { .. }
            | Self::Later { .. }
            | Self::Distrusted { .. }
            | Self::Connect { .. }
            | Self::Establish { .. } => None,
        }
    }
}

impl Refused {
    /// `None` when the connection was lost for a reason that may pass by itself.
    pub(crate) fn of(loss: &ConnectionLost) -> Option<Self> {
        const JOIN: &str = "join it again with 'proxy-agent join'";
        let (remedy, label) = match loss {
            ConnectionLost::Closed { reason, .. } => match reason {
                CloseReason::NotAccepted => ("run 'cluster-proxy accept' for this cluster on the hub", "not_accepted"),
                CloseReason::Denied => (
                    "where the cluster was denied, 'cluster-proxy accept CLUSTER' on the hub lets it in again; an agent that was \
                     revoked joins from an empty state folder (--state DIR) with a new line of 'cluster-proxy join-command'",
                    "denied",
                ),
                CloseReason::UnknownCluster => (JOIN, "unknown_cluster"),
                CloseReason::UnknownAgent => (JOIN, "unknown_agent"),
                CloseReason::WrongIdentity => (JOIN, "wrong_identity"),
                CloseReason::Done
                | CloseReason::HubStopping
                | CloseReason::AgentStopping
                | CloseReason::ProtocolError
                | CloseReason::Overloaded
                | CloseReason::DeadlineExceeded
                | CloseReason::Other(_) => return None,
            },
            ConnectionLost::CertificateRefused(_) => (
                "join it again with 'proxy-agent join' (after a rotation of the hub's CA, with a new line of 'cluster-proxy join-command')",
                "certificate_refused",
            ),
            ConnectionLost::Transport(_)
            | ConnectionLost::TimedOut
            | ConnectionLost::Forgotten
            | ConnectionLost::ClosedHere => return None,
        };
        Some(Self { why: loss.to_string(), remedy, label })
    }

    /// This agent's no to the hub that answers.
    fn by_agent(distrust: &Distrust) -> Self {
        let (remedy, label) = match distrust {
            Distrust::WrongClock(_) => (CLOCKS, WRONG_CLOCK),
            Distrust::OtherCa(_) | Distrust::Certificate(_) => (
                "this is not the hub that the agent has joined, or its CA was rotated while the agent was away: check --hub; after a \
                     rotation, join again with a new line of 'cluster-proxy join-command' on the hub",
                "hub_not_trusted",
            ),
        };
        Self { why: distrust.to_string(), remedy, label }
    }

    /// What it means where the hub holds a certificate for ended that by this machine's clock, `now`, goes on until `end`.
    pub(crate) fn at(self, now: SystemTime, end: SystemTime) -> Self {
        let Ok(left) = end.duration_since(now) else { return self };
        if self.why != ConnectionLost::CertificateRefused("certificate expired").to_string() {
            return self;
        }
        Self {
            why: format!(
                "{}: here it is {}, and the certificate ends at {}; the hub's clock is at least {} ahead",
                WrongClock::SAYS,
                shown_time(now),
                shown_time(end),
                shown_span(left)
            ),
            remedy: CLOCKS,
            label: WRONG_CLOCK,
        }
    }

    /// An administrator at the hub alone can change its mind, and the agent is to be back soon then.
    pub(crate) fn is_decided_at_the_hub(&self) -> bool {
        matches!(self.label, "denied" | "not_accepted")
    }
}

/// Of several addresses' errors, a hub's word says more than a handshake that failed, and that more than silence.
fn telling(error: &DialError) -> u8 {
    match error {
        DialError::Tunnel(tunnel::ConnectError::Later { .. }) => 3,
        DialError::Distrusted(_) | DialError::Tunnel(tunnel::ConnectError::Handshake { .. }) => 2,
        DialError::Tunnel(tunnel::ConnectError::TimedOut(_)) => 1,
        DialError::Tunnel(tunnel::ConnectError::Socket(_) | tunnel::ConnectError::Config(_)) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_has_not_ended_here_tells_of_a_wrong_clock() {
        let (now, hour) = (SystemTime::UNIX_EPOCH + Duration::from_secs(86_400), Duration::from_secs(3600));
        let refused = |alert| Refused::of(&ConnectionLost::CertificateRefused(alert)).unwrap();
        let wrong = refused("certificate expired").at(now, now + 50 * hour);
        assert_eq!(wrong.label, "wrong_clock");
        for part in ["1970-01-02T00:00:00Z", "1970-01-04T02:00:00Z", "2 days ahead"] {
            assert!(wrong.why.contains(part), "{}", wrong.why);
        }
        assert_eq!(refused("certificate expired").at(now, now - hour).label, "certificate_refused");
        assert_eq!(refused("bad certificate").at(now, now + hour).label, "certificate_refused");
    }

    #[test]
    fn a_hubs_no_is_told_from_what_passes() {
        let closed = |reason| ConnectionLost::Closed { reason, text: "because".into() };
        for (loss, label) in [
            (closed(CloseReason::Denied), Some("denied")),
            (closed(CloseReason::NotAccepted), Some("not_accepted")),
            (closed(CloseReason::UnknownCluster), Some("unknown_cluster")),
            (closed(CloseReason::UnknownAgent), Some("unknown_agent")),
            (closed(CloseReason::WrongIdentity), Some("wrong_identity")),
            (ConnectionLost::CertificateRefused("certificate expired"), Some("certificate_refused")),
            (closed(CloseReason::HubStopping), None),
            (closed(CloseReason::Overloaded), None),
            (closed(CloseReason::Other(4711)), None),
            (ConnectionLost::TimedOut, None),
            (ConnectionLost::Forgotten, None),
            (ConnectionLost::Transport("the network is down".into()), None),
        ] {
            assert_eq!(Refused::of(&loss).map(|refused| refused.label), label, "{loss}");
        }
    }
}
