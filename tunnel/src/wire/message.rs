//! The messages of the wire. Field numbers and enum values are part of the protocol: never reuse one.

use crate::{
    wire::control::Envelope,
    wire::export::{Export, Exports},
};

/// What the hub asks an agent to connect to. First message of a stream.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Dial {
    /// How `host` and `port` are to be read.
    #[prost(enumeration = "TargetKind", tag = "1")]
    pub kind: i32,
    /// Host name, IPv4 or IPv6 address without brackets; resolved in the spoke. Empty for the kube-apiserver.
    #[prost(string, tag = "2")]
    pub host: String,
    /// TCP port, 1..=65535. 0 for the kube-apiserver.
    #[prost(uint32, tag = "3")]
    pub port: u32,
    /// How long the agent may take to answer, in milliseconds.
    #[prost(uint32, tag = "4")]
    pub timeout_ms: u32,
    /// The hub's name for who asks; for the agent's log.
    #[prost(string, tag = "5")]
    pub user: String,
    /// W3C trace id, 32 lower-case hex digits; the same in the hub's audit event and the agent's log.
    #[prost(string, tag = "6")]
    pub trace_id: String,
    /// How many bytes the agent may send before the first `Window`; 0 of a hub that sends none.
    /// Set and taken out by this crate.
    #[prost(uint64, tag = "7")]
    pub window: u64,
    /// Whom the agent's gateway speaks for; only with [`TargetKind::KubeGateway`].
    #[prost(message, optional, tag = "8")]
    pub identity: Option<Identity>,
    /// The hub knows `Break`. Set and taken out by this crate.
    #[prost(bool, tag = "9")]
    pub breaks: bool,
}

/// A user as the hub has authenticated it, in the terms of Kubernetes' user info.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Identity {
    #[prost(string, tag = "1")]
    pub user: String,
    #[prost(string, repeated, tag = "2")]
    pub groups: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    pub extra: Vec<Extra>,
    /// The client has asked to be taken for this user (`kubectl --as`): a group that the spoke does not take is refused to
    /// it, and not left out as one of the hub's own is.
    #[prost(bool, tag = "4")]
    pub asked: bool,
}

/// One entry of a user's `extra`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Extra {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, repeated, tag = "2")]
    pub values: Vec<String>,
}

/// What `host` and `port` of a [`Dial`] mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum TargetKind {
    /// A TCP service, `host:port`.
    Tcp = 0,
    /// The spoke's own kube-apiserver, wherever the agent knows it to be.
    KubeApi = 1,
    /// The agent's HTTP gateway to the spoke's kube-apiserver. What follows is HTTP/1.1 in clear, which the agent sends on
    /// as [`Dial::identity`]; nothing is connected before the first request.
    KubeGateway = 2,
    /// A TCP service that speaks TLS, `host:port`. The agent ends TLS: what follows is the bytes inside.
    Tls = 3,
}

/// The agent's answer to a [`Dial`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct DialReply {
    #[prost(oneof = "DialOutcome", tags = "1, 2")]
    pub(crate) outcome: Option<DialOutcome>,
}

/// How a dial ended.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub(crate) enum DialOutcome {
    #[prost(message, tag = "1")]
    Dialed(Dialed),
    #[prost(message, tag = "2")]
    Refused(Refusal),
}

/// The target is connected; its bytes follow.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Dialed {
    /// The address really dialled, `ip:port`; for the audit event.
    #[prost(string, tag = "1")]
    pub address: String,
    /// How many bytes the hub may send before the first `Window`; 0 of an agent that sends none.
    #[prost(uint64, tag = "2")]
    pub window: u64,
    /// The agent knows `Break`.
    #[prost(bool, tag = "3")]
    pub breaks: bool,
}

/// The receiver of a stream lets its sender go on, like MAX_STREAM_DATA (RFC 9000 section 19.10). One for a stream that
/// has ended is ignored.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Window {
    /// The stream is the hub's bidirectional stream of this index (RFC 9000 section 2.1).
    #[prost(uint64, tag = "1")]
    pub(crate) stream: u64,
    /// The offset up to which bytes may be sent, counted from the first one after `Dial` or `DialReply`.
    #[prost(uint64, tag = "2")]
    pub(crate) limit: u64,
}

/// The sender of a stream has broken off, and resets it when its receiver has stopped reading. One for a stream that has
/// ended is ignored.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Break {
    /// As in [`Window`].
    #[prost(uint64, tag = "1")]
    pub(crate) stream: u64,
    /// How many bytes come before the break, counted as in [`Window`].
    #[prost(uint64, tag = "2")]
    pub(crate) offset: u64,
    /// Why, as RESET_STREAM says it.
    #[prost(uint64, tag = "3")]
    pub(crate) code: u64,
}

/// What the ends of a tunnel's streams have to tell each other beside the streams' bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    pub(crate) windows: Vec<Window>,
    pub(crate) breaks: Vec<Break>,
}

/// A typed reason and one sentence for the person who asked.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Refusal {
    #[prost(enumeration = "Reason", tag = "1")]
    pub reason: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

impl Refusal {
    /// A refusal for `reason`, explained by `message`.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

/// Why a dial or a join was refused. A value of a newer peer reads as [`Reason::Unspecified`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Reason {
    Unspecified = 0,
    /// The spoke's target policy denies the address.
    PolicyDenied = 1,
    /// The name does not resolve in the spoke.
    NameNotFound = 2,
    /// The target answered with RST.
    ConnectionRefused = 3,
    /// No route to the target, or the network said so.
    Unreachable = 4,
    /// The target did not answer before the deadline.
    TimedOut = 5,
    /// The agent has no file descriptors or stream slots left.
    Overloaded = 6,
    /// The target is no host and port.
    BadTarget = 7,
    /// The agent does not know this kind of target, or has none configured.
    KindNotSupported = 8,
    /// The agent is stopping.
    Draining = 9,
    /// A join token that the hub does not know.
    UnknownToken = 20,
    /// The join token's life is over.
    ExpiredToken = 21,
    /// A single-use join token was used by another agent.
    UsedToken = 22,
    /// The join token is bound to another cluster name.
    WrongName = 23,
    /// Neither the token nor the agent names a cluster.
    NoName = 24,
    /// The cluster has been denied.
    Denied = 25,
    /// The cluster has an agent of this name with another key.
    AgentNameTaken = 26,
    /// The join request is malformed: a name or the CSR.
    BadRequest = 27,
    /// The hub failed; trying again may help.
    Internal = 28,
}

impl Reason {
    /// The reason as a label for metrics and audit events.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::PolicyDenied => "policy_denied",
            Self::NameNotFound => "name_not_found",
            Self::ConnectionRefused => "connection_refused",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Overloaded => "agent_overloaded",
            Self::BadTarget => "bad_target",
            Self::KindNotSupported => "kind_not_supported",
            Self::Draining => "agent_draining",
            Self::UnknownToken => "unknown_token",
            Self::ExpiredToken => "expired_token",
            Self::UsedToken => "used_token",
            Self::WrongName => "wrong_name",
            Self::NoName => "no_name",
            Self::Denied => "denied",
            Self::AgentNameTaken => "agent_name_taken",
            Self::BadRequest => "bad_request",
            Self::Internal => "internal",
        }
    }
}

/// What an agent sends on the control stream: a message, notes or both. An unknown kind decodes to `None`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct FromAgent {
    #[prost(oneof = "AgentMessage", tags = "1, 2, 3, 5, 6")]
    pub(crate) message: Option<AgentMessage>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) windows: Vec<Window>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) breaks: Vec<Break>,
}

impl Envelope for FromAgent {
    type Content = AgentMessage;

    fn of(message: Option<AgentMessage>, notes: Notes) -> Self {
        let Notes { windows, breaks } = notes;
        Self { message, windows, breaks }
    }

    fn open(self) -> (Option<AgentMessage>, Notes) {
        (self.message, Notes { windows: self.windows, breaks: self.breaks })
    }
}

/// What an agent says on the control stream.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum AgentMessage {
    /// First, once.
    #[prost(message, tag = "1")]
    Hello(Hello),
    #[prost(message, tag = "2")]
    Renew(Renew),
    #[prost(message, tag = "3")]
    Drain(Drain),
    /// Replaces what the agent has exported so far.
    #[prost(message, tag = "5")]
    Exports(Exports),
    /// The CAs of the agent are others, or it was asked.
    #[prost(message, tag = "6")]
    Trusts(Trusts),
}

/// What a hub sends on the control stream: a message, notes or both. An unknown kind decodes to `None`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct FromHub {
    #[prost(oneof = "HubMessage", tags = "1, 2, 3, 5")]
    pub(crate) message: Option<HubMessage>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) windows: Vec<Window>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) breaks: Vec<Break>,
}

impl Envelope for FromHub {
    type Content = HubMessage;

    fn of(message: Option<HubMessage>, notes: Notes) -> Self {
        let Notes { windows, breaks } = notes;
        Self { message, windows, breaks }
    }

    fn open(self) -> (Option<HubMessage>, Notes) {
        (self.message, Notes { windows: self.windows, breaks: self.breaks })
    }
}

/// What a hub says on the control stream.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum HubMessage {
    /// First, once, in answer to [`Hello`].
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    #[prost(message, tag = "2")]
    Renewed(Renewed),
    #[prost(message, tag = "3")]
    Drain(Drain),
    /// After the Welcome, and whenever the hub's CA is another.
    #[prost(message, tag = "5")]
    Roots(Roots),
}

/// The agent introduces itself. Who it is, its certificate says.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    /// The agent's version, like `0.1.0`.
    #[prost(string, tag = "1")]
    pub version: String,
    /// What this agent can do beyond the first version of the protocol.
    #[prost(string, repeated, tag = "2")]
    pub capabilities: Vec<String>,
    /// Random at each start of the agent. A tunnel of the same agent from another instance is one that the hub has not
    /// noticed to be dead yet.
    #[prost(string, tag = "3")]
    pub instance: String,
    /// What Prometheus is to scrape through the hub.
    #[prost(message, repeated, tag = "4")]
    pub exports: Vec<Export>,
    /// The agent's time, as Unix seconds; 0 when it does not say. The hub tells of clocks that differ, and does no more with it.
    #[prost(uint64, tag = "5")]
    pub clock: u64,
    /// The pins of the roots under which the agent verifies the hub; none of one that takes no [`Roots`].
    #[prost(string, repeated, tag = "6")]
    pub trusts: Vec<String>,
}

/// The hub admits the agent.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    /// Which hub process this is; changes at each start.
    #[prost(string, tag = "1")]
    pub server_id: String,
    /// The hub's version.
    #[prost(string, tag = "2")]
    pub version: String,
}

/// The sender is about to stop: open no new streams, let the open ones end.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Drain {}

/// The agent asks for a new certificate before the old one ends.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Renew {
    /// PKCS#10 (RFC 2986), DER, signed with the key that the cluster knows.
    #[prost(bytes = "vec", tag = "1")]
    pub csr: Vec<u8>,
}

/// The roots under which the hub is verified now and after the next step of its CA's rotation.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Roots {
    /// PEM: trusted beside what the agent trusts already.
    #[prost(string, tag = "1")]
    pub pem: String,
    /// Pins of roots that are not to be trusted any more.
    #[prost(string, repeated, tag = "2")]
    pub retired: Vec<String>,
    /// The agent's certificate is another CA's than the one that signs: it asks for a new one, at some moment within so many
    /// seconds, and at once for 1. 0 where there is no need.
    #[prost(uint32, tag = "3")]
    pub renew_within: u32,
}

/// What the agent has kept: said in answer to [`Roots`], and when it has a new certificate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Trusts {
    /// The pins of all that it trusts.
    #[prost(string, repeated, tag = "1")]
    pub pins: Vec<String>,
    /// The pin of the one that has issued its certificate; empty where that is none of them.
    #[prost(string, tag = "2")]
    pub issuer: String,
}

/// The agent's new certificate.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Renewed {
    /// PEM: the leaf, then the hub's CA.
    #[prost(string, tag = "1")]
    pub chain_pem: String,
}

/// An agent asks to join. Only message from the agent on a join's stream.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct JoinRequest {
    /// The join token, `cpj-<id>.<secret>`.
    #[prost(string, tag = "1")]
    pub token: String,
    /// The cluster's name; may be empty when the token is bound to one.
    #[prost(string, tag = "2")]
    pub cluster: String,
    /// The agent's name, unique in its cluster.
    #[prost(string, tag = "3")]
    pub agent: String,
    /// PKCS#10, DER; only its public key is used.
    #[prost(bytes = "vec", tag = "4")]
    pub csr: Vec<u8>,
    /// The agent's version.
    #[prost(string, tag = "5")]
    pub version: String,
}

/// The hub's answer to a join; an unknown kind decodes to `None`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct FromJoin {
    #[prost(oneof = "JoinReply", tags = "1, 2, 3")]
    pub(crate) reply: Option<JoinReply>,
}

/// What a hub answers to a join: any number of `Pending`, then one of the others.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum JoinReply {
    #[prost(message, tag = "1")]
    Pending(Pending),
    #[prost(message, tag = "2")]
    Issued(Issued),
    #[prost(message, tag = "3")]
    Refused(Refusal),
}

/// The join waits for an administrator of the hub.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Pending {
    /// The cluster's name as the hub knows it.
    #[prost(string, tag = "1")]
    pub cluster: String,
}

/// The join is granted.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Issued {
    /// The cluster's name as the hub knows it.
    #[prost(string, tag = "1")]
    pub cluster: String,
    /// PEM: the agent's leaf, then the hub's CA.
    #[prost(string, tag = "2")]
    pub chain_pem: String,
}
