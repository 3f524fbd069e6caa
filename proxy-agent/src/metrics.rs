//! The agent's metrics, in a registry that is passed down. No label carries what a hub's user has typed.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    process_collector::ProcessCollector,
    proto::MetricFamily,
};
use tunnel::{AgentTunnel, Offload, PathState, Traffic};

use crate::hub::HubAddress;

/// Label of a dial that ended with a connection.
pub(crate) const CONNECTED: &str = "connected";

/// Seconds. A target on the same network answers within a millisecond; the hub's default deadline is 10 s.
const DIAL_BUCKETS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Those that are up, by hub.
type Tunnels = Arc<Mutex<HashMap<String, AgentTunnel>>>;

/// What the agent counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    connected: IntGaugeVec,
    offload: IntGaugeVec,
    connects: IntCounterVec,
    dials: IntCounterVec,
    pub(crate) dial_duration: Histogram,
    streams: IntGauge,
    certificate_expiry: Gauge,
    renewals: IntCounterVec,
    traffic: Arc<Traffic>,
    tunnels: Tunnels,
}

/// Counts an open stream while it lives.
#[derive(Debug)]
pub(crate) struct OpenStream(IntGauge);

/// Asks the tunnels that are up for their paths.
#[derive(Debug)]
struct PathCollector {
    tunnels: Tunnels,
    rtt: GaugeVec,
    window: IntGaugeVec,
    sent: IntCounterVec,
    lost: IntCounterVec,
}

/// Brings a [`Traffic`] into the registry's form when it is asked for.
#[derive(Debug)]
struct TrafficCollector {
    traffic: Arc<Traffic>,
    bytes: IntCounterVec,
    /// Two scrapes at a time must not add the same bytes twice.
    turn: Mutex<()>,
}

impl Metrics {
    /// Registers everything with `registry`, and with it the metrics of the process.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let traffic = Arc::new(Traffic::default());
        let metrics = Self {
            connected: IntGaugeVec::new(
                Opts::new("proxy_agent_connected", "Whether the tunnel to this hub address is up."),
                &["hub"],
            )?,
            offload: IntGaugeVec::new(
                Opts::new("proxy_agent_udp_offload", "Whether the kernel cuts and joins datagrams (GSO, GRO)."),
                &["hub", "direction"],
            )?,
            connects: counter("proxy_agent_connects_total", "Attempts to open a tunnel, by how they ended.", "result")?,
            dials: counter("proxy_agent_dials_total", "Dials asked for by hubs, by how they ended.", "result")?,
            dial_duration: Histogram::with_opts(
                HistogramOpts::new("proxy_agent_dial_duration_seconds", "How long a dial took until its answer.")
                    .buckets(DIAL_BUCKETS.to_vec()),
            )?,
            streams: IntGauge::new("proxy_agent_streams", "Streams that hubs have open.")?,
            certificate_expiry: Gauge::new(
                "proxy_agent_certificate_expiry_timestamp_seconds",
                "When the agent's certificate ends, as a Unix time.",
            )?,
            renewals: counter("proxy_agent_certificate_renewals_total", "Certificates received, by use.", "result")?,
            traffic: traffic.clone(),
            tunnels: Arc::default(),
        };
        let Self { connected, offload, connects, dials, .. } = &metrics;
        let Self { dial_duration, streams, certificate_expiry, renewals, .. } = &metrics;
        registry.register(Box::new(connected.clone()))?;
        registry.register(Box::new(offload.clone()))?;
        registry.register(Box::new(connects.clone()))?;
        registry.register(Box::new(dials.clone()))?;
        registry.register(Box::new(dial_duration.clone()))?;
        registry.register(Box::new(streams.clone()))?;
        registry.register(Box::new(certificate_expiry.clone()))?;
        registry.register(Box::new(renewals.clone()))?;
        registry.register(Box::new(TrafficCollector::new(traffic)?))?;
        registry.register(Box::new(PathCollector::new(metrics.tunnels.clone())?))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    pub(crate) fn connected(&self, hub: &HubAddress, tunnel: &AgentTunnel) {
        let hub = hub.to_string();
        self.connected.with_label_values(&[&hub]).set(1);
        self.tunnels.lock().insert(hub, tunnel.clone());
    }

    pub(crate) fn disconnected(&self, hub: &HubAddress) {
        let hub = hub.to_string();
        self.connected.with_label_values(&[&hub]).set(0);
        self.tunnels.lock().remove(&hub);
    }

    pub(crate) fn set_offload(&self, hub: &HubAddress, offload: Offload) {
        let hub = hub.to_string();
        self.offload.with_label_values(&[hub.as_str(), "send"]).set(offload.send.into());
        self.offload.with_label_values(&[hub.as_str(), "receive"]).set(offload.receive.into());
    }

    pub(crate) fn connect_ended(&self, result: &str) {
        self.connects.with_label_values(&[result]).inc();
    }

    pub(crate) fn dial_ended(&self, result: &str) {
        self.dials.with_label_values(&[result]).inc();
    }

    pub(crate) fn stream_opened(&self) -> OpenStream {
        self.streams.inc();
        OpenStream(self.streams.clone())
    }

    pub(crate) fn certificate_ends(&self, unix_seconds: f64) {
        self.certificate_expiry.set(unix_seconds);
    }

    pub(crate) fn renewed(&self, used: bool) {
        self.renewals.with_label_values(&[if used { "used" } else { "rejected" }]).inc();
    }

    /// The bytes of all streams; each stream counts into a child of it.
    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl TrafficCollector {
    fn new(traffic: Arc<Traffic>) -> prometheus::Result<Self> {
        let help = "Bytes relayed between hubs and targets, by direction.";
        let bytes = counter("proxy_agent_bytes_total", help, "direction")?;
        Ok(Self { traffic, bytes, turn: Mutex::new(()) })
    }
}

impl Collector for TrafficCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.bytes.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _turn = self.turn.lock();
        for (direction, total) in
            [("to_target", self.traffic.out_of_tunnel()), ("from_target", self.traffic.into_tunnel())]
        {
            let counter = self.bytes.with_label_values(&[direction]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        self.bytes.collect()
    }
}

impl PathCollector {
    fn new(tunnels: Tunnels) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(format!("proxy_agent_tunnel_{name}"), help);
        Ok(Self {
            tunnels,
            rtt: GaugeVec::new(opts("rtt_seconds", "Smoothed round-trip time to the hub."), &["hub"])?,
            window: IntGaugeVec::new(opts("window_bytes", "Bytes that may be under way to the hub."), &["hub"])?,
            sent: counter("proxy_agent_tunnel_packets_sent_total", "Packets sent over the tunnel to the hub.", "hub")?,
            lost: counter("proxy_agent_tunnel_packets_lost_total", "Packets given up for lost, of those sent.", "hub")?,
        })
    }

    fn families(&self) -> [&dyn Collector; 4] {
        [&self.rtt, &self.window, &self.sent, &self.lost]
    }
}

impl Collector for PathCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.families().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Two scrapes at a time must not see each other's empty vectors; and a tunnel that is gone leaves no series.
        let tunnels = self.tunnels.lock();
        self.rtt.reset();
        self.window.reset();
        self.sent.reset();
        self.lost.reset();
        for (hub, tunnel) in tunnels.iter() {
            let hub = hub.as_str();
            let PathState { rtt, window, sent, lost } = tunnel.path();
            self.rtt.with_label_values(&[hub]).set(rtt.as_secs_f64());
            self.window.with_label_values(&[hub]).set(i64::try_from(window).unwrap_or(i64::MAX));
            self.sent.with_label_values(&[hub]).inc_by(sent);
            self.lost.with_label_values(&[hub]).inc_by(lost);
        }
        self.families().into_iter().flat_map(Collector::collect).collect()
    }
}

fn counter(name: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), &[label])
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    fn text(registry: &Registry) -> String {
        TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
    }

    #[test]
    fn every_metric_moves() {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        metrics.disconnected(&"hub".parse().unwrap());
        metrics.connect_ended("connected");
        metrics.dial_ended("timed_out");
        metrics.dial_duration.observe(0.003);
        metrics.certificate_ends(1e9);
        metrics.renewed(true);
        let stream = metrics.stream_opened();
        let child = Traffic::child(metrics.traffic());
        child.add_into_tunnel(5);
        child.add_out_of_tunnel(7);
        let shown = text(&registry);
        for line in [
            "proxy_agent_connected{hub=\"hub:8091\"} 0",
            "proxy_agent_connects_total{result=\"connected\"} 1",
            "proxy_agent_dials_total{result=\"timed_out\"} 1",
            "proxy_agent_dial_duration_seconds_count 1",
            "proxy_agent_streams 1",
            "proxy_agent_certificate_expiry_timestamp_seconds 1000000000",
            "proxy_agent_certificate_renewals_total{result=\"used\"} 1",
            "proxy_agent_bytes_total{direction=\"from_target\"} 5",
            "proxy_agent_bytes_total{direction=\"to_target\"} 7",
            "process_open_fds ",
        ] {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
        child.add_into_tunnel(1);
        drop(stream);
        let shown = text(&registry);
        assert!(shown.contains("proxy_agent_streams 0"), "{shown}");
        assert!(shown.contains("proxy_agent_bytes_total{direction=\"from_target\"} 6"), "{shown}");
    }
}
