//! From an ask to a proxied connection: route, authorize, admit, dial; and the record that each leaves.

pub(crate) mod caller;
pub(crate) mod connections;
pub(crate) mod exchange;
pub(crate) mod record;
pub(crate) mod refusal;
pub(crate) mod revocations;
pub(crate) mod route;

use std::{sync::Arc, time::Duration};

use certs::ClusterName;
use jiff::Timestamp;
use registry::{
    AcceptanceStatus, Presence, Registry, User,
    kube::rbac::{Denied, Grant},
};
use tokio_util::task::TaskTracker;
use tunnel::{ConnectionLost, Dial, DialError, Dialed, Reason, SIGN_OF_LIFE, Stream, TargetKind, Traffic};

use crate::{
    agents::tunnels::{StreamGuard, Tunnels},
    authorities::Authorities,
    frontend::client::Client,
    limits::{Limits, Permit},
    metrics::Metrics,
    outcome::Outcome,
    proxy::caller::{Caller, CallerError, PresentedCredentials},
    proxy::connections::{Connections, Cut, Entry},
    proxy::record::{Record, Recorder},
    proxy::refusal::OpenError,
    proxy::route::{Naming, Route, Target, route},
};

/// How long after a hub's start a dial waits for agents that the hub before it had. They come back within 2 s of a restart.
const RETURN: Duration = Duration::from_secs(5);

/// Agents that were last seen so many seconds ago may have left with the hub before this one.
const LATELY: i64 = 15;

/// How long an agent may give no sign of life where another one can take the dial.
const FAILOVER: Duration = Duration::from_secs(2);

/// What opening a connection needs to know.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) registry: Arc<Registry>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) authorities: Arc<Authorities>,
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) recorder: Recorder,
    /// The domain under which clusters are named.
    pub(crate) domain: String,
    /// How long a dial may take.
    pub(crate) dial_timeout: Duration,
    /// Where connections run.
    pub(crate) tasks: TaskTracker,
    /// When this hub started.
    pub(crate) started: tokio::time::Instant,
}

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct OpenRequest {
    pub(crate) proxy_user: Option<String>,
    /// The cluster that the listener means.
    pub(crate) listener: Option<ClusterName>,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A connection that is open. It leaves its audit event when it is closed, or dropped.
#[derive(Debug)]
pub(crate) struct Proxied {
    record: Record,
    traffic: Arc<Traffic>,
    entry: Entry,
    tasks: TaskTracker,
    stream_guard: StreamGuard,
    _permit: Permit,
}

/// What an open connection is made of.
type Open = (Stream, Arc<Traffic>, Entry, Permit, StreamGuard);

impl Proxy {
    /// Who has presented these credentials.
    pub(crate) fn authenticate(&self, presented: &PresentedCredentials) -> Result<Caller, CallerError> {
        Caller::authenticate(presented, &self.registry, &self.authorities)
    }

    /// Opens `host` and `port` for who has presented these credentials, if they can be read. Dropping the future cancels the
    /// dial. `record` tells what became of it, in any case.
    pub(crate) async fn open(
        &self,
        record: Record,
        presented: Result<PresentedCredentials, CallerError>,
        host: String,
        port: u16,
    ) -> Result<(Stream, Proxied), OpenError> {
        let (caller, proxy_user, listener) = match presented {
            Ok(mut presented) => {
                let proxy_user = presented.credentials.name.take();
                (self.authenticate(&presented), proxy_user, presented.cluster)
            }
            Err(unreadable) => (Err(unreadable), None, None),
        };
        self.open_as(record, caller, OpenRequest { proxy_user, listener, host, port }).await
    }

    /// As [`Self::open`], for a caller who is known already.
    pub(crate) async fn open_as(
        &self,
        mut record: Record,
        caller: Result<Caller, CallerError>,
        request: OpenRequest,
    ) -> Result<(Stream, Proxied), OpenError> {
        record.target(format!("{}:{}", request.host, request.port));
        let opened = async {
            let caller = caller.map_err(OpenError::Caller)?;
            record.by(&caller);
            let proxy_user = caller.cluster_named(request.proxy_user.as_deref());
            let naming =
                Naming { proxy_user, listener: request.listener.as_ref(), host: &request.host, port: request.port };
            let route = route(naming, &self.domain).map_err(OpenError::Route)?;
            self.try_open(caller, route, &mut record).await
        };
        let opened = opened.await;
        self.opened(opened, record)
    }

    /// As [`Self::open`], where the way is clear.
    pub(crate) async fn open_route(
        &self,
        mut record: Record,
        caller: Caller,
        route: Route,
    ) -> Result<(Stream, Proxied), OpenError> {
        let opened = self.try_open(caller, route, &mut record).await;
        self.opened(opened, record)
    }

    fn opened(&self, opened: Result<Open, OpenError>, mut record: Record) -> Result<(Stream, Proxied), OpenError> {
        match opened {
            Ok((stream, traffic, entry, permit, stream_guard)) => {
                record.open();
                let proxied =
                    Proxied { record, traffic, entry, tasks: self.tasks.clone(), stream_guard, _permit: permit };
                Ok((stream, proxied))
            }
            Err(error) => {
                record.refuse(error.outcome());
                Err(error)
            }
        }
    }

    async fn try_open(&self, caller: Caller, route: Route, record: &mut Record) -> Result<Open, OpenError> {
        record.cluster(route.cluster.as_ref());
        record.rule(self.authorize(&caller, &route.cluster)?);
        if self.recorder.audit.refuses() {
            return Err(OpenError::Unrecorded);
        }
        self.check_registered(&caller, &route.cluster)?;
        let mut permit = self.limits.admit(&route.cluster, &caller).map_err(OpenError::Overloaded)?;
        let entry = self.connections.enter(caller.clone(), route.cluster.clone());
        let dial = self.message(&caller, route.target, record.trace_id());
        let dialling = self.dial(&route.cluster, &dial);
        let (stream, dialed, stream_guard) = tokio::select! {
            dialled = dialling => dialled?,
            cut = entry.cut() => return Err(OpenError::Cut(cut)),
        };
        permit.dialled();
        record.address(dialed.address);
        let traffic = Arc::new(Traffic::child(self.tunnels.traffic(&route.cluster)));
        Ok((stream, traffic, entry, permit, stream_guard))
    }

    /// The rule that lets `caller` reach `cluster`.
    pub(crate) fn authorize(&self, caller: &Caller, cluster: &ClusterName) -> Result<String, OpenError> {
        let Caller::User(user) = caller else { return Ok("permissions of the Unix socket".into()) };
        match may_proxy(&self.registry, user, cluster) {
            Ok(grant) => Ok(grant.to_string()),
            Err(denied) => {
                let reachable = self.reachable(caller);
                Err(OpenError::Forbidden { denied, reachable })
            }
        }
    }

    /// The registered clusters that `caller` may reach.
    fn reachable(&self, caller: &Caller) -> Vec<ClusterName> {
        let clusters = self.registry.clusters().into_iter().map(|cluster| cluster.name().clone());
        clusters
            .filter(|cluster| match caller {
                Caller::User(user) => may_proxy(&self.registry, user, cluster).is_ok(),
                Caller::Socket { .. } => true,
            })
            .collect()
    }

    /// The cluster that a client means by dialling `<cluster>.<domain>` itself, as TLS tells.
    pub(crate) fn cluster_of_server_name(&self, name: &str) -> Option<ClusterName> {
        name.strip_suffix(&self.domain)?.strip_suffix('.')?.parse().ok()
    }

    fn check_registered(&self, caller: &Caller, name: &ClusterName) -> Result<(), OpenError> {
        let Some(cluster) = self.registry.cluster(name) else {
            return Err(OpenError::UnknownCluster { cluster: name.clone(), reachable: self.reachable(caller) });
        };
        match cluster.acceptance() {
            AcceptanceStatus::Accepted => Ok(()),
            AcceptanceStatus::Pending => Err(OpenError::NotAccepted(name.clone())),
            AcceptanceStatus::Denied => Err(OpenError::ClusterDenied(name.clone())),
        }
    }

    fn message(&self, caller: &Caller, target: Target, trace_id: String) -> Dial {
        let (kind, host, port, identity) = match target {
            Target::KubeApi => (TargetKind::KubeApi, String::new(), 0, None),
            Target::KubeGateway(identity) => (TargetKind::KubeGateway, String::new(), 0, Some(identity)),
            Target::Tcp { host, port } => (TargetKind::Tcp, host, port.into(), None),
            Target::Tls { host, port } => (TargetKind::Tls, host, port.into(), None),
        };
        // A twentieth less than the hub waits, so that the agent can still say what it was that took so long.
        let timeout = self.dial_timeout.mul_f64(0.95).as_millis();
        Dial {
            kind: kind.into(),
            host,
            port,
            timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
            user: caller.name(),
            trace_id,
            identity,
            ..Dial::default()
        }
    }

    /// Dials on the best tunnel, and once more on another when the first goes away, is about to, or is silent.
    async fn dial(&self, cluster: &ClusterName, dial: &Dial) -> Result<(Stream, Dialed, StreamGuard), OpenError> {
        let mut dialling = self.metrics.dialling(cluster);
        let deadline = tokio::time::Instant::now() + self.dial_timeout;
        let mut tried = Vec::new();
        let mut last = None;
        if let Some(returning) = self.returning(cluster) {
            // Within the dial's deadline; whether it has come is seen below.
            let _ = tokio::time::timeout_at(deadline.min(returning), self.tunnels.arrival(cluster)).await;
        }
        while let Some(live) = self.tunnels.pick(cluster, &tried) {
            let stream_guard = live.count();
            tried.push(live.id());
            let patience = if self.tunnels.pick(cluster, &tried).is_some() { FAILOVER } else { SIGN_OF_LIFE };
            let asked = tokio::time::Instant::now();
            let opened = tokio::select! {
                opened = live.tunnel.open(dial, deadline, patience) => opened,
                () = live.superseded() => Err(DialError::Lost(ConnectionLost::Forgotten)),
            };
            let error = match opened {
                Ok((stream, dialed)) => {
                    live.answered(true);
                    dialling.answered(Outcome::Ok);
                    return Ok((stream, dialed, stream_guard));
                }
                Err(error) => error,
            };
            match &error {
                DialError::Silent => live.answered(false),
                // One that was asked at the end of another's time is not to blame.
                DialError::TimedOut if asked.elapsed() < self.dial_timeout / 2 => {}
                DialError::TimedOut => live.answered(false),
                DialError::Lost(_) | DialError::Refused(_) | DialError::NoMoreStreams | DialError::Protocol(_) => {
                    live.answered(true);
                }
            }
            if matches!(&error, DialError::Refused(refusal) if refusal.reason() == Reason::Draining) {
                live.drain();
            }
            let leaving = match &error {
                DialError::Lost(_) | DialError::Silent => true,
                DialError::Refused(refusal) => refusal.reason() == Reason::Draining,
                DialError::NoMoreStreams | DialError::TimedOut | DialError::Protocol(_) => false,
            };
            last = Some(OpenError::Dial(error));
            if !leaving || tried.len() > 1 {
                break;
            }
        }
        let error = last.unwrap_or_else(|| self.away(cluster));
        dialling.answered(error.outcome());
        Err(error)
    }

    /// Until when the agents of a cluster without a tunnel are about to be back: those that the hub before this one had.
    fn returning(&self, cluster: &ClusterName) -> Option<tokio::time::Instant> {
        let until = self.started + RETURN;
        if until <= tokio::time::Instant::now() || self.tunnels.pick(cluster, &[]).is_some() {
            return None;
        }
        let known = self.registry.cluster(cluster)?;
        // A hub that was stopped has seen its agents leave.
        let lately = |seen: Timestamp| seen.as_second() + LATELY >= Timestamp::now().as_second();
        (known.is_available() || known.status.last_seen.is_some_and(lately)).then_some(until)
    }

    fn away(&self, cluster: &ClusterName) -> OpenError {
        let seen = self.registry.cluster(cluster).and_then(|cluster| self.presence.last_seen(&cluster));
        OpenError::Away { cluster: cluster.clone(), last_seen: seen.map(|seen| (seen, Timestamp::now())) }
    }

    /// Cuts the connections whose right has gone, of those that a change concerns; says how many.
    pub(crate) fn recheck(&self, concerned: impl Fn(&Caller, &ClusterName) -> bool) -> usize {
        self.connections.retain(|caller, cluster| {
            if !concerned(caller, cluster) {
                return true;
            }
            let guard = self
                .registry
                .cluster(cluster)
                .is_some_and(|cluster| cluster.acceptance() == AcceptanceStatus::Accepted);
            guard && self.still_allowed(caller, cluster)
        })
    }

    fn still_allowed(&self, caller: &Caller, cluster: &ClusterName) -> bool {
        let Caller::User(user) = caller else { return true };
        // The user as registered now, not as it was when the connection was opened; and not one of the same name that
        // was registered since, nor by a token that has ended or was deleted.
        let current = self.registry.current(user, Timestamp::now());
        current.is_some_and(|current| may_proxy(&self.registry, &current, cluster).is_ok())
    }
}

/// The right to reach a cluster, as the registry's roles give it now.
fn may_proxy(registry: &Registry, user: &User, cluster: &ClusterName) -> Result<Grant, Denied> {
    let caller = user.caller();
    registry.with_policy(|policy| policy.may_proxy(&caller.user, &caller.groups, cluster.as_ref()))
}

impl Proxied {
    /// Where the connection's bytes are counted.
    pub(crate) fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// Resolves when the connection must end now.
    pub(crate) async fn cut(&self) -> Cut {
        self.entry.cut().await
    }

    /// Relays `client` until it is done or cut, in a task of the tunnel's worker: the bytes then never cross threads.
    pub(crate) fn relay(self, client: Client, stream: Stream) {
        let worker = self.stream_guard.worker().clone();
        let tasks = self.tasks.clone();
        tasks.spawn_on(self.relay_here(client, stream), &worker);
    }

    async fn relay_here(self, mut client: Client, stream: Stream) {
        client.adopt();
        let relay = client.relay(stream, &self.traffic);
        let outcome = tokio::select! {
            end = relay => end.into(),
            // Dropping the relay resets both its ends.
            _ = self.cut() => Outcome::Cut,
        };
        self.close(outcome);
    }

    /// Records how it ended.
    pub(crate) fn close(mut self, outcome: Outcome) {
        self.close_record(outcome);
    }

    fn close_record(&mut self, outcome: Outcome) {
        self.record.tell(outcome, self.traffic.into_tunnel(), self.traffic.out_of_tunnel());
    }
}

impl Drop for Proxied {
    fn drop(&mut self) {
        self.close_record(Outcome::Abandoned);
    }
}
