//! The QUIC transport settings of both ends, each with its argument.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::mtu::Mtu;

/// A peer that has not been heard of for this long is gone: the bound within which a dead agent shows.
/// Below 15 s, and long enough for a route to change without losing every stream.
const IDLE_TIMEOUT: Duration = Duration::from_secs(12);

/// The agent, which is behind the NAT, keeps the path open. It is also how an agent learns that its hub was killed and
/// started again: the new process answers the next packet with a reset, and the agent is to be back within 2 s. Costs
/// about 100 bytes/s each way per idle tunnel.
const KEEP_ALIVE: Duration = Duration::from_millis(1500);

/// Streams the hub may have open in one tunnel. Costs memory at the agent only (about 70 bytes each, ahead of use).
const AGENT_STREAMS: u32 = 4096;

/// Streams an agent may have open towards the hub: the control stream, and one to spare. quinn sets memory aside for
/// each, so 20,000 would cost 1.4 MB per idle tunnel at the hub.
const HUB_STREAMS: u32 = 2;

/// What a stream may have in flight or unread. quinn closes the whole connection when more than 1024 pieces of a
/// stream are out of order; below 1 MiB of full packets that cannot happen. Also bounds what a stalled reader costs.
const STREAM_WINDOW: u32 = 1 << 20;

/// Unacknowledged bytes per tunnel: the product of 100 ms and 1 Gbit/s is 12.5 MB.
const SEND_WINDOW: u64 = 16 << 20;

/// The hub's side of a connection whose path may carry packets of `mtu`.
pub(crate) fn hub(mtu: Mtu) -> Arc<TransportConfig> {
    let mut transport = both(mtu);
    transport.max_concurrent_bidi_streams(HUB_STREAMS.into());
    Arc::new(transport)
}

/// The agent's side of a connection whose path may carry packets of `mtu`.
pub(crate) fn agent(mtu: Mtu) -> Arc<TransportConfig> {
    let mut transport = both(mtu);
    transport.max_concurrent_bidi_streams(AGENT_STREAMS.into());
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(transport)
}

fn both(mtu: Mtu) -> TransportConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(mtu.datagram());
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT).expect("12 s fits a QUIC variable-length integer")))
        .max_concurrent_uni_streams(0_u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        // A window for the whole connection would let a few stalled readers block every other stream.
        .receive_window(VarInt::MAX)
        .send_window(SEND_WINDOW)
        .mtu_discovery_config(Some(discovery));
    transport
}
