//! Joins: a token and a CSR become a registered agent with a certificate, once an administrator (or the token) says so.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use certs::{AgentName, Authority, ClusterName, KeyFingerprint, Phase};
use jiff::Timestamp;
use registry::{AgentRefusal, AgentTrust, Change, JoinAsk, JoinRefusal, Joined, Presence, Registry, join_token_id};
use secrecy::SecretString;
use tokio::sync::broadcast::error::RecvError;
use tunnel::{
    CloseReason, Connection, Issued, JoinError, JoinReply, JoinRequest, JoinSession, Pending, Reason, Refusal,
};

use crate::{
    agents::pending_joins::{PendingJoins, PendingJoinsFull},
    agents::version,
    audit::{self, Text},
    authorities::Authorities,
    frontend::client::Peer,
    limits::lobby::{Lobby, Size},
    limits::rates::Lines,
    outcome::Outcome,
    proxy::record::{Recorder, RequestRecord},
};

/// How long a joiner may take to say its request, and to take its answer.
const TALK_TIMEOUT: Duration = Duration::from_secs(10);

/// Joins at a time that are heard or answered, which takes a round trip.
const TALKS: Size = Size { guests: 512, of_source: 128, grace: Duration::ZERO };

/// How long a join waits for its administrator before the agent has to ask again.
const DECISION_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What serves joins.
#[derive(Debug)]
pub(crate) struct Joins {
    registry: Arc<Registry>,
    presence: Arc<Presence>,
    authorities: Arc<Authorities>,
    recorder: Recorder,
    /// How long an agent's certificate lives.
    lifetime: Duration,
    /// Those that wait for the joiner.
    talks: Arc<Lobby>,
    /// Those that wait for the registry and the administrator.
    pending: Arc<PendingJoins>,
    /// Of the log, which joiners cause.
    lines: Lines<()>,
}

/// A join that the registry took.
#[derive(Debug)]
struct AcceptedJoin {
    cluster: ClusterName,
    agent: AgentName,
    key: KeyFingerprint,
    csr: Vec<u8>,
}

/// Why a joiner was not heard or answered to the end.
enum JoinFailure {
    Full(PendingJoinsFull),
    Broken(JoinError),
}

impl Joins {
    pub(crate) fn new(
        registry: &Arc<Registry>,
        presence: &Arc<Presence>,
        authorities: &Arc<Authorities>,
        recorder: Recorder,
        lifetime: Duration,
    ) -> Self {
        let (registry, presence, authorities) = (registry.clone(), presence.clone(), authorities.clone());
        let (talks, pending) = (Lobby::new(TALKS, 0), Arc::default());
        Self { registry, presence, authorities, recorder, lifetime, talks, pending, lines: Lines::default() }
    }

    /// Serves one join to its end.
    pub(crate) async fn serve(&self, connection: Connection) {
        let (peer, metrics) = (connection.remote_address(), &self.recorder.metrics);
        // Every join is an event, whatever becomes of it.
        let record = self.recorder.request(
            Peer::Tcp(peer),
            audit::Request {
                frontend: "tunnel",
                verb: "join".into(),
                resource: "managedclusters/agents".into(),
                ..audit::Request::default()
            },
        );
        let heard = match self.talk(&connection, JoinSession::accept(connection.clone(), TALK_TIMEOUT)).await {
            Ok((session, request)) => self.pending.enter(peer.ip()).map(|place| (session, request, place)),
            Err(JoinFailure::Full(full)) => Err(full),
            Err(JoinFailure::Broken(error)) => {
                self.log(|left_out| {
                    tracing::info!(error = &error as &dyn std::error::Error, left_out, "a join broke off");
                });
                record.tell(broken_outcome(&error), 0, |_| ());
                connection.close(close_reason(&error), &error.to_string());
                return;
            }
        };
        let (mut session, request, place) = match heard {
            Ok(heard) => heard,
            Err(full) => {
                metrics.joined(full.outcome());
                record.tell(full.outcome(), 0, |_| ());
                connection.close(CloseReason::Overloaded, &full.to_string());
                return;
            }
        };
        // Subscribed before the registry is asked: an acceptance in between is not missed.
        let mut changes = self.registry.changes();
        let answer = match self.recorded(request, peer, record).await {
            Ok(taken) => {
                let waiting = self.wait(&mut session, &taken, &mut changes);
                match tokio::time::timeout(DECISION_TIMEOUT, waiting).await {
                    Ok(Some(answer)) => answer,
                    Ok(None) => return,
                    Err(_) => refused(Reason::TimedOut, "nobody decided about the join; run 'proxy-agent join' again"),
                }
            }
            Err(refusal) => JoinReply::Refused(refusal),
        };
        metrics.joined(match &answer {
            JoinReply::Refused(refusal) if refusal.reason() == Reason::Overloaded => PendingJoinsFull::Agents.outcome(),
            JoinReply::Refused(refusal) => Outcome::RefusedFor(refusal.reason()),
            JoinReply::Issued(_) | JoinReply::Pending(_) => Outcome::Issued,
        });
        if let JoinReply::Refused(refusal) = &answer {
            let (reason, message) = (refusal.reason().label(), &refusal.message);
            self.log(|left_out| tracing::warn!(reason, message, left_out, "refused a join"));
        }
        drop(place);
        match self.talk(&connection, session.conclude(answer, TALK_TIMEOUT)).await {
            Ok(()) => {}
            Err(JoinFailure::Full(full)) => connection.close(CloseReason::Overloaded, &full.to_string()),
            Err(JoinFailure::Broken(error)) => self.log(|left_out| {
                tracing::info!(error = &error as &dyn std::error::Error, left_out, "a joiner left before its answer");
            }),
        }
    }

    /// Waits for what the joiner does next. Where many are silent, the one that has been for longest makes room.
    async fn talk<T>(
        &self,
        connection: &Connection,
        next: impl Future<Output = Result<T, JoinError>>,
    ) -> Result<T, JoinFailure> {
        let full = JoinFailure::Full(PendingJoinsFull::Source);
        let Some(guest) = self.talks.enter(connection.remote_address().ip().into()) else { return Err(full) };
        tokio::select! {
            done = next => done.map_err(JoinFailure::Broken),
            _ = guest.outstayed(None) => Err(full),
        }
    }

    /// Writes a line that anybody can cause, if there are not too many.
    fn log(&self, line: impl FnOnce(u64)) {
        if let Some(left_out) = self.lines.next(&()) {
            line(left_out);
        }
    }

    /// Takes a join, and tells at once: what its token did is known also when nobody decides about it.
    async fn recorded(
        &self,
        request: JoinRequest,
        peer: SocketAddr,
        record: RequestRecord,
    ) -> Result<AcceptedJoin, Refusal> {
        let asked = Text::of(format_args!("{}/{}", request.cluster, request.agent));
        if self.recorder.audit.refuses() {
            let message = "the hub cannot write its audit log, and lets nobody in meanwhile; try again in a moment";
            return Err(Refusal::new(Reason::Internal, message));
        }
        let token = join_token_id(&request.token).unwrap_or_default().to_owned();
        let taken = self.submit(request, peer).await;
        let refusal = taken.as_ref().err().map(Refusal::reason);
        record.tell(refusal.map_or(Outcome::Ok, Outcome::RefusedFor), 0, |told| {
            // Kubernetes' name for who has a token to join. One whose secret was not looked at, or is wrong, is nobody's.
            if !matches!(refusal, Some(Reason::UnknownToken | Reason::BadRequest)) {
                told.who.user = Text::of(format_args!("system:bootstrap:{token}"));
            }
            told.name = match &taken {
                Ok(AcceptedJoin { cluster, agent, .. }) => Text::of(format_args!("{cluster}/{agent}")),
                Err(_) => asked,
            };
        });
        taken
    }

    async fn submit(&self, request: JoinRequest, peer: SocketAddr) -> Result<AcceptedJoin, Refusal> {
        let bad = |message: String| Refusal::new(Reason::BadRequest, message);
        let JoinRequest { token, cluster, agent, csr, version: version_said } = request;
        let agent: AgentName = agent.parse().map_err(|error| bad(format!("the agent's name: {error}")))?;
        let cluster = match cluster.as_str() {
            "" => None,
            name => Some(name.parse().map_err(|error| bad(format!("the cluster's name: {error}")))?),
        };
        let key = KeyFingerprint::of_csr(&csr).map_err(|error| bad(format!("the CSR: {error}")))?;
        let ask = JoinAsk {
            token: SecretString::from(token),
            cluster,
            agent: agent.clone(),
            key,
            version: version(&version_said),
            request: csr.clone(),
            address: Some(peer.ip()),
        };
        let joined = self.registry.request_join(ask, Timestamp::now()).await.map_err(|error| refusal(&error))?;
        let (Joined::Accepted { cluster } | Joined::Pending { cluster }) = joined;
        tracing::info!(%cluster, %agent, %key, "a join was asked for");
        Ok(AcceptedJoin { cluster, agent, key, csr })
    }

    /// Waits for the decision; `None` when the joiner has left.
    async fn wait(
        &self,
        session: &mut JoinSession,
        taken: &AcceptedJoin,
        changes: &mut tokio::sync::broadcast::Receiver<Change>,
    ) -> Option<JoinReply> {
        let mut told = false;
        // Taken when there is something to wait for.
        let mut turn = None;
        loop {
            match self.registry.admit_agent(&taken.cluster, &taken.agent, &taken.key) {
                Ok(()) => return Some(self.issue(taken)),
                Err(AgentRefusal::NotAccepted { .. } | AgentRefusal::AgentNotAccepted { .. }) => {}
                Err(refusal @ (AgentRefusal::Denied { .. } | AgentRefusal::AgentDenied { .. })) => {
                    return Some(refused(Reason::Denied, &refusal.to_string()));
                }
                Err(
                    refusal @ (AgentRefusal::UnknownCluster { .. }
                    | AgentRefusal::UnknownAgent { .. }
                    | AgentRefusal::OtherKey { .. }),
                ) => return Some(refused(Reason::Denied, &format!("{refusal}; the join was withdrawn"))),
            }
            let turn = turn.get_or_insert_with(|| self.pending.take_turn(taken.key));
            if !std::mem::replace(&mut told, true) {
                let pending = Pending { cluster: taken.cluster.to_string() };
                session.answer(JoinReply::Pending(pending)).await.ok()?;
            }
            tokio::select! {
                change = changes.recv() => match change {
                    Ok(_) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                },
                _ = session.gone() => return None,
                () = turn.passed_on() => {
                    return Some(refused(Reason::AgentNameTaken, "another join with the same key waits in the place of this one"));
                }
            }
        }
    }

    fn issue(&self, taken: &AcceptedJoin) -> JoinReply {
        let authority = self.authorities.current();
        match authority.issue_agent(&taken.csr, &taken.cluster, &taken.agent, self.lifetime) {
            Ok(issued) => {
                tracing::info!(cluster = %taken.cluster, agent = %taken.agent, "issued an agent's certificate");
                self.note_trust(&authority, taken);
                // Every root: the agent's pin may be that of any.
                let chain_pem = format!("{}{}", issued.leaf_pem, authority.roots_pem());
                JoinReply::Issued(Issued { cluster: taken.cluster.to_string(), chain_pem })
            }
            Err(error) => refused(Reason::BadRequest, &format!("no certificate could be issued: {error}")),
        }
    }

    /// While the CA is rotated, who has joined depends on the CA that signs before it has ever connected.
    fn note_trust(&self, authority: &Authority, taken: &AcceptedJoin) {
        if authority.phase() == Phase::Settled {
            return;
        }
        let trust = AgentTrust::new(Some(authority.signer()), authority.pins().map(|(pin, _)| pin).collect());
        self.presence.trusts(&taken.cluster, &taken.agent, taken.key, trust);
    }
}

fn refused(reason: Reason, message: &str) -> JoinReply {
    JoinReply::Refused(Refusal::new(reason, message))
}

fn broken_outcome(error: &JoinError) -> Outcome {
    match error {
        JoinError::TimedOut => Outcome::TimedOut,
        JoinError::Protocol(_) => Outcome::Malformed,
        JoinError::Lost(_) => Outcome::ClientLeft,
    }
}

fn close_reason(error: &JoinError) -> CloseReason {
    match error {
        JoinError::TimedOut => CloseReason::DeadlineExceeded,
        JoinError::Protocol(_) => CloseReason::ProtocolError,
        JoinError::Lost(_) => CloseReason::Done,
    }
}

fn refusal(refusal: &JoinRefusal) -> Refusal {
    let reason = match refusal {
        JoinRefusal::UnknownToken => Reason::UnknownToken,
        JoinRefusal::ExpiredToken { .. } => Reason::ExpiredToken,
        JoinRefusal::UsedToken | JoinRefusal::TooManyClusters => Reason::UsedToken,
        JoinRefusal::WrongName { .. } => Reason::WrongName,
        JoinRefusal::NoName => Reason::NoName,
        JoinRefusal::DeniedCluster { .. } | JoinRefusal::DeniedAgent { .. } => Reason::Denied,
        JoinRefusal::AgentNameTaken { .. } => Reason::AgentNameTaken,
        JoinRefusal::TooManyAgents { .. } => Reason::Denied,
        // Passing: the agent asks again, and has its place once others are decided about.
        JoinRefusal::TooManyWaiting { .. } => Reason::Overloaded,
        JoinRefusal::Store(_) => Reason::Internal,
    };
    Refusal::new(reason, refusal.to_string())
}
