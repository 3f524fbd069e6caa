//! The agent put together: checked and bound first, run later, and stopped in a written order.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use prometheus::Registry;
use tokio::{net::TcpListener, sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    exports::{ExportConfig, Services},
    health::HealthPort,
    hub::HubAddress,
    hub::supervisor::Supervisor,
    identity::IdentityError,
    identity::store::IdentityStore,
    metrics::Metrics,
    state::StateFolder,
    status::{Readiness, Status},
    target::dial::Dialer,
    target::resolve::Resolver,
    target::streams::{SpokeConfig, Streams},
};

/// How long tasks may take to end once they are cut.
const CUT_TIMEOUT: Duration = Duration::from_secs(2);

/// An agent whose identity is read and whose port is bound; it has spoken to nobody yet.
#[derive(Debug)]
pub struct Agent {
    hubs: Vec<HubAddress>,
    drain_timeout: Duration,
    supervisor: Supervisor,
    services: Option<Services>,
    metrics: Registry,
    listener: Option<TcpListener>,
    metrics_address: Option<SocketAddr>,
    /// What the hub may reach, in one line.
    open: String,
    cut: CancellationToken,
}

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the agent has no usable identity")]
    Identity(#[source] IdentityError),
    #[error("no hub is named; use --hub HOST:PORT")]
    NoHub,
    #[error("cannot listen on {address} for metrics; is another agent there? Choose with --metrics-listen")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the metrics cannot be registered")]
    Metrics(#[source] prometheus::Error),
}

/// Why an agent did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("a part of the agent ended unexpectedly; look at the log before this line")]
    Ended,
}

/// Runs an agent until `stop`, then drains it.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    Agent::bind(config).await?.run(stop, CancellationToken::new()).await
}

impl Agent {
    /// Reads the identity and binds the metrics port.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        let Config {
            state,
            hubs,
            policy,
            kube_api,
            gateway,
            service_ca,
            exports,
            metrics_listen,
            drain_timeout,
            tunnel,
        } = config;
        let registry = Registry::new();
        let metrics = Arc::new(Metrics::register(&registry).map_err(StartError::Metrics)?);
        let identity = IdentityStore::load(StateFolder::new(state), metrics.clone()).map_err(StartError::Identity)?;
        let hubs = if hubs.is_empty() { identity.get().membership.hubs.clone() } else { hubs };
        if hubs.is_empty() {
            return Err(StartError::NoHub);
        }
        for hub in &hubs {
            metrics.disconnected(hub);
        }
        let (listener, metrics_address) = match metrics_listen {
            Some(address) => bind(address).await.map(|(listener, address)| (Some(listener), Some(address)))?,
            None => (None, None),
        };
        let (drain, end, cut) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
        let (resolver, open) = (Resolver::new(), policy.to_string());
        let dialer = Dialer::new(resolver.clone());
        let spoke = SpokeConfig { policy, kube_api, gateway, service_ca };
        let streams = Streams::new(dialer, spoke, metrics.clone(), cut.clone());
        let ExportConfig { fixed, services, interval } = exports;
        let exports = watch::Sender::new(fixed.clone().into());
        let exported = exports.subscribe();
        let gateway = streams.gateway();
        let services = services.map(|selector| Services { selector, interval, gateway, fixed, exports });
        let supervisor = Supervisor {
            resolver,
            identity: Arc::new(identity),
            streams: Arc::new(streams),
            status: Arc::new(Status::new(&hubs)),
            metrics,
            reached: Arc::default(),
            instance: format!("{:032x}", rand::random::<u128>()),
            exports: exported,
            tunnel,
            drain,
            end,
        };
        Ok(Self { hubs, drain_timeout, supervisor, services, metrics: registry, listener, metrics_address, open, cut })
    }

    /// Where `/metrics` and the probes are.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// To wait until the first tunnel is up.
    pub fn readiness(&self) -> Readiness {
        self.supervisor.status.subscribe()
    }

    /// Runs until `stop`, then drains; `abort` ends the drain early.
    pub async fn run(self, stop: CancellationToken, abort: CancellationToken) -> Result<(), RunError> {
        let Self { hubs, drain_timeout, supervisor, services, metrics, listener, metrics_address, open, cut } = self;
        let Supervisor { identity, streams, status, drain, end, .. } = supervisor.clone();
        // Streams have tasks of their own, which must not outlive a run that is dropped.
        let _cut_when_dropped = cut.clone().drop_guard();
        let membership = identity.get().membership.clone();
        tracing::info!(
            cluster = %membership.cluster,
            agent = %membership.agent,
            hubs = hubs.len(),
            metrics = metrics_address.map(tracing::field::display),
            open,
            "agent started"
        );
        // The parts that must outlive the agent's stop, and the tunnels, which end with it.
        let (mut parts, mut tunnels) = (JoinSet::new(), JoinSet::new());
        for hub in hubs {
            tunnels.spawn(supervisor.clone().run(hub));
        }
        if let Some(services) = services {
            parts.spawn(services.follow(end.clone()));
        }
        parts.spawn(async move { identity.follow_files(end).await });
        let probes = TaskTracker::new();
        let probes_end = CancellationToken::new();
        if let Some(listener) = listener {
            let health = HealthPort { metrics, status, drain: drain.clone() };
            parts.spawn(health.serve(listener, probes.clone(), probes_end.clone()));
        }
        tokio::select! {
            () = stop.cancelled() => {}
            ended = parts.join_next() => return Err(unexpected(ended)),
            ended = tunnels.join_next() => return Err(unexpected(ended)),
        }

        // 1. Not ready any more; hubs are told, and dial other agents where there are any.
        tracing::info!(streams = streams.count(), seconds = drain_timeout.as_secs(), "draining");
        drain.cancel();
        // 2. What is open may end by itself.
        tokio::select! {
            () = streams.wait() => {}
            () = tokio::time::sleep(drain_timeout) => {}
            () = abort.cancelled() => {}
        }
        // 3. The rest is cut.
        let left = streams.count();
        cut.cancel();
        if left > 0 {
            tracing::warn!(streams = left, "cut what was still open");
        }
        let _ = tokio::time::timeout(CUT_TIMEOUT, streams.closed()).await;
        // 4. The tunnels are closed, and then the probes, which can see all of it.
        supervisor.end.cancel();
        let _ = tokio::time::timeout(CUT_TIMEOUT, async { while tunnels.join_next().await.is_some() {} }).await;
        probes_end.cancel();
        probes.close();
        let _ = tokio::time::timeout(CUT_TIMEOUT, probes.wait()).await;
        tracing::info!("agent stopped");
        Ok(())
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source| StartError::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// A part that panicked takes the agent with it.
fn unexpected(ended: Option<Result<(), tokio::task::JoinError>>) -> RunError {
    if let Some(Err(error)) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
    RunError::Ended
}
