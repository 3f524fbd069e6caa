//! The supervisor of one hub address: connects, serves, waits and connects again, until the agent stops.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use process::chain;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};
use tunnel::{AgentControl, AgentTunnel, CloseReason, Connection, Export, Hello};

use crate::{
    hub::HubAddress,
    hub::backoff::{self, Backoff, attempt_limit},
    hub::connect::{ConnectError, Refused, connect, establish},
    hub::path::Path,
    hub::reached::{Reached, Sole},
    hub::session::{Session, SessionEnd},
    identity::store::IdentityStore,
    metrics::{CONNECTED, Metrics},
    status::{HubState, Status},
    target::resolve::Resolver,
    target::streams::Streams,
};

/// Different failures that are told of one outage. Beyond it they come and go, and say nothing new.
const FAILURES_TOLD: usize = 8;

/// How long the hub may take to hear that a tunnel is one too many.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the supervisors of all hubs share.
#[derive(Clone, Debug)]
pub(crate) struct Supervisor {
    pub(crate) resolver: Resolver,
    pub(crate) identity: Arc<IdentityStore>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) status: Arc<Status>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) reached: Arc<Reached>,
    /// Random at each start of the agent.
    pub(crate) instance: String,
    /// What the agent exports now.
    pub(crate) exports: watch::Receiver<Arc<[Export]>>,
    pub(crate) tunnel: tunnel::Settings,
    pub(crate) drain: CancellationToken,
    pub(crate) end: CancellationToken,
}

/// What the log has said about the present outage.
#[derive(Debug, Default)]
struct LoggedErrors(Vec<String>);

/// A tunnel that is up.
struct Connected {
    tunnel: AgentTunnel,
    control: AgentControl,
    server_id: String,
    /// Has seen what the hub was told.
    exports: watch::Receiver<Arc<[Export]>>,
}

/// How long to wait before the next attempt.
enum Wait {
    /// The usual back-off.
    Failed,
    /// The hub has said when to come again.
    RetryAfter(Duration),
    /// The hub has said no.
    Refused(Refused),
    /// Nothing was wrong.
    None,
    /// There is no next attempt.
    Stopped,
}

impl Supervisor {
    /// Keeps `hub` connected until the agent drains, and then its tunnel until the agent ends.
    pub(crate) async fn run(self, hub: HubAddress) {
        let span = info_span!("hub", %hub);
        self.keep_connected(&hub).instrument(span).await;
    }

    async fn keep_connected(&self, hub: &HubAddress) {
        let (mut backoff, mut told, mut path) = (Backoff::default(), LoggedErrors::default(), None);
        let mut down_since = Instant::now();
        let mut identity = self.identity.subscribe();
        // Tunnels of hubs that drain: they serve what is open while another hub is looked for.
        let mut leaving = JoinSet::new();
        while !self.drain.is_cancelled() {
            identity.mark_unchanged();
            let limit = attempt_limit(down_since.elapsed());
            let connected = tokio::select! {
                connected = self.connect(hub, path, limit) => connected,
                () = self.drain.cancelled() => break,
                // The hub has gone at last: who comes after it is asked anew, at once.
                Some(_) = leaving.join_next() => {
                    backoff = Backoff::default();
                    continue;
                }
            };
            let opened = match connected {
                // A hub that knows who comes counts on the tunnel, also where another one goes meanwhile.
                Ok(connection) => tokio::select! {
                    opened = self.open(hub, connection) => opened,
                    () = self.drain.cancelled() => break,
                },
                Err(error) => Err(error),
            };
            let wait = match opened {
                Ok(connected) => {
                    let Some(sole) = self.sole(hub, &connected).await else {
                        (backoff, down_since, told) = (Backoff::default(), Instant::now(), LoggedErrors::default());
                        continue;
                    };
                    let (up_since, tunnel) = (Instant::now(), connected.tunnel.clone());
                    let hub_drains = CancellationToken::new();
                    let session = self.session(hub, &connected, hub_drains.clone());
                    let mut session = Box::pin(async move {
                        let _sole = sole;
                        session.serve(connected.control).await
                    });
                    let end = tokio::select! {
                        end = &mut session => Some(end),
                        () = hub_drains.cancelled(), if !self.drain.is_cancelled() => None,
                    };
                    let (up, now) = (up_since.into_std(), Instant::now().into_std());
                    path = Path::after(path, tunnel.remote_address(), tunnel.known_mtu(), up, now);
                    if backoff.ended(up_since.elapsed()) || end.is_none() {
                        (backoff, down_since, told) = (Backoff::default(), Instant::now(), LoggedErrors::default());
                    }
                    match end {
                        Some(end) => self.ended(hub, &end, &mut told),
                        None => {
                            leaving.spawn(session.in_current_span());
                            Wait::Failed
                        }
                    }
                }
                Err(error) => {
                    if backoff.heard(error.is_answer()) {
                        down_since = Instant::now();
                    }
                    self.failed(hub, &error, &mut told)
                }
            };
            let delay = match wait {
                Wait::Failed => backoff.failed(down_since.elapsed(), rand::random()),
                Wait::RetryAfter(wait) => backoff::told(wait, rand::random()),
                Wait::Refused(refused) => backoff.refused(refused.is_decided_at_the_hub(), rand::random()),
                Wait::None => Duration::ZERO,
                Wait::Stopped => break,
            };
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.drain.cancelled() => {}
                // What was refused may be let in now.
                Ok(()) = identity.changed() => backoff = Backoff::default(),
                Some(_) = leaving.join_next() => backoff = Backoff::default(),
            }
        }
        // They end with the agent.
        while leaving.join_next().await.is_some() {}
    }

    async fn connect(&self, hub: &HubAddress, path: Option<Path>, limit: Duration) -> Result<Connection, ConnectError> {
        connect(&self.resolver, hub, self.identity.get().tls(), self.tunnel, path, limit).await
    }

    async fn open(&self, hub: &HubAddress, connection: Connection) -> Result<Connected, ConnectError> {
        let mut exports = self.exports.clone();
        let hello = Hello {
            exports: exports.borrow_and_update().to_vec(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: Vec::new(),
            instance: self.instance.clone(),
            trusts: self.identity.get().trusts(),
            clock: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs(),
        };
        let (tunnel, control, welcome) = establish(connection, hub, hello, self.tunnel.memory).await?;
        tracing::info!(
            address = %tunnel.remote_address(),
            server_id = welcome.server_id,
            version = welcome.version,
            "tunnel is up"
        );
        Ok(Connected { tunnel, control, server_id: welcome.server_id, exports })
    }

    /// The place of the only tunnel to that hub. `None` after another address has had it for a while, or the agent drains.
    async fn sole(&self, hub: &HubAddress, connected: &Connected) -> Option<Sole> {
        let freed = match self.reached.take(&connected.server_id) {
            Ok(sole) => return Some(sole),
            Err(freed) => freed,
        };
        tracing::info!("this is another address of a hub that has a tunnel; standing by");
        self.metrics.connect_ended(CONNECTED);
        self.metrics.disconnected(hub);
        self.status.set(hub, HubState::Standby);
        connected.tunnel.close(CloseReason::Done, "another address has the tunnel", CLOSE_TIMEOUT).await;
        self.drain.run_until_cancelled(freed.cancelled()).await;
        None
    }

    fn session(&self, hub: &HubAddress, connected: &Connected, hub_drains: CancellationToken) -> Session {
        self.metrics.connect_ended(CONNECTED);
        self.metrics.connected(hub, &connected.tunnel);
        self.status.set(hub, HubState::Ready);
        Session {
            hub: hub.clone(),
            tunnel: connected.tunnel.clone(),
            exports: connected.exports.clone(),
            streams: self.streams.clone(),
            identity: self.identity.clone(),
            status: self.status.clone(),
            metrics: self.metrics.clone(),
            hub_drains,
            drain: self.drain.clone(),
            end: self.end.clone(),
        }
    }

    fn ended(&self, hub: &HubAddress, end: &SessionEnd, told: &mut LoggedErrors) -> Wait {
        self.metrics.disconnected(hub);
        let loss = match end {
            SessionEnd::Stopped => return Wait::Stopped,
            SessionEnd::IdentityChanged => {
                self.status.set(hub, HubState::Connecting);
                tracing::info!("the agent has another identity; connecting as that");
                return Wait::None;
            }
            SessionEnd::Lost(loss) => loss,
        };
        self.status.set(hub, HubState::Failed(loss.to_string()));
        match Refused::of(loss) {
            Some(refused) => {
                told.refused(&refused);
                Wait::Refused(refused)
            }
            None => {
                tracing::warn!(reason = %loss, "tunnel lost; connecting again");
                Wait::Failed
            }
        }
    }

    fn failed(&self, hub: &HubAddress, error: &ConnectError, told: &mut LoggedErrors) -> Wait {
        self.metrics.connect_ended(error.label());
        self.metrics.disconnected(hub);
        let chain = chain(error);
        self.status.set(hub, HubState::Failed(chain.clone()));
        if let ConnectError::Later { wait, .. } = error {
            if told.is_new("the hub has no room yet") {
                tracing::info!(reason = chain, "the hub has many agents to let in");
            }
            return Wait::RetryAfter(*wait);
        }
        match error.refused() {
            Some(refused) => {
                let refused = refused.at(SystemTime::now(), self.identity.get().validity().not_after);
                self.status.set(hub, HubState::Failed(refused.why.clone()));
                told.refused(&refused);
                Wait::Refused(refused)
            }
            None => {
                if told.is_new(&chain) {
                    tracing::warn!(reason = chain, "cannot connect; trying again");
                }
                Wait::Failed
            }
        }
    }
}

impl LoggedErrors {
    fn refused(&mut self, refused: &Refused) {
        let Refused { why, remedy, label } = refused;
        if self.is_new(why) {
            tracing::error!(reason = label, why, remedy, "the hub refuses this agent; asking again from time to time");
        }
    }

    fn is_new(&mut self, text: &str) -> bool {
        let new = self.0.len() < FAILURES_TOLD && !self.0.iter().any(|told| told == text);
        if new {
            self.0.push(text.to_owned());
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_once_in_an_outage() {
        let mut told = LoggedErrors::default();
        assert!(told.is_new("silence"));
        assert!(!told.is_new("silence"));
        assert!(told.is_new("refused"));
        for other in 0..100 {
            told.is_new(&other.to_string());
        }
        assert_eq!(told.0.len(), FAILURES_TOLD);
    }
}
