//! Why a connection was not proxied: the status, the label and the sentence of each reason.

use certs::ClusterName;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp, Unit};
use process::Escaped;
use registry::kube::rbac::Denied;
use tunnel::{DialError, Reason, Refusal};

use crate::{
    limits::Overload, outcome::Outcome, proxy::caller::CallerError, proxy::connections::Cut, proxy::route::RouteError,
};

/// Most letters of an agent's sentence.
const LONGEST: usize = 1000;

/// Why nothing was opened. `Display` is one sentence that tells the client what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Caller(CallerError),
    #[error(transparent)]
    Route(RouteError),
    #[error("{denied}; {}", names(.reachable))]
    Forbidden { denied: Denied, reachable: Vec<ClusterName> },
    #[error("no cluster named {cluster} is registered here; {}", names(.reachable))]
    UnknownCluster { cluster: ClusterName, reachable: Vec<ClusterName> },
    #[error("cluster {0} waits to be accepted; an administrator runs 'cluster-proxy accept {0}'")]
    NotAccepted(ClusterName),
    #[error("cluster {0} has been denied; an administrator may run 'cluster-proxy accept {0}'")]
    ClusterDenied(ClusterName),
    #[error("cluster {cluster} has no agent connected{}; start its proxy-agent, or wait for it", seen(.last_seen))]
    Away { cluster: ClusterName, last_seen: Option<(Timestamp, Timestamp)> },
    #[error("{0}")]
    Overloaded(Overload),
    #[error("{}", dial_sentence(.0))]
    Dial(DialError),
    #[error("{0}")]
    Cut(Cut),
    #[error("the hub cannot write its audit log and opens nothing meanwhile; its administrator makes room for the log")]
    Unrecorded,
}

impl OpenError {
    /// The HTTP status of the reason; konnectivity's where it has one (pkg/server/tunnel.go).
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Caller(
                CallerError::Agent | CallerError::NoUser(_) | CallerError::UnknownUser(_) | CallerError::CaIsOver,
            ) => StatusCode::FORBIDDEN,
            Self::Caller(
                CallerError::Missing
                | CallerError::UnknownToken
                | CallerError::ExpiredToken { .. }
                | CallerError::Malformed,
            ) => StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            Self::Route(_) => StatusCode::BAD_REQUEST,
            Self::Forbidden { .. } | Self::Cut(Cut::Withdrawn) => StatusCode::FORBIDDEN,
            Self::UnknownCluster { .. } => StatusCode::NOT_FOUND,
            Self::Caller(CallerError::Throttled | CallerError::Crowded(_)) => StatusCode::TOO_MANY_REQUESTS,
            Self::NotAccepted(_)
            | Self::ClusterDenied(_)
            | Self::Away { .. }
            | Self::Overloaded(_)
            | Self::Unrecorded
            | Self::Cut(Cut::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Dial(error) => dial_status(error),
        }
    }

    /// What metrics and audit events call it.
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Caller(error) => error.outcome(),
            Self::Route(_) => Outcome::BadTarget,
            Self::Forbidden { .. } => Outcome::Forbidden,
            Self::UnknownCluster { .. } => Outcome::UnknownCluster,
            Self::NotAccepted(_) => Outcome::ClusterNotAccepted,
            Self::ClusterDenied(_) => Outcome::ClusterDenied,
            Self::Away { .. } => Outcome::AgentAway,
            Self::Overloaded(_) => Outcome::Overloaded,
            Self::Dial(error) => dial_outcome(error),
            Self::Cut(_) => Outcome::Cut,
            Self::Unrecorded => Outcome::AuditFailing,
        }
    }
}

fn dial_status(error: &DialError) -> StatusCode {
    match error {
        DialError::Refused(refusal) => match refusal.reason() {
            Reason::PolicyDenied => StatusCode::FORBIDDEN,
            Reason::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Reason::Overloaded | Reason::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Reason::BadTarget => StatusCode::BAD_REQUEST,
            Reason::NameNotFound
            | Reason::ConnectionRefused
            | Reason::Unreachable
            | Reason::KindNotSupported
            | Reason::Unspecified
            | Reason::UnknownToken
            | Reason::ExpiredToken
            | Reason::UsedToken
            | Reason::WrongName
            | Reason::NoName
            | Reason::Denied
            | Reason::AgentNameTaken
            | Reason::BadRequest
            | Reason::Internal => StatusCode::BAD_GATEWAY,
        },
        DialError::NoMoreStreams => StatusCode::SERVICE_UNAVAILABLE,
        DialError::TimedOut | DialError::Silent => StatusCode::GATEWAY_TIMEOUT,
        DialError::Lost(_) | DialError::Protocol(_) => StatusCode::BAD_GATEWAY,
    }
}

fn dial_outcome(error: &DialError) -> Outcome {
    match error {
        DialError::Refused(refusal) => Outcome::RefusedFor(refusal.reason()),
        DialError::NoMoreStreams => Outcome::NoMoreStreams,
        DialError::TimedOut | DialError::Silent => Outcome::AgentSilent,
        DialError::Lost(_) => Outcome::TunnelLost,
        DialError::Protocol(_) => Outcome::AgentProtocol,
    }
}

fn dial_sentence(error: &DialError) -> String {
    match error {
        DialError::Refused(refusal) => message(refusal),
        DialError::NoMoreStreams => {
            "the agent has as many streams open as it allows; try again, or add an agent".into()
        }
        DialError::TimedOut => {
            "the agent did not answer before the dial's deadline; 'cluster-proxy clusters' shows whether it lives"
                .into()
        }
        DialError::Silent => {
            "the agent does not respond: it has stopped or hangs, or its network is down; 'cluster-proxy clusters' \
             shows when it is back"
                .into()
        }
        DialError::Lost(_) => "the agent's tunnel was lost while it dialled; try again".into(),
        DialError::Protocol(_) => {
            "the agent broke off the dial; try again, and look into its log if it happens again".into()
        }
    }
}

/// What the agent says, and what to do about it where that is not said.
#[expect(clippy::wildcard_enum_match_arm, reason = "the agent's other sentences say it themselves")]
fn message(refusal: &Refusal) -> String {
    // It ends on somebody's terminal.
    let said = Escaped(&refusal.message).to_string();
    let said = said.chars().take(LONGEST).collect::<String>();
    let advice = match refusal.reason() {
        Reason::ConnectionRefused => "check the port, and that the service runs",
        Reason::NameNotFound => "check the name as its own cluster knows it",
        Reason::Unreachable => "check the address, and the agent's way to it",
        Reason::TimedOut => "check the address, and that no firewall drops its packets",
        _ => return said,
    };
    format!("{said}; {advice}")
}

fn names(clusters: &[ClusterName]) -> String {
    const SHOWN: usize = 10;
    if clusters.is_empty() {
        return "reachable: none".into();
    }
    let shown: Vec<&str> = clusters.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = clusters.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("reachable: {}{more}", shown.join(", "))
}

fn seen(last_seen: &Option<(Timestamp, Timestamp)>) -> String {
    let Some((seen, now)) = last_seen else { return " and never had one".into() };
    // Rounding a duration to seconds cannot fail for instants that jiff can hold.
    let ago = now.duration_since(*seen).round(Unit::Second).unwrap_or(SignedDuration::ZERO);
    let seen = seen.strftime("%Y-%m-%dT%H:%M:%SZ");
    if ago.is_negative() {
        return format!(" (last seen {seen}, by a clock that was {:#} ahead)", ago.abs());
    }
    format!(" (last seen {seen}, {ago:#} ago)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_by_a_clock_that_is_right_again_is_not_ago() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(seen(&Some((at(60), at(180)))), " (last seen 1970-01-01T00:01:00Z, 2m ago)");
        assert_eq!(seen(&Some((at(180), at(60)))), " (last seen 1970-01-01T00:03:00Z, by a clock that was 2m ahead)");
    }
}
