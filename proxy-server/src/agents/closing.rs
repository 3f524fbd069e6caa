//! Why a tunnel is closed: the code that a refusal becomes, and its label.

use registry::AgentRefusal;
use tunnel::CloseReason;

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
