//! Outcomes: what became of a connection, a request, a handshake, a dial, a join or a tunnel, as metrics and the audit log name it.

use tunnel::{CloseReason, ConnectionLost, Reason, RelayEnd};

use crate::agents::closing::close_label;

/// One for each label. What an enum of the protocol says already has that enum's label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nobody has waited for the end.
    #[default]
    Cancelled,
    Ok,
    /// A connection that both sides have ended.
    Complete,
    Issued,
    Redirected,

    // A client's doing.
    Abandoned,
    ClientLeft,
    ClientReset,
    ClientFailed,
    ClientProtocol,
    ImpersonationForbidden,
    Malformed,
    NoDial,
    NotSupported,
    PageRefused,
    Plaintext,
    TimedOut,
    TooLarge,

    // Who asks.
    AgentCertificate,
    CaIsOver,
    ExpiredUserToken,
    MalformedCredentials,
    NoCredentials,
    NoUserCertificate,
    Throttled,
    UnknownUser,
    UnknownUserToken,
    UserConnections,

    // What is asked for.
    AgentAway,
    AgentProtocol,
    AgentSilent,
    AuditFailing,
    BadTarget,
    ClusterDenied,
    ClusterNotAccepted,
    /// A right was withdrawn, or the hub stops.
    Cut,
    Failed,
    Forbidden,
    NoDescriptor,
    NoMoreStreams,
    Overloaded,
    Refused,
    /// By an agent, or of a join by the hub.
    RefusedFor(Reason),
    UnknownCluster,

    // How a relay ends.
    CloseLate,
    TargetReset,
    TunnelLost,

    // Handshakes.
    CertificateExpired,
    CertificateInvalid,
    CertificateUnknownIssuer,
    Connection,
    NoHello,
    PutOff,
    Tls,

    // How a tunnel ends.
    CertificateRefused,
    Closed(CloseReason),
    ClosedHere,
    Forgotten,
    Transport,

    // Who waits for something.
    CrowdedOut,
    JoinsFull,
    JoinsOfSourceFull,
    Late,
    WaitingAgentsFull,
}

impl Outcome {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Ok => "ok",
            Self::Complete => "complete",
            Self::Issued => "issued",
            Self::Redirected => "redirected",
            Self::Abandoned => "abandoned",
            Self::ClientLeft => "client_left",
            Self::ClientReset => "client_reset",
            Self::ClientFailed => "client_failed",
            Self::ClientProtocol => "client_protocol",
            Self::ImpersonationForbidden => "impersonation_forbidden",
            Self::Malformed => "malformed",
            Self::NoDial => "no_dial",
            Self::NotSupported => "not_supported",
            Self::PageRefused => "page_refused",
            Self::Plaintext => "plaintext",
            Self::TimedOut => "timed_out",
            Self::TooLarge => "too_large",
            Self::AgentCertificate => "agent_certificate",
            Self::CaIsOver => "ca_is_over",
            Self::ExpiredUserToken => "expired_user_token",
            Self::MalformedCredentials => "malformed_credentials",
            Self::NoCredentials => "no_credentials",
            Self::NoUserCertificate => "no_user_certificate",
            Self::Throttled => "throttled",
            Self::UnknownUser => "unknown_user",
            Self::UnknownUserToken => "unknown_user_token",
            Self::UserConnections => "user_connections",
            Self::AgentAway => "agent_away",
            Self::AgentProtocol => "agent_protocol",
            Self::AgentSilent => "agent_silent",
            Self::AuditFailing => "audit_failing",
            Self::BadTarget => "bad_target",
            Self::ClusterDenied => "cluster_denied",
            Self::ClusterNotAccepted => "cluster_not_accepted",
            Self::Cut => "cut",
            Self::Failed => "failed",
            Self::Forbidden => "forbidden",
            Self::NoDescriptor => "no_descriptor",
            Self::NoMoreStreams => "no_more_streams",
            Self::Overloaded => "overloaded",
            Self::Refused => "refused",
            Self::RefusedFor(reason) => reason.label(),
            Self::UnknownCluster => "unknown_cluster",
            Self::CloseLate => "close_late",
            Self::TargetReset => "target_reset",
            Self::TunnelLost => "tunnel_lost",
            Self::CertificateExpired => "certificate_expired",
            Self::CertificateInvalid => "certificate_invalid",
            Self::CertificateUnknownIssuer => "certificate_unknown_issuer",
            Self::Connection => "connection",
            Self::NoHello => "no_hello",
            Self::PutOff => "put_off",
            Self::Tls => "tls",
            Self::CertificateRefused => "certificate_refused",
            Self::Closed(reason) => close_label(reason),
            Self::ClosedHere => "closed_here",
            Self::Forgotten => "forgotten",
            Self::Transport => "transport",
            Self::CrowdedOut => "crowded_out",
            Self::JoinsFull => "joins_full",
            Self::JoinsOfSourceFull => "joins_of_source_full",
            Self::Late => "late",
            Self::WaitingAgentsFull => "waiting_agents_full",
        }
    }
}

impl From<RelayEnd> for Outcome {
    fn from(end: RelayEnd) -> Self {
        match end {
            RelayEnd::Complete => Self::Complete,
            RelayEnd::LocalReset => Self::ClientReset,
            RelayEnd::LocalFailed(_) => Self::ClientFailed,
            RelayEnd::RemoteReset(_) => Self::TargetReset,
            RelayEnd::TunnelLost => Self::TunnelLost,
        }
    }
}

impl From<&ConnectionLost> for Outcome {
    fn from(loss: &ConnectionLost) -> Self {
        match loss {
            ConnectionLost::Closed { reason, .. } => Self::Closed(*reason),
            ConnectionLost::CertificateRefused(_) => Self::CertificateRefused,
            ConnectionLost::TimedOut => Self::TimedOut,
            ConnectionLost::Forgotten => Self::Forgotten,
            ConnectionLost::ClosedHere => Self::ClosedHere,
            ConnectionLost::Transport(_) => Self::Transport,
        }
    }
}
