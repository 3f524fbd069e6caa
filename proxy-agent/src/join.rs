//! Joining a hub: the key is made here and never leaves; its certificate comes back once the hub's administrator, or
//! the token, says so.

pub(crate) mod progress;

use std::time::Duration;

use certs::{
    AgentName, ClusterName, CsrError, Distrust, HubTls, KeyFingerprint, Pin, PinMismatch, PrivateKey,
    certificate_blocks, follow_roots, pinned_tls, pins_in,
};
use process::chain;
use secrecy::ExposeSecret;
use tokio::time::{Instant, timeout_at};
use tunnel::{ALPN_JOIN, Issued, JoinAnswers, JoinReply, JoinRequest, Reason, Refusal};

use crate::{
    config::JoinConfig,
    hub::HubAddress,
    hub::backoff::{Backoff, attempt_limit},
    hub::connect::{ConnectError, connect},
    identity::{Identity, IdentityError},
    state::{Membership, StateError, StateFolder},
    target::resolve::Resolver,
};

/// How long the hub may take to read the request.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the hub may take to hear that its answer has arrived.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What a join is doing, for the person who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinProgress {
    /// Dialling a hub.
    Connecting { hub: HubAddress },
    /// The hub has the request, and an administrator must accept the cluster, who compares the key.
    Waiting { cluster: String, agent: AgentName, key: KeyFingerprint },
    /// That did not work, in one line; the next address or attempt follows.
    Retrying { why: String },
}

/// Why a join gave no identity.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the agent's state cannot be used")]
    State(#[source] StateError),
    #[error("no certificate can be asked for")]
    Csr(#[source] CsrError),
    /// The hub has said no.
    #[error("the hub refused the join: {}", .0.message)]
    Refused(Refusal),
    /// Another hub than the pinned one, or someone in between.
    #[error(
        "{hub} is not the hub with the pin {expected}: it shows {}. Somebody may be in between, or the hub was set up \
         anew, or its CA was rotated since the line was made: make a new line with 'cluster-proxy join-command' on the hub, and do \
         not go on before the pins agree",
        shown(.presented)
    )]
    PinMismatch { hub: HubAddress, expected: Pin, presented: Vec<Pin> },
    /// Nobody decided in time.
    #[error(
        "the hub has not decided within {} s: run 'cluster-proxy accept {cluster}' on it, then this command again",
        .after.as_secs()
    )]
    NotDecided { cluster: String, after: Duration },
    /// No hub could be asked.
    #[error("no hub could be asked within {} s (last: {last})", .after.as_secs())]
    Unreachable { after: Duration, last: String },
    /// The hub's answer is not what a hub answers.
    #[error("the hub gave a certificate that does not fit: {0}; check the versions of hub and agent")]
    BadAnswer(String),
    #[error("the hub gave a certificate that cannot be used")]
    Identity(#[source] IdentityError),
}

/// A join in progress.
struct Joiner<'c, P> {
    config: &'c JoinConfig,
    state: StateFolder,
    key: PrivateKey,
    request: JoinRequest,
    tls: HubTls,
    resolver: Resolver,
    deadline: Instant,
    /// The cluster's name, once the hub has said that it waits.
    waiting: Option<String>,
    progress: P,
}

/// Why one attempt failed.
enum Failure {
    /// Another attempt may do better.
    Passing(String),
    Final(JoinError),
}

/// Joins, and keeps the identity in the state folder. Dropping it leaves the key there, with which the next join goes
/// on where this one was.
pub async fn join(config: &JoinConfig, progress: impl FnMut(JoinProgress)) -> Result<Membership, JoinError> {
    let state = StateFolder::new(&config.state);
    let key = state.load_or_create_key().map_err(JoinError::State)?;
    let request = JoinRequest {
        token: config.token.expose_secret().to_owned(),
        cluster: config.cluster.as_ref().map(ToString::to_string).unwrap_or_default(),
        agent: config.agent.to_string(),
        csr: key.csr_der().map_err(JoinError::Csr)?,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let joiner = Joiner {
        config,
        state,
        key,
        request,
        tls: pinned_tls(&config.pin, &[ALPN_JOIN]),
        resolver: Resolver::new(),
        deadline: Instant::now() + config.timeout,
        waiting: None,
        progress,
    };
    joiner.run().await
}

impl<P: FnMut(JoinProgress)> Joiner<'_, P> {
    /// Asks the hub's addresses in turn, until one of them has decided.
    async fn run(mut self) -> Result<Membership, JoinError> {
        let mut backoff = Backoff::default();
        let mut down_since = Instant::now();
        let mut last = "there is no address".to_owned();
        for hub in self.config.hubs.iter().cycle() {
            if Instant::now() >= self.deadline {
                break;
            }
            let asked = Instant::now();
            match self.attempt(hub, attempt_limit(down_since.elapsed())).await {
                Ok(issued) => return self.finish(issued),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Passing(why)) => {
                    if backoff.ended(asked.elapsed()) {
                        down_since = Instant::now();
                    }
                    (self.progress)(JoinProgress::Retrying { why: why.clone() });
                    last = why;
                }
            }
            let delay = backoff.failed(down_since.elapsed(), rand::random());
            tokio::time::sleep_until(self.deadline.min(Instant::now() + delay)).await;
        }
        let after = self.config.timeout;
        Err(match self.waiting {
            Some(cluster) => JoinError::NotDecided { cluster, after },
            None => JoinError::Unreachable { after, last },
        })
    }

    async fn attempt(&mut self, hub: &HubAddress, limit: Duration) -> Result<Issued, Failure> {
        (self.progress)(JoinProgress::Connecting { hub: hub.clone() });
        let limit = limit.min(self.deadline.saturating_duration_since(Instant::now()));
        let connected = connect(&self.resolver, hub, &self.tls, tunnel::Settings::default(), None, limit).await;
        let connection = connected.map_err(|error| self.not_connected(hub, &error))?;
        let passing = |error: tunnel::JoinError| Failure::Passing(chain(&error));
        let mut answers = JoinAnswers::ask(connection, &self.request, ASK_TIMEOUT).await.map_err(passing)?;
        loop {
            // QUIC's idle time-out notices a hub that has gone; the deadline bounds one that waits for its people.
            let Ok(answer) = timeout_at(self.deadline, answers.next()).await else {
                answers.close(CLOSE_TIMEOUT).await;
                return Err(Failure::Passing("the hub has not decided".into()));
            };
            match answer.map_err(passing)? {
                JoinReply::Pending(pending) => {
                    self.waiting = Some(pending.cluster.clone());
                    let (agent, key) = (self.config.agent.clone(), self.key.fingerprint());
                    (self.progress)(JoinProgress::Waiting { cluster: pending.cluster, agent, key });
                }
                JoinReply::Issued(issued) => {
                    answers.close(CLOSE_TIMEOUT).await;
                    return Ok(issued);
                }
                JoinReply::Refused(refusal) => {
                    answers.close(CLOSE_TIMEOUT).await;
                    return Err(refused(refusal));
                }
            }
        }
    }

    /// A hub with another CA is no outage: nothing is tried again, at no other address either.
    fn not_connected(&self, hub: &HubAddress, error: &ConnectError) -> Failure {
        if let ConnectError::Distrusted { source: Distrust::OtherCa(mismatch), .. } = error {
            let PinMismatch { expected, presented } = mismatch.clone();
            return Failure::Final(JoinError::PinMismatch { hub: hub.clone(), expected, presented });
        }
        Failure::Passing(chain(error))
    }

    /// Checks what the hub has issued, and keeps it.
    fn finish(self, issued: Issued) -> Result<Membership, JoinError> {
        let Issued { cluster, chain_pem } = issued;
        let cluster: ClusterName =
            cluster.parse().map_err(|_| JoinError::BadAnswer("its cluster has no name".into()))?;
        if self.config.cluster.as_ref().is_some_and(|asked| *asked != cluster) {
            return Err(JoinError::BadAnswer(format!("it is for the cluster {cluster}")));
        }
        let ca_pem = roots(&chain_pem, &self.config.pin)
            .ok_or_else(|| JoinError::BadAnswer("the pinned CA is not in its chain".into()))?;
        let membership = Membership { hubs: self.config.hubs.clone(), cluster, agent: self.config.agent.clone() };
        Identity::new(membership.clone(), self.key, &ca_pem, &chain_pem).map_err(JoinError::Identity)?;
        self.state.save_join(&membership, &ca_pem, &chain_pem).map_err(JoinError::State)?;
        Ok(membership)
    }
}

/// Whether a refusal may pass by itself.
fn refused(refusal: Refusal) -> Failure {
    let passes = [Reason::Internal, Reason::Overloaded, Reason::TimedOut, Reason::Draining];
    if passes.contains(&refusal.reason()) {
        Failure::Passing(refusal.message)
    } else {
        Failure::Final(JoinError::Refused(refusal))
    }
}

fn shown(pins: &[Pin]) -> String {
    match pins {
        [] => "no CA".to_owned(),
        pins => pins.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// The hub's CAs, which follow the leaf in a chain, if the pinned one is among them: the hub that has shown that one vouches for
/// the others.
fn roots(chain_pem: &str, pin: &Pin) -> Option<String> {
    let cas = certificate_blocks(chain_pem).skip(1).collect::<Vec<_>>().join("\n");
    let roots = follow_roots("", &cas, &[]).ok()?;
    pins_in(&roots).contains(pin).then_some(roots)
}

#[cfg(test)]
mod tests {
    use certs::Authority;

    use super::*;

    #[test]
    fn the_pinned_authority_is_found_in_its_chain() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(folder.path()).unwrap();
        let csr = PrivateKey::generate().csr_der().unwrap();
        let (cluster, agent) = ("c1".parse().unwrap(), "a1".parse().unwrap());
        let chain = authority.issue_agent(&csr, &cluster, &agent, Duration::from_secs(60)).unwrap().chain_pem;
        assert_eq!(roots(&chain, &authority.pin()).as_deref(), Some(authority.certificate_pem()));
        assert_eq!(roots(&chain, &PrivateKey::generate().fingerprint()), None);
        assert_eq!(roots("", &authority.pin()), None);
        assert_eq!(roots("-----BEGIN CERTIFICATE-----\n?", &authority.pin()), None);
    }

    #[test]
    fn the_cas_that_were_shown_are_told() {
        let [one, two] = [(); 2].map(|()| PrivateKey::generate().fingerprint());
        assert_eq!((shown(&[]), shown(&[one, two])), ("no CA".into(), format!("{one}, {two}")));
    }

    #[test]
    fn only_a_hubs_own_trouble_is_worth_another_attempt() {
        for (reason, passes) in [
            (Reason::Internal, true),
            (Reason::Overloaded, true),
            (Reason::TimedOut, true),
            (Reason::UnknownToken, false),
            (Reason::ExpiredToken, false),
            (Reason::UsedToken, false),
            (Reason::WrongName, false),
            (Reason::Denied, false),
            (Reason::Unspecified, false),
        ] {
            let failure = refused(Refusal::new(reason, ""));
            assert_eq!(matches!(failure, Failure::Passing(_)), passes, "{reason:?}");
        }
    }
}
