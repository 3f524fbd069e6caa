//! One tunnel from its Welcome to its end: dials come in, certificates are renewed, and either side may drain.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{sync::watch, time::sleep_until};
use tokio_util::sync::CancellationToken;
use tunnel::{
    AgentControl, AgentMessage, AgentTunnel, CloseReason, ConnectionLost, ControlError, Drain, Export, Exports,
    HubMessage, Liveness, LivenessCheck, Renew, Trusts,
};

use crate::{
    hub::HubAddress,
    identity::Identity,
    identity::store::{IdentityStore, RENEWAL_PAUSE},
    metrics::Metrics,
    status::{HubState, Status},
    target::streams::Streams,
};

/// How often a tunnel sees whether the certificate is due for renewal, and what the kernel does for it.
const CHECK: Duration = Duration::from_secs(30);

/// How long the hub may take to hear that a tunnel was closed here.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a tunnel needs to be served.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) hub: HubAddress,
    pub(crate) tunnel: AgentTunnel,
    /// What the agent exports; the hub has been told what was seen here.
    pub(crate) exports: watch::Receiver<Arc<[Export]>>,
    pub(crate) streams: Arc<Streams>,
    pub(crate) identity: Arc<IdentityStore>,
    pub(crate) status: Arc<Status>,
    pub(crate) metrics: Arc<Metrics>,
    /// Cancelled here when the hub drains.
    pub(crate) hub_drains: CancellationToken,
    /// Cancelled when the agent drains: the hub is told.
    pub(crate) drain: CancellationToken,
    /// Cancelled when the agent ends: the tunnel is closed.
    pub(crate) end: CancellationToken,
}

/// Why a tunnel ended.
#[derive(Debug)]
pub(crate) enum SessionEnd {
    /// The agent has stopped.
    Stopped,
    /// The agent has another identity now, and must come back as that.
    IdentityChanged,
    /// The tunnel is lost.
    Lost(ConnectionLost),
}

impl Session {
    /// Serves the tunnel to its end.
    pub(crate) async fn serve(self, mut control: AgentControl) -> SessionEnd {
        let mut identities = self.identity.subscribe();
        let mut exports = self.exports.clone();
        let own = identities.borrow_and_update().clone();
        let mut checks = tokio::time::interval(CHECK);
        let mut silence = Liveness::new(Instant::now());
        let (mut told, mut renewal) = (false, None);
        loop {
            tokio::select! {
                accepted = self.tunnel.accept() => match accepted {
                    Ok(pending) => self.streams.serve(pending),
                    Err(loss) => return SessionEnd::Lost(loss),
                },
                received = control.receive() => match received {
                    Ok(message) => self.handle(message, &control, &mut renewal),
                    Err(error) => return self.broken(error).await,
                },
                _ = checks.tick() => {
                    self.look();
                    if let Some(csr) = self.identity.renewal(SystemTime::now()) {
                        self.send(&control, AgentMessage::Renew(Renew { csr }));
                    }
                },
                () = sleep_until(renewal.unwrap_or_else(Instant::now).into()), if renewal.is_some() => {
                    renewal = Some(Instant::now() + RENEWAL_PAUSE);
                    if let Some(csr) = self.identity.request() {
                        self.send(&control, AgentMessage::Renew(Renew { csr }));
                    }
                }
                () = sleep_until(silence.next_check(self.tunnel.is_in_use()).into()) => match self.tunnel.check_liveness(&mut silence, Instant::now()) {
                    // The hub begins anew, and what it acknowledges shows the way back.
                    LivenessCheck::Well | LivenessCheck::Narrow => {}
                    LivenessCheck::Ask => self.tunnel.nudge(),
                    LivenessCheck::Insist => self.tunnel.insist(),
                    LivenessCheck::Gone => {
                        self.tunnel.close(CloseReason::DeadlineExceeded, "the hub has not been heard of for 15 s", CLOSE_TIMEOUT).await;
                        return SessionEnd::Lost(ConnectionLost::TimedOut);
                    }
                },
                Ok(()) = identities.changed() => {
                    let now = identities.borrow_and_update().clone();
                    if now.is_someone_else(&own) {
                        self.tunnel.close(CloseReason::Done, "the agent has joined anew", CLOSE_TIMEOUT).await;
                        return SessionEnd::IdentityChanged;
                    }
                    self.tell_trust(&control, &now);
                }
                Ok(()) = exports.changed() => {
                    let items = exports.borrow_and_update().to_vec();
                    self.send(&control, AgentMessage::Exports(Exports { items }));
                }
                () = self.drain.cancelled(), if !told => {
                    told = true;
                    self.send(&control, AgentMessage::Drain(Drain {}));
                }
                () = self.end.cancelled() => {
                    self.tunnel.close(CloseReason::AgentStopping, "", CLOSE_TIMEOUT).await;
                    return SessionEnd::Stopped;
                }
            }
        }
    }

    fn look(&self) {
        if let Some(offload) = self.tunnel.offload() {
            self.metrics.set_offload(&self.hub, offload);
        }
    }

    /// `renewal` is when a certificate of the CA that signs now is asked for.
    fn handle(&self, message: HubMessage, control: &AgentControl, renewal: &mut Option<Instant>) {
        match message {
            HubMessage::Renewed(renewed) => {
                if self.identity.renewed(&renewed.chain_pem) {
                    *renewal = None;
                }
            }
            HubMessage::Roots(roots) => {
                match self.identity.trust(&roots) {
                    // Every hub hears of it as the identity changes.
                    Ok(true) => {}
                    Ok(false) => self.tell_trust(control, &self.identity.get()),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(error, "the hub's CA is rotated, and its new roots are not followed");
                    }
                }
                // A fleet is told at the same time.
                let within = Duration::from_secs(roots.renew_within.into());
                *renewal = (!within.is_zero()).then(|| Instant::now() + within.mul_f64(rand::random()));
            }
            HubMessage::Drain(Drain {}) => {
                tracing::info!("the hub is about to stop");
                self.status.set(&self.hub, HubState::HubDraining);
                self.hub_drains.cancel();
            }
            // Said before the session began.
            HubMessage::Welcome(_) => {}
        }
    }

    fn tell_trust(&self, control: &AgentControl, identity: &Identity) {
        let (pins, issuer) = (identity.trusts(), identity.issuer().map(|pin| pin.to_string()).unwrap_or_default());
        self.send(control, AgentMessage::Trusts(Trusts { pins, issuer }));
    }

    /// A message that cannot be sent is not lost alone: the tunnel's end, which follows, is what is acted upon.
    fn send(&self, control: &AgentControl, message: AgentMessage) {
        if let Err(error) = control.send(message) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot send to the hub");
        }
    }

    async fn broken(&self, error: ControlError) -> SessionEnd {
        match error {
            ControlError::Lost(loss) => SessionEnd::Lost(loss),
            error @ (ControlError::Protocol(_) | ControlError::Stuck) => {
                // The control stream may have ended with its connection, which knows better why.
                if let Ok(loss) = tokio::time::timeout(CLOSE_TIMEOUT, self.tunnel.closed()).await {
                    return SessionEnd::Lost(loss);
                }
                self.tunnel.close(CloseReason::ProtocolError, &error.to_string(), CLOSE_TIMEOUT).await;
                SessionEnd::Lost(ConnectionLost::ClosedHere)
            }
        }
    }
}
