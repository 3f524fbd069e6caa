//! The two tables of numbers that cross the wire outside messages: why a connection closes and why a stream resets.

use std::fmt;

use quinn::VarInt;

macro_rules! codes {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $code:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$doc])* $variant,)*
            /// A code this version does not know.
            Other(u64),
        }

        impl $name {
            /// The number on the wire.
            pub fn code(self) -> u64 {
                match self {
                    $(Self::$variant => $code,)*
                    Self::Other(code) => code,
                }
            }

            /// What a number means.
            pub fn from_code(code: u64) -> Self {
                match code {
                    $($code => Self::$variant,)*
                    other => Self::Other(other),
                }
            }

            /// Every reason this version knows.
            pub fn all() -> &'static [Self] {
                &[$(Self::$variant,)*]
            }

            pub(crate) fn varint(self) -> VarInt {
                VarInt::from_u64(self.code()).unwrap_or(VarInt::MAX)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($text),)*
                    Self::Other(code) => write!(f, "code {code}"),
                }
            }
        }
    };
}

codes! {
    /// Why a QUIC connection was closed (the application error code of CONNECTION_CLOSE, RFC 9000 section 19.19).
    CloseReason {
        /// The conversation is complete.
        Done = 0 "done",
        /// The hub stops; the agent should come back soon, to this hub or another.
        HubStopping = 1 "the hub is stopping",
        /// The agent stops.
        AgentStopping = 2 "the agent is stopping",
        /// No certificate, or one that is not an agent's.
        WrongIdentity = 3 "not an agent's certificate",
        /// Nobody registered this cluster, or it was deleted.
        UnknownCluster = 4 "unknown cluster",
        /// The cluster has not been accepted yet.
        NotAccepted = 5 "cluster not accepted",
        /// The cluster has been denied.
        Denied = 6 "cluster denied",
        /// The cluster does not know this agent or its key.
        UnknownAgent = 7 "unknown agent",
        /// The peer broke the protocol.
        ProtocolError = 8 "protocol error",
        /// The hub has no room for another tunnel.
        Overloaded = 9 "overloaded",
        /// The peer did not do its part in time.
        DeadlineExceeded = 10 "deadline exceeded",
    }
}

codes! {
    /// Why a stream was reset (the application error code of RESET_STREAM and STOP_SENDING, RFC 9000 sections 19.4, 19.5).
    ResetReason {
        /// The owner of the stream went away without saying more.
        Abandoned = 0 "abandoned",
        /// The client left before its dial was answered.
        Cancelled = 1 "cancelled",
        /// The connection behind that end was reset (TCP RST).
        ConnectionReset = 2 "connection reset",
        /// The connection behind that end failed in another way.
        ConnectionFailed = 3 "connection failed",
        /// The hub or the agent cut the connection: a right was withdrawn or a drain deadline passed.
        Cut = 4 "cut",
        /// The first message of the stream was not understood.
        ProtocolError = 5 "protocol error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_the_wire() {
        for reason in CloseReason::all() {
            assert_eq!(CloseReason::from_code(reason.code()), *reason);
        }
        for reason in ResetReason::all() {
            assert_eq!(ResetReason::from_code(reason.code()), *reason);
        }
    }

    #[test]
    fn a_code_of_a_newer_peer_is_kept() {
        assert_eq!(CloseReason::from_code(4711), CloseReason::Other(4711));
        assert_eq!(CloseReason::Other(4711).code(), 4711);
        assert_eq!(ResetReason::from_code(99).to_string(), "code 99");
    }
}
