//! The hub's metrics. Label values come from enums, fixed strings and registered clusters, never from a client.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use certs::ClusterName;
use prometheus::{
    Histogram, HistogramOpts, IntCounterVec, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use tunnel::Listener;

use crate::{agents::tunnels::Tunnels, limits::lobby::Parting, outcome::Outcome, proxy::connections::Connections};

/// Where a client came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Frontend {
    /// HTTP CONNECT.
    Connect,
    /// HTTP with an absolute-form target.
    Http,
    Socks5,
    /// The kube gateway, by URL.
    Gateway,
    /// A service by its URL.
    Service,
    /// konnectivity's gRPC.
    Konnectivity,
}

/// The counters that the hub moves; the gauges are read when they are scraped.
#[derive(Debug)]
pub(crate) struct Metrics {
    opened: IntCounterVec,
    closed: IntCounterVec,
    refused: IntCounterVec,
    dials: IntCounterVec,
    dial_duration: Histogram,
    tunnels_opened: IntCounterVec,
    tunnels_closed: IntCounterVec,
    handshakes_failed: IntCounterVec,
    joins: IntCounterVec,
    guests_left: IntCounterVec,
}

/// A dial, which is counted when it ends: as cancelled, if nobody waited for its answer.
pub(crate) struct Dialling<'a> {
    metrics: &'a Metrics,
    cluster: &'a ClusterName,
    started: Instant,
    answer: Option<Outcome>,
}

impl Frontend {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Http => "http",
            Self::Socks5 => "socks5",
            Self::Gateway => "gateway",
            Self::Service => "service",
            Self::Konnectivity => "konnectivity",
        }
    }
}

impl Metrics {
    /// Makes the metrics known to `registry`.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            let counter = IntCounterVec::new(Opts::new(format!("proxy_server_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let dial_duration = Histogram::with_opts(
            HistogramOpts::new("proxy_server_dial_duration_seconds", "From a dial's start to its answer")
                .buckets(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
        )?;
        registry.register(Box::new(dial_duration.clone()))?;
        Ok(Self {
            opened: counter("connections_opened_total", "Connections proxied", &["frontend"])?,
            closed: counter("connections_closed_total", "Proxied connections that ended", &["frontend", "result"])?,
            refused: counter("connections_refused_total", "Connections refused", &["frontend", "reason"])?,
            dials: counter("dials_total", "Dials, by cluster and result", &["cluster", "result"])?,
            dial_duration,
            tunnels_opened: counter("tunnels_opened_total", "Tunnels established", &["cluster"])?,
            tunnels_closed: counter("tunnels_closed_total", "Tunnels lost or closed", &["cluster", "reason"])?,
            handshakes_failed: counter("handshakes_failed_total", "Handshakes that failed", &["listener", "reason"])?,
            guests_left: counter(
                "guests_left_total",
                "Connections ended because nobody had shown in time who they are, or newer ones needed the room",
                &["listener", "reason"],
            )?,
            joins: counter("joins_total", "Joins decided", &["result"])?,
        })
    }

    pub(crate) fn opened(&self, frontend: Frontend) {
        self.opened.with_label_values(&[frontend.label()]).inc();
    }

    pub(crate) fn closed(&self, frontend: Frontend, outcome: Outcome) {
        self.closed.with_label_values(&[frontend.label(), outcome.label()]).inc();
    }

    pub(crate) fn refused(&self, frontend: Frontend, outcome: Outcome) {
        self.refused.with_label_values(&[frontend.label(), outcome.label()]).inc();
    }

    /// A dial begins.
    pub(crate) fn dialling<'a>(&'a self, cluster: &'a ClusterName) -> Dialling<'a> {
        Dialling { metrics: self, cluster, started: Instant::now(), answer: None }
    }

    pub(crate) fn tunnel_opened(&self, cluster: &ClusterName) {
        self.tunnels_opened.with_label_values(&[cluster.as_ref()]).inc();
    }

    pub(crate) fn tunnel_closed(&self, cluster: &ClusterName, outcome: Outcome) {
        self.tunnels_closed.with_label_values(&[cluster.as_ref(), outcome.label()]).inc();
    }

    pub(crate) fn handshake_failed(&self, listener: &str, outcome: Outcome) {
        self.handshakes_failed.with_label_values(&[listener, outcome.label()]).inc();
    }

    pub(crate) fn guest_left(&self, listener: &str, parting: Parting) {
        self.guests_left.with_label_values(&[listener, parting.outcome().label()]).inc();
    }

    pub(crate) fn joined(&self, outcome: Outcome) {
        self.joins.with_label_values(&[outcome.label()]).inc();
    }
}

impl Dialling<'_> {
    /// What came of it.
    pub(crate) fn answered(&mut self, outcome: Outcome) {
        self.answer = Some(outcome);
    }
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        let Self { metrics, cluster, started, answer } = self;
        metrics.dials.with_label_values(&[cluster.as_ref(), answer.unwrap_or_default().label()]).inc();
        if answer.is_some() {
            metrics.dial_duration.observe(started.elapsed().as_secs_f64());
        }
    }
}

/// What is read from the live tunnels and connections at each scrape.
pub(crate) struct LiveCollector {
    tunnels: Arc<Tunnels>,
    connections: Arc<Connections>,
    listeners: Vec<Arc<Listener>>,
    open: IntGaugeVec,
    by_cluster: IntGaugeVec,
    streams: IntGaugeVec,
    rtt: prometheus::GaugeVec,
    path_mtu: IntGaugeVec,
    offload: IntGaugeVec,
    bytes: IntCounterVec,
    /// Two scrapes at a time must neither add the same bytes twice nor see each other's empty vectors.
    turn: Mutex<()>,
}

impl LiveCollector {
    pub(crate) fn new(
        tunnels: Arc<Tunnels>,
        connections: Arc<Connections>,
        listeners: Vec<Arc<Listener>>,
    ) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            IntGaugeVec::new(Opts::new(format!("proxy_server_{name}"), help), labels)
        };
        let rtt = Opts::new("proxy_server_tunnel_rtt_seconds", "Smallest round-trip time of a cluster's tunnels");
        let bytes = Opts::new("proxy_server_bytes_total", "Bytes relayed to and from a cluster's targets");
        Ok(Self {
            tunnels,
            connections,
            listeners,
            open: gauge("connections", "Connections open, dialling ones included", &[])?,
            by_cluster: gauge("tunnels", "Tunnels of a cluster", &["cluster"])?,
            streams: gauge("streams", "Streams open in a cluster's tunnels", &["cluster"])?,
            rtt: prometheus::GaugeVec::new(rtt, &["cluster"])?,
            path_mtu: gauge(
                "tunnel_path_mtu_bytes",
                "Largest IP packet on the narrowest of a cluster's paths",
                &["cluster"],
            )?,
            offload: gauge("udp_offload", "Whether the kernel cuts and joins datagrams (GSO, GRO)", &["direction"])?,
            bytes: IntCounterVec::new(bytes, &["cluster", "direction"])?,
            turn: Mutex::new(()),
        })
    }

    fn families(&self) -> [&dyn Collector; 7] {
        let Self { open, by_cluster, streams, rtt, path_mtu, offload, bytes, .. } = self;
        [open, by_cluster, streams, rtt, path_mtu, offload, bytes]
    }
}

impl Collector for LiveCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.families().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // A cluster that is deleted must leave no series behind.
        self.by_cluster.reset();
        self.streams.reset();
        self.rtt.reset();
        self.path_mtu.reset();
        self.bytes.reset();
        self.open.with_label_values::<&str>(&[]).set(to_i64(self.connections.count()));
        let offloads: Vec<_> = self.listeners.iter().map(|listener| listener.offload()).collect();
        for (direction, all) in [
            ("send", offloads.iter().all(|offload| offload.send)),
            ("receive", offloads.iter().all(|offload| offload.receive)),
        ] {
            self.offload.with_label_values(&[direction]).set(all.into());
        }
        for cluster in self.tunnels.clusters() {
            let summary = self.tunnels.summary(&cluster);
            let label = [cluster.as_ref()];
            self.by_cluster.with_label_values(&label).set(to_i64(summary.tunnels));
            self.streams.with_label_values(&label).set(to_i64(summary.streams));
            if let Some(rtt) = summary.rtt {
                self.rtt.with_label_values(&label).set(rtt.as_secs_f64());
            }
            if let Some(mtu) = summary.path_mtu {
                self.path_mtu.with_label_values(&label).set(mtu.into());
            }
            self.bytes.with_label_values(&[cluster.as_ref(), "to_cluster"]).inc_by(summary.bytes_to_cluster);
            self.bytes.with_label_values(&[cluster.as_ref(), "from_cluster"]).inc_by(summary.bytes_from_cluster);
        }
        self.families().into_iter().flat_map(Collector::collect).collect()
    }
}

fn to_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
