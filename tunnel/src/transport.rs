//! The QUIC transport settings of both ends, each with its argument.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::{congestion::ModelFactory, socket::discovery, socket::mtu::Mtu, stream::credit::TunnelMemory};

/// A peer that has not been heard of for this long is gone. Tunnels are watched (`liveness.rs`) and end before; this is for
/// joins, whose end is nobody's loss.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The agent, which is behind the NAT, keeps the path open. Less than a dial's 10 s: where a NAT has changed an idle tunnel's
/// address the hub's dial waits for this, and is still served. With a round trip that has grown to 8 s meanwhile the answer is
/// there within the 15 s for which a peer may be silent. Each costs the hub about 30 us; 10,000 idle tunnels cost it 5 % of a
/// core.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(6);

/// What is taken for the round-trip time before it is known: the first packet goes out again after three of them, then after twice
/// that. QUIC's 333 ms (RFC 9002 section 6.2.2) would be a second for a hub that has just started, and three for an agent that hears
/// its hub again: the hub repeats its answer as often as the agent its question.
const FIRST_RTT: Duration = Duration::from_millis(100);

/// Packets that may overtake one that is not lost: where a packet takes 20 ms longer, 100 do at 60 Mbit/s. More would let a
/// fat path lose more of a stream before that is known (`congestion.rs`); at 200 Mbit/s it is 7 ms.
const LATE_PACKETS: u32 = 128;

/// Round trips after which a packet counts as lost. A request behind one that was lost waits so long: 1.5 would do where packets
/// are late by less than half a round trip.
pub(crate) const LATE: f32 = 1.75;

/// Streams the hub may have open in one tunnel. Costs the agent 140 bytes each, ahead of use.
pub(crate) const AGENT_STREAMS: u32 = 4096;

/// The same until half as many have come: most tunnels have few, and a fleet that comes back has enough to do.
pub(crate) const FIRST_AGENT_STREAMS: u32 = 256;

/// Streams an agent may have open towards the hub: the control stream, and one to spare. quinn sets memory aside for
/// each, so 20,000 would cost 1.4 MB per idle tunnel at the hub.
const HUB_STREAMS: u32 = 2;

/// What a stream may have in flight or unread: with the windows inside it (`credit.rs`), 1 Gbit/s over 100 ms.
pub(crate) const STREAM_WINDOW: u32 = 16 << 20;

/// The hub's side of a connection whose path may carry packets of `link`; or carries packets of `known`, as far as is known.
pub(crate) fn hub(link: Mtu, known: Option<Mtu>) -> Arc<TransportConfig> {
    let mut transport = both(link, known);
    transport.max_concurrent_bidi_streams(HUB_STREAMS.into());
    Arc::new(transport)
}

/// The agent's side of such a connection.
pub(crate) fn agent(link: Mtu, known: Option<Mtu>) -> Arc<TransportConfig> {
    let mut transport = both(link, known);
    transport.max_concurrent_bidi_streams(FIRST_AGENT_STREAMS.into());
    transport.keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(transport)
}

fn both(link: Mtu, known: Option<Mtu>) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::try_from(IDLE_TIMEOUT).expect("20 s fits a QUIC variable-length integer")))
        .initial_rtt(FIRST_RTT)
        .max_concurrent_uni_streams(0_u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        // All that a peer can make us hold. Becomes the tunnel's memory; too small for all the streams' windows together,
        // it would let a few stalled readers block every other stream, so that those windows are granted within it.
        .receive_window(VarInt::from_u64(TunnelMemory::SMALLEST.bytes()).expect("less than 2^62 bytes"))
        .mtu_discovery_config(Some(discovery::search(link, known)))
        .congestion_controller_factory(Arc::new(ModelFactory::new()));
    tolerate_reordering(&mut transport);
    transport
}

/// A packet counts as lost when one that was sent so much later has come: not as soon as QUIC recommends (RFC 9002 section 6.1), for
/// which three packets later, or an eighth of a round trip, are late.
pub(crate) fn tolerate_reordering(transport: &mut TransportConfig) {
    transport.packet_threshold(LATE_PACKETS).time_threshold(LATE);
}
