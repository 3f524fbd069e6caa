//! How many probes it takes to find out what a path carries (RFC 8899): few, since a probe of a jumbo frame costs its receiver as
//! much as a signature; and one where the agent knows it from the tunnel before.
//!
//! What it knows it says by the connection id of its first packet, which is 16 random bytes and the size. An id of another
//! length says nothing. Nobody needs to believe it: a size that is wrong is one lost probe, or smaller packets for who said it.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quinn::MtuDiscoveryConfig;
use quinn_proto::ConnectionId;

use crate::{socket::mtu::Mtu, transport};

/// UDP payload of the packets that a connection begins with, which every path carries.
const FIRST: u16 = 1200;

/// Random bytes of an id that says a size.
const RANDOM: usize = 16;

/// Sizes for which a configuration is kept: paths have two or three.
const SIZES: usize = 16;

/// The hub's configurations, which differ in what they probe.
#[derive(Debug)]
pub(crate) struct Configs {
    server: quinn::ServerConfig,
    max: Mtu,
    by_size: Mutex<HashMap<(Mtu, Option<Mtu>), Arc<quinn::ServerConfig>>>,
}

impl Configs {
    /// Those of a hub that sends packets of `max` at most.
    pub(crate) fn new(server: quinn::ServerConfig, max: Mtu) -> Self {
        Self { server, max, by_size: Mutex::default() }
    }

    /// The one for a connection whose first packet went to `id`, over a first link that carries `link`.
    pub(crate) fn of(&self, id: &ConnectionId, link: Mtu) -> Arc<quinn::ServerConfig> {
        let link = link.min(self.max);
        let mut by_size = self.by_size.lock();
        let known = known_by(id).filter(|known| *known <= link);
        // Any other makes room: anybody can say any size, and who says a true one is to have it.
        if by_size.len() >= SIZES
            && !by_size.contains_key(&(link, known))
            && let Some(other) = by_size.keys().next().copied()
        {
            by_size.remove(&other);
        }
        let make = || {
            let mut server = self.server.clone();
            server.transport_config(transport::hub(link, known));
            Arc::new(server)
        };
        by_size.entry((link, known)).or_insert_with(make).clone()
    }
}

/// What to probe up to what the first link carries, or that which is known alone.
pub(crate) fn search(link: Mtu, known: Option<Mtu>) -> MtuDiscoveryConfig {
    let upper = known.unwrap_or(link).min(link).datagram();
    let range = upper.saturating_sub(FIRST);
    let steps = match known {
        Some(_) => 1,
        // 5076, 7014, 7983, 8467, 8709, 8952 of 9000. Where that is the first link alone, Ethernet's packets are found all the
        // same, up to 11 bytes.
        None if link > Mtu::ETHERNET => 32,
        // 1326, 1389, 1452 of 1500.
        None => 4,
    };
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(upper).minimum_change((range / steps).max(1));
    discovery
}

/// An id for the first packet of who knows what the path carries.
pub(crate) fn asking_id(known: Mtu) -> ConnectionId {
    let random: [u8; RANDOM] = rand::random();
    ConnectionId::new(&[&random[..], &known.bytes().to_be_bytes()].concat())
}

/// What the agent knows that has asked at `id`.
fn known_by(id: &ConnectionId) -> Option<Mtu> {
    let (_, size) = id.split_at_checked(RANDOM)?;
    Mtu::new(u16::from_be_bytes(size.try_into().ok()?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{ANY, SOON, dialled, listen, pair, tls};
    use crate::wire::message::Drain;
    use crate::{AgentMessage, Connection, Settings, connect};

    fn mtu(bytes: u16) -> Mtu {
        Mtu::new(bytes).unwrap()
    }

    #[test]
    fn an_id_says_what_is_known_and_an_ordinary_one_nothing() {
        assert_eq!(known_by(&asking_id(mtu(1492))), Some(mtu(1492)));
        for length in [0, 8, 17, 19, 20] {
            assert_eq!(known_by(&ConnectionId::new(&vec![0x20; length])), None, "{length}");
        }
        assert_eq!(known_by(&ConnectionId::new(&[0; 18])), None, "no size of packets");
    }

    #[test]
    fn a_hub_has_a_bounded_number_of_configurations_and_none_for_more_than_the_link_carries() {
        let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls().0).unwrap();
        let configs = Configs::new(quinn::ServerConfig::with_crypto(Arc::new(crypto)), Mtu::default());
        let ordinary = configs.of(&ConnectionId::new(&[7; 20]), Mtu::ETHERNET);
        assert!(Arc::ptr_eq(&ordinary, &configs.of(&asking_id(mtu(9000)), Mtu::ETHERNET)));
        let known = configs.of(&asking_id(mtu(1492)), Mtu::ETHERNET);
        assert!(Arc::ptr_eq(&known, &configs.of(&asking_id(mtu(1492)), Mtu::ETHERNET)));
        assert!(!Arc::ptr_eq(&known, &ordinary));
        for size in 1280..=1500 {
            configs.of(&asking_id(mtu(size)), Mtu::ETHERNET);
        }
        assert_eq!(configs.by_size.lock().len(), SIZES);
        assert!(
            configs.by_size.lock().contains_key(&(Mtu::ETHERNET, Some(Mtu::ETHERNET))),
            "the last one has no place"
        );
    }

    /// Both ends of a connection, once each has found what loopback carries; and how many probes they have sent.
    async fn found(path: Option<Mtu>) -> [u64; 2] {
        let (server, client) = tls();
        let listener = listen(ANY, server);
        let address = listener.local_address().unwrap();
        let settings = Settings { path, ..Settings::default() };
        let dialling = async { connect(address, client, "hub", settings, SOON).await.unwrap() };
        let accepting = async { listener.accept().await.unwrap().accept(SOON).await.unwrap() };
        let (agent, hub) = tokio::join!(dialling, accepting);
        let probes = async |end: &Connection| {
            while end.path_mtu() < 9000 {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
            end.quic.stats().path.sent_plpmtud_probes
        };
        let both = async { [probes(&agent).await, probes(&hub).await] };
        tokio::time::timeout(SOON, both).await.unwrap()
    }

    #[tokio::test]
    async fn both_ends_need_one_probe_for_a_path_that_the_agent_knows_and_few_for_another() {
        assert_eq!(found(Some(Mtu::default())).await, [1, 1]);
        assert_eq!(found(None).await, [6, 6]);
    }

    #[tokio::test]
    async fn a_hub_that_begins_anew_takes_its_agent_for_another_and_goes_on_with_it() {
        let mut pair = pair().await;
        let agent = pair.hub.remote_address();
        for shown in [false, true, false] {
            assert_eq!(pair.hub.connection.quic.remote_address().is_ipv6(), shown);
            let exchange = async {
                pair.agent_control.send(AgentMessage::Drain(Drain {})).unwrap();
                assert_eq!(pair.hub_control.receive().await.unwrap(), AgentMessage::Drain(Drain {}));
                let stream = dialled(&pair.hub, &pair.agent).await;
                assert_eq!(pair.hub.remote_address(), agent);
                drop(stream);
            };
            tokio::time::timeout(SOON, exchange).await.unwrap();
            pair.hub.begin_anew();
            let moved = async {
                while pair.hub.connection.quic.remote_address().is_ipv6() == shown {
                    pair.agent.insist();
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
            };
            tokio::time::timeout(SOON, moved).await.unwrap();
        }
    }
}
