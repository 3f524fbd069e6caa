//! Why a tunnel is closed: the code that a refusal becomes, and its label in metrics.

use registry::AgentRefusal;
use tunnel::{CloseReason, Loss};

pub(crate) fn close_reason(refusal: &AgentRefusal) -> CloseReason {
    match refusal {
        AgentRefusal::UnknownCluster { .. } => CloseReason::UnknownCluster,
        AgentRefusal::NotAccepted { .. } | AgentRefusal::AgentNotAccepted { .. } => CloseReason::NotAccepted,
        AgentRefusal::Denied { .. } | AgentRefusal::AgentDenied { .. } => CloseReason::Denied,
        AgentRefusal::UnknownAgent { .. } | AgentRefusal::OtherKey { .. } => CloseReason::UnknownAgent,
    }
}

pub(crate) fn close_label(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::Done => "done",
        CloseReason::HubStopping => "hub_stopping",
        CloseReason::AgentStopping => "agent_stopping",
        CloseReason::WrongIdentity => "wrong_identity",
        CloseReason::UnknownCluster => "unknown_cluster",
        CloseReason::NotAccepted => "not_accepted",
        CloseReason::Denied => "denied",
        CloseReason::UnknownAgent => "unknown_agent",
        CloseReason::ProtocolError => "protocol_error",
        CloseReason::Overloaded => "overloaded",
        CloseReason::DeadlineExceeded => "deadline_exceeded",
        CloseReason::Other(_) => "other",
    }
}

/// A lost connection's reason as a label.
pub(crate) fn loss_label(loss: &Loss) -> &'static str {
    match loss {
        Loss::Closed { reason, .. } => close_label(*reason),
        Loss::CertificateRefused(_) => "certificate_refused",
        Loss::TimedOut => "timed_out",
        Loss::Forgotten => "forgotten",
        Loss::ClosedHere => "closed_here",
        Loss::Transport(_) => "transport",
    }
}
