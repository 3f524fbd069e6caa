//! The rotation of the hub's CA as an administrator steers it: who would be lost by a step, the step, and what follows from it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use certs::{Phase, Pin, RotationError, Step};
use jiff::Timestamp;
use parking_lot::Mutex;
use registry::{
    ManagedCluster, Registry, User,
    api::{CaAgent, CaPhase, CaRoot, CaRoots, CaStatus, CaUser, StepTaken},
};
use tokio::{sync::Notify, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{
    agents::Agents,
    authorities::{Authorities, StepError},
    hub::state,
    proxy::connections::Connections,
};

/// What a rotation touches.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    authorities: Arc<Authorities>,
    registry: Arc<Registry>,
    agents: Arc<Agents>,
    connections: Arc<Connections>,
    /// The state folder.
    folder: PathBuf,
    /// Another hub has the folder.
    handover: CancellationToken,
    /// Told when a CA was revoked: a hub before this one that drains yet must end.
    pub(crate) revoked: Arc<Notify>,
    /// One administrator's step at a time.
    turn: Arc<Mutex<()>>,
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error(transparent)]
    Step(StepError),
    #[error("{}; 'cluster-proxy ca status' shows each, and --force leaves them behind", lost(.0))]
    Lags(Vec<String>),
    #[error(
        "no CA but the one that signs is trusted. If that one has leaked: 'cluster-proxy ca rotate begin' and 'ca rotate sign' first, which \
         connected agents follow within seconds, and then this; or add --force, and everybody joins again"
    )]
    NobodyFollows,
    #[error("another hub has the state folder now; ask again, which reaches that one")]
    HandedOver,
    #[error("the step broke off; the hub's log says why")]
    BrokeOff,
}

/// Names in an error; `ca status` has all.
const NAMED: usize = 10;

impl Rotation {
    pub(crate) fn new(
        agents: Arc<Agents>,
        connections: Arc<Connections>,
        folder: &Path,
        handover: CancellationToken,
    ) -> Self {
        let (authorities, registry) = (agents.authorities.clone(), agents.registry.clone());
        let (folder, revoked, turn) = (folder.to_owned(), Arc::default(), Arc::default());
        Self { authorities, registry, agents, connections, folder, handover, revoked, turn }
    }

    /// Takes a step. What was refused has changed nothing; `force` takes it whoever is lost.
    pub(crate) async fn apply(&self, step: Step, force: bool) -> Result<StepTaken, TakeError> {
        let this = self.clone();
        // It goes on when its client leaves, and waits for the disk.
        let taking = spawn_blocking(move || this.take_now(step, force));
        taking.await.unwrap_or(Err(TakeError::BrokeOff))
    }

    fn take_now(&self, step: Step, force: bool) -> Result<StepTaken, TakeError> {
        let _turn = self.turn.lock();
        if self.handover.is_cancelled() {
            return Err(TakeError::HandedOver);
        }
        let before = self.authorities.current();
        if step == Step::Revoke && before.phase() == Phase::Settled {
            if !force {
                return Err(TakeError::NobodyFollows);
            }
            self.step(Step::Begin)?;
        }
        let lost = self.lost_by(step);
        if !force && !lost.is_empty() {
            return Err(TakeError::Lags(lost));
        }
        let changed = self.step(step)?;
        let cut = if step == Step::Revoke { self.cut() } else { 0 };
        if changed {
            let (authority, phase) = (self.authorities.current(), self.authorities.current().phase());
            tracing::warn!(?step, ?phase, signer = %authority.signer(), lost = lost.len(), cut, "the hub's CA is rotated");
        }
        Ok(StepTaken { changed, cut, lost, status: self.status() })
    }

    /// The roots for who follows.
    pub(crate) fn roots(&self) -> CaRoots {
        let authority = self.authorities.current();
        CaRoots {
            roots_pem: authority.roots_pem(),
            pin: authority.pin(),
            signer: authority.signer(),
            retired: authority.retired().collect(),
        }
    }

    /// Where it stands.
    pub(crate) fn status(&self) -> CaStatus {
        let authority = self.authorities.current();
        let (signer, newest) = (authority.signer(), authority.newest());
        let root = |(pin, not_after)| CaRoot {
            pin,
            not_after: Timestamp::try_from(not_after).unwrap_or(Timestamp::MAX),
            signs: pin == signer,
        };
        let phase = match authority.phase() {
            Phase::Settled => CaPhase::Settled,
            Phase::Begun => CaPhase::Begun,
            Phase::Signing => CaPhase::Signing,
        };
        let rotating = phase != CaPhase::Settled;
        CaStatus {
            phase,
            roots: authority.pins().map(root).collect(),
            retired: authority.retired().collect(),
            agents: if rotating { self.all_agents(newest) } else { Vec::new() },
            users: if rotating { self.all_users(newest) } else { Vec::new() },
        }
    }

    fn step(&self, step: Step) -> Result<bool, TakeError> {
        let changed = self.authorities.step(step).map_err(TakeError::Step)?;
        // Also where the step had been taken: it may have broken off here.
        self.follow();
        Ok(changed)
    }

    /// Follows a CA that was changed in its files: another hub's, copied here.
    pub(crate) async fn follow_files(&self) {
        let mut authority = self.authorities.subscribe();
        while authority.changed().await.is_ok() {
            if self.handover.is_cancelled() {
                return std::future::pending().await;
            }
            let this = self.clone();
            // What it could not do, it has told.
            let _ = spawn_blocking(move || this.follow()).await;
        }
    }

    /// Has the folder of this machine's administrator follow the CA.
    fn follow(&self) {
        if let Err(error) = state::renew_admin(&self.folder, &self.authorities.current(), &self.registry) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the administrator's credentials do not follow the CA; they do at the next start");
        }
    }

    /// Ends what was opened with certificates of CAs that are over; says how many.
    fn cut(&self) -> u64 {
        self.revoked.notify_one();
        let tunnels = self.agents.cut_strangers();
        let revoked = |issuer: Option<Pin>| issuer.is_some_and(|issuer| self.authorities.is_revoked(issuer));
        (tunnels + self.connections.retain(|caller, _| !revoked(caller.issuer()))) as u64
    }

    /// Who could not connect any more after a step.
    fn lost_by(&self, step: Step) -> Vec<String> {
        let authority = self.authorities.current();
        let newest = authority.newest();
        let agents = |picked: fn(&CaAgent) -> bool| {
            let agents = self.all_agents(newest).into_iter().filter(picked);
            agents.map(|agent| format!("{}/{}", agent.cluster, agent.agent))
        };
        let users = |picked: fn(&CaUser) -> bool| {
            let users = self.all_users(newest).into_iter().filter(picked);
            users.map(|user| format!("user {}", user.user))
        };
        match (step, authority.phase()) {
            (Step::Finish, Phase::Signing) => agents(CaAgent::lags).chain(users(CaUser::lags)).collect(),
            // Who has leaked a key has no time for those of whom nothing is known.
            (Step::Revoke, Phase::Begun | Phase::Signing) => {
                agents(CaAgent::lags).chain(users(|user| user.certified == Some(false))).collect()
            }
            (Step::Abort, Phase::Begun) => {
                let agents = agents(|agent| agent.certified == Some(true));
                agents.chain(users(|user| user.certified == Some(true))).collect()
            }
            (Step::Begin | Step::Sign, _)
            | (Step::Finish, Phase::Settled | Phase::Begun)
            | (Step::Abort, Phase::Settled | Phase::Signing)
            | (Step::Revoke, Phase::Settled) => Vec::new(),
        }
    }

    /// The users, with what they have shown since this hub's start.
    fn all_users(&self, newest: Pin) -> Vec<CaUser> {
        let shown = self.authorities.users();
        let user = |user: &Arc<User>| {
            let shown = shown.get(&user.name);
            let (certified, seen) = (shown.map(|(issuer, _)| *issuer == newest), shown.map(|(_, seen)| *seen));
            CaUser { user: user.name.clone(), certified, seen }
        };
        self.registry.users().iter().map(user).collect()
    }

    /// The agents that may connect.
    fn all_agents(&self, newest: Pin) -> Vec<CaAgent> {
        let clusters = self.registry.clusters();
        clusters.iter().flat_map(|cluster| self.agents_of(cluster, newest)).collect()
    }

    fn agents_of(&self, cluster: &ManagedCluster, newest: Pin) -> Vec<CaAgent> {
        let connected = self.agents.tunnels.summary(cluster.name()).agents;
        let agent = |agent: &registry::ClusterAgent| CaAgent {
            cluster: cluster.name().clone(),
            agent: agent.name.clone(),
            connected: connected.contains_key(&agent.name),
            trusts: agent.ca.as_ref().map(|ca| ca.trusts.contains(&newest)),
            certified: agent.ca.as_ref().map(|ca| ca.issuer == Some(newest)),
            version: agent.version.clone(),
            last_seen: agent.last_seen,
        };
        cluster.admitted().map(agent).collect()
    }
}

impl From<RotationError> for TakeError {
    fn from(error: RotationError) -> Self {
        Self::Step(StepError::Rotation(error))
    }
}

fn lost(names: &[String]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} could not connect any more: {shown}{more}", names.len())
}
