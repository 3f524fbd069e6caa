//! The wire between a hub and its agents: QUIC tunnels, the streams in them, and the join conversation.
//!
//! An agent dials out to the hub's UDP port; everything below happens inside that one QUIC connection (RFC 9000).
//! QUIC multiplexes, controls flow, keeps alive and carries reasons, so there is no frame multiplexer, no connection
//! id table and no pending-dial map here.
//!
//! # ALPN `cluster-proxy/1`: a tunnel
//!
//! Both ends have shown a certificate. The hub reads the agent's cluster from it, never from a message.
//!
//! ```text
//! agent                                   hub
//!   │ control stream (bidirectional, opened by the agent, lives as long as the tunnel)
//!   ├─ Hello ─────────────────────────────►│ version, capabilities, exports
//!   │◄──────────────────────────── Welcome ┤ server id
//!   ├─ Renew ─────────────────────────────►│ a CSR made with the same key
//!   │◄──────────────────────────── Renewed ┤ the new chain
//!   ├─ Drain ─────────────────────────────►│ open no more streams to me
//!   ├─ Exports ───────────────────────────►│ the services to scrape, in place of those before
//!   │◄────────────────────────────── Roots ┤ the CAs that stand for the hub, and whether a new certificate is due
//!   ├─ Trusts ────────────────────────────►│ the CAs that the agent has kept
//!   │◄────────────────────────────── Drain ┤ I am about to stop: dial another hub
//!   │◄────────────── windows ─────────────►│ how far the other may send on a stream, as it is passed on
//!   │◄─────────────── breaks ─────────────►│ how far the other has sent on a stream when it broke off, and why
//!   │
//!   │ one stream per proxied connection (bidirectional, opened by the hub)
//!   │◄─────────────────────────────── Dial ┤ target, kind, deadline, who asks, trace id, first window
//!   ├─ DialReply: Dialed or Refused ──────►│ first window; or a typed reason and a sentence
//!   │◄════════════ bytes, both ways ══════►│ FIN is a half-close; a break, RESET_STREAM and STOP_SENDING are resets
//! ```
//!
//! The hub sends nothing on a stream between `Dial` and its reply. Dropping a stream before the reply cancels the dial.
//!
//! # ALPN `cluster-proxy-join/1`: a join
//!
//! The agent has no certificate yet; it knows the hub by the pin of its CA. On one stream: [`JoinRequest`] up, then
//! [`JoinReply`]s down: any number of `Pending`, then `Issued` or `Refused`.
//!
//! # Messages
//!
//! Protocol Buffers behind a 4-byte big-endian length, at most [`MESSAGE_LIMIT`] bytes. Unknown fields and unknown
//! variants are skipped, so either end may be newer. Field numbers and enum values are never reused.

mod agent;
mod congestion;
mod connection;
mod endpoint;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod hop;
mod hub;
mod join;
mod liveness;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod transport;
mod wire;

pub use agent::{AcceptError, AgentControl, AgentTunnel, DialRequest, PendingDial};
pub use connection::{Connection, ConnectionLost, PathState, Protocol};
pub use endpoint::{
    ConnectError, HANDSHAKE, HandshakeError, Incoming, Listener, RESET_KEY_LENGTH, ServeError, Settings, connect,
};
pub use hub::{DialError, EstablishError, Greeting, HubControl, HubTunnel, SIGN_OF_LIFE};
pub use join::{JoinAnswers, JoinError, JoinSession};
pub use liveness::{LOOK, Liveness, LivenessCheck, OVERDUE, REST, SILENCE_TIMEOUT};
pub use socket::Offload;
pub use socket::mtu::{Mtu, MtuError};
pub use socket::port::PortSocket;
pub use socket::reset::{Resettable, ResettableError};
pub use socket::steering::{Share, Steering, steer_connections};
pub use stream::credit::TunnelMemory;
pub use stream::delivery::Delivery;
pub use stream::ending::PARTING;
pub use stream::metered::Metered;
pub use stream::relay::{RelayEnd, relay};
pub use stream::traffic::Traffic;
pub use stream::upgraded::relay_upgraded;
pub use stream::{ReceiveHalf, SendHalf, Stream};
pub use wire::code::{CloseReason, ResetReason};
pub use wire::control::ControlError;
pub use wire::export::{Export, ExportError, Exports, MAX_EXPORTS, within_limits};
pub use wire::message::{
    AgentMessage, Dial, Dialed, Drain, Extra, Hello, HubMessage, Identity, Issued, JoinReply, JoinRequest, Pending,
    Reason, Refusal, Renew, Renewed, Roots, TargetKind, Trusts, Welcome,
};
pub use wire::{MESSAGE_LIMIT, WireError};

/// ALPN of a tunnel (RFC 7301).
pub const ALPN_TUNNEL: &[u8] = b"cluster-proxy/1";

/// ALPN of a join.
pub const ALPN_JOIN: &[u8] = b"cluster-proxy-join/1";
