//! The streams that hubs open: each is dialled under the policy and relayed until both ends are done, in a task of its
//! own.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tokio_rustls::client::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span, field, info_span};
use tunnel::{
    Delivery, Dial, DialRequest, Identity, PendingDial, Reason, Refusal, RelayEnd, Stream, TargetKind, Traffic, relay,
};

use crate::{
    cause::with_cause,
    config::KubeApi,
    gateway::{Gateway, GatewayConfig},
    metrics::{CONNECTED, Metrics},
    policy::Policy,
    target::Target,
    target::dial::{DialError, Dialer},
    target::service_tls,
};

/// How long a hub may take to say what a stream that it opened is for, and to take its answer.
const TALK_TIMEOUT: Duration = Duration::from_secs(10);

/// Dials under way at a time. Each holds a socket, and black holes hold them until their deadline.
const DIALS: usize = 1024;

/// The longest a dial may take, whatever the hub says.
const LONGEST_DIAL: Duration = Duration::from_secs(120);

/// What serves streams. Shared by all tunnels.
#[derive(Debug)]
pub(crate) struct Streams {
    dialer: Dialer,
    policy: Policy,
    kube_api: Target,
    /// How the policy judges the spoke's API server.
    kube_policy: Policy,
    gateway: Arc<Gateway>,
    service_ca: Vec<PathBuf>,
    room: Semaphore,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    /// Cancelled when the drain's time is up: streams are cut, and new dials refused.
    cut: CancellationToken,
}

/// What an agent's operator says of the spoke.
#[derive(Debug)]
pub(crate) struct SpokeConfig {
    pub(crate) policy: Policy,
    pub(crate) kube_api: KubeApi,
    pub(crate) gateway: GatewayConfig,
    pub(crate) service_ca: Vec<PathBuf>,
}

/// What a dial has led to.
enum Dialled {
    Connection(TargetConnection, SocketAddr),
    /// HTTP is to be served on the stream, for requests to what has this name.
    Gateway(Identity, String),
}

/// A connection to a target that is reset when it closes, even by the kernel for an agent that was killed, unless its
/// end was in order: the target must not take a broken connection for a complete one.
struct TargetConnection {
    transport: Transport,
    complete: bool,
}

enum Transport {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Streams {
    pub(crate) fn new(dialer: Dialer, spoke: SpokeConfig, metrics: Arc<Metrics>, cut: CancellationToken) -> Self {
        let SpokeConfig { policy, kube_api, gateway, service_ca } = spoke;
        let kube_policy = match kube_api {
            KubeApi::Configured(_) => policy.for_configured(),
            KubeApi::Assumed(_) => policy.clone(),
        };
        let kube_api = kube_api.target().clone();
        let service_ca = if service_ca.is_empty() { vec![gateway.ca.clone()] } else { service_ca };
        let gateway = Gateway::new(gateway, kube_api.clone(), dialer.clone(), kube_policy.clone(), cut.clone());
        let (gateway, room, tasks) = (Arc::new(gateway), Semaphore::new(DIALS), TaskTracker::new());
        Self { dialer, policy, kube_api, kube_policy, gateway, service_ca, room, metrics, tasks, cut }
    }

    /// The way to the kube-apiserver.
    pub(crate) fn gateway(&self) -> Arc<Gateway> {
        self.gateway.clone()
    }

    /// Serves a stream in a task of its own.
    pub(crate) fn serve(self: &Arc<Self>, pending: PendingDial) {
        let streams = self.clone();
        let span = info_span!(
            "stream",
            trace_id = field::Empty,
            user = field::Empty,
            target = field::Empty,
            address = field::Empty
        );
        let task = async move {
            let open = streams.metrics.stream_opened();
            if streams.cut.run_until_cancelled(streams.serve_stream(pending)).await.is_none() {
                tracing::warn!("cut by the agent's stop");
            }
            drop(open);
        };
        self.tasks.spawn(task.instrument(span));
    }

    /// The number of streams being served.
    pub(crate) fn count(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until no stream is left and none can come. Bound the wait.
    pub(crate) async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Waits until, after the cut, no connection into the spoke is left. Bound the wait.
    pub(crate) async fn closed(&self) {
        self.wait().await;
        self.gateway.closed().await;
    }

    async fn serve_stream(&self, pending: PendingDial) {
        let request = match pending.read(TALK_TIMEOUT).await {
            Ok(request) => request,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a stream without a dial");
                return;
            }
        };
        record(&request.dial);
        let started = Instant::now();
        let dialled = tokio::select! {
            dialled = self.dial(&request.dial) => dialled,
            () = request.cancelled() => {
                self.metrics.dial_ended("cancelled");
                tracing::debug!("the hub gave the dial up");
                return;
            }
        };
        self.metrics.dial_duration.observe(started.elapsed().as_secs_f64());
        match dialled {
            Ok(dialled) => {
                self.metrics.dial_ended(CONNECTED);
                let address = dialled.address();
                Span::current().record("address", field::display(&address));
                match tokio::time::timeout(TALK_TIMEOUT, request.accept(address)).await {
                    Ok(Ok(stream)) => self.serve_dialled(stream, dialled, started).await,
                    Ok(Err(_)) | Err(_) => tracing::debug!("the hub left before its answer"),
                }
            }
            Err((refusal, label)) => {
                self.metrics.dial_ended(label);
                tracing::info!(result = label, why = refusal.message, "dial refused");
                refuse(request, refusal).await;
            }
        }
    }

    /// Connects to what `dial` asks for; or the answer, and its label.
    async fn dial(&self, dial: &Dial) -> Result<Dialled, (Refusal, &'static str)> {
        let refuse = |reason: Reason, message: &str| (Refusal::new(reason, message), reason.label());
        // While the agent drains it is asked only where there is no other: who comes until the end is better served than refused.
        if self.cut.is_cancelled() {
            return Err(refuse(Reason::Draining, "the agent is stopping; try again"));
        }
        let Ok(_permit) = self.room.try_acquire() else {
            return Err(refuse(Reason::Overloaded, "the agent has too many dials under way; try again later"));
        };
        // The enumeration's own accessor would take a kind of a newer hub for a TCP service.
        let kind = TargetKind::try_from(dial.kind);
        let (target, policy) = match kind {
            Ok(TargetKind::Tcp | TargetKind::Tls) => (Target::new(&dial.host, dial.port), &self.policy),
            Ok(TargetKind::KubeApi) => (Ok(self.kube_api.clone()), &self.kube_policy),
            Ok(TargetKind::KubeGateway) => {
                let to = self.gateway.ready().await.map_err(|refusal| {
                    let label = refusal.reason().label();
                    (refusal, label)
                })?;
                return Ok(Dialled::Gateway(dial.identity.clone().unwrap_or_default(), to));
            }
            Err(_) => {
                let message = "the agent does not know this kind of target; upgrade it to the hub's version";
                return Err(refuse(Reason::KindNotSupported, message));
            }
        };
        let told = |error: DialError| (error.refusal(), error.label());
        let target = target.map_err(|error| told(DialError::BadTarget(error)))?;
        let limit = Duration::from_millis(dial.timeout_ms.into()).min(LONGEST_DIAL);
        let deadline = Instant::now() + limit;
        let (stream, address) = self.dialer.dial(&target, policy, limit).await.map_err(told)?;
        if kind != Ok(TargetKind::Tls) {
            return Ok(Dialled::Connection(TargetConnection::new(Transport::Tcp(stream)), address));
        }
        let shaking = service_tls::handshake(stream, &target.host, &self.service_ca, &[b"http/1.1"]);
        match timeout_at(deadline, shaking).await {
            Ok(Ok(tls)) => Ok(Dialled::Connection(TargetConnection::new(Transport::Tls(Box::new(tls))), address)),
            Ok(Err(error)) => {
                let message = format!("{target}: {}", with_cause(&error));
                Err((Refusal::new(Reason::Unspecified, message), "tls_failed"))
            }
            Err(_) => Err(refuse(Reason::TimedOut, &format!("{target} did not complete the TLS handshake in time"))),
        }
    }

    async fn serve_dialled(&self, stream: Stream, dialled: Dialled, started: Instant) {
        match dialled {
            Dialled::Connection(connection, _) => self.relay(stream, connection, started).await,
            Dialled::Gateway(identity, _) => {
                let traffic = Arc::new(Traffic::child(self.metrics.traffic()));
                let end = self.gateway.serve(stream, identity, traffic.clone()).await;
                told_closed(end, &traffic, started);
            }
        }
    }

    async fn relay(&self, stream: Stream, mut connection: TargetConnection, started: Instant) {
        let traffic = Traffic::child(self.metrics.traffic());
        let end = match &mut connection.transport {
            Transport::Tcp(tcp) => {
                let (reader, writer) = tcp.split();
                relay(stream, reader, writer, &traffic).await
            }
            Transport::Tls(tls) => {
                let (reader, writer) = tokio::io::split(tls);
                relay(stream, reader, writer, &traffic).await
            }
        };
        connection.complete = end == RelayEnd::Complete;
        if !connection.complete
            && let Some(delivery) = Delivery::of(connection.transport.tcp())
        {
            delivery.done().await;
        }
        told_closed(&format!("{end:?}"), &traffic, started);
    }
}

impl Transport {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }
}

impl TargetConnection {
    fn new(transport: Transport) -> Self {
        let connection = Self { transport, complete: false };
        connection.set_linger(Some(Duration::ZERO));
        connection
    }

    /// Zero makes a close a reset (socket(7)).
    fn set_linger(&self, linger: Option<Duration>) {
        // A socket that takes no option is about to fail anyway.
        let _ = SockRef::from(self.transport.tcp()).set_linger(linger);
    }
}

impl Drop for TargetConnection {
    fn drop(&mut self) {
        if self.complete {
            self.set_linger(None);
        }
    }
}

impl Dialled {
    /// What was reached, for the hub's audit event.
    fn address(&self) -> String {
        match self {
            Self::Connection(_, address) => address.to_string(),
            Self::Gateway(_, to) => to.clone(),
        }
    }
}

fn told_closed(end: &str, traffic: &Traffic, started: Instant) {
    tracing::info!(
        end,
        to_target = traffic.out_of_tunnel(),
        from_target = traffic.into_tunnel(),
        seconds = started.elapsed().as_secs_f64(),
        "connection closed"
    );
}

async fn refuse(request: DialRequest, refusal: Refusal) {
    let refused = tokio::time::timeout(TALK_TIMEOUT, request.refuse(refusal)).await;
    if !matches!(refused, Ok(Ok(()))) {
        tracing::debug!("the hub left before its answer");
    }
}

/// The hub has checked these texts; they are cut so that no hub can fill the spoke's log.
fn record(dial: &Dial) {
    let cut = |text: &str| text.chars().take(300).collect::<String>();
    let target = match TargetKind::try_from(dial.kind) {
        Ok(TargetKind::KubeApi | TargetKind::KubeGateway) => "the Kubernetes API".to_owned(),
        Ok(TargetKind::Tcp | TargetKind::Tls) | Err(_) => format!("{}:{}", cut(&dial.host), dial.port),
    };
    let span = Span::current();
    span.record("target", target).record("user", cut(&dial.user)).record("trace_id", cut(&dial.trace_id));
}
