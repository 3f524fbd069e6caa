//! The store of the agent's identity: reloads it when its files change, renews it before its certificate expires, and keeps
//! the last good one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use certs::{BundleError, Pin, Reload, ReloadOutcome};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tunnel::Roots;

use crate::{
    identity::{Identity, IdentityError},
    metrics::Metrics,
    state::{StateError, StateFolder},
};

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How long a request for a new certificate may be under way before it is made again, here or over another tunnel.
pub(crate) const RENEWAL_PAUSE: Duration = Duration::from_secs(60);

/// The identity in use.
#[derive(Debug)]
pub(crate) struct IdentityStore {
    state: StateFolder,
    identity: watch::Sender<Arc<Identity>>,
    /// When a new certificate was last asked for.
    asked: Mutex<Option<Instant>>,
    /// Roots that could not be kept: a disk may have room again.
    unkept: Mutex<Option<Roots>>,
    metrics: Arc<Metrics>,
}

/// Why a new certificate is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RenewError {
    #[error("the new certificate does not fit this agent")]
    Identity(#[source] IdentityError),
    #[error("the new certificate would end before the present one")]
    Shorter,
    #[error("the new certificate cannot be kept")]
    Keep(#[source] StateError),
}

/// Why the roots that a hub has sent are not trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    #[error(transparent)]
    Roots(BundleError),
    #[error("they do not fit this agent")]
    Identity(#[source] IdentityError),
    #[error("they cannot be kept")]
    Keep(#[source] StateError),
}

impl IdentityStore {
    /// The identity in `state`, as it is now.
    pub(crate) fn load(state: StateFolder, metrics: Arc<Metrics>) -> Result<Self, IdentityError> {
        let identity = Identity::load(&state)?;
        metrics.certificate_ends(identity.validity().end());
        if identity.validity().not_after <= SystemTime::now() {
            tracing::warn!(
                "the agent's certificate has ended; a hub that renews such ones (--ended-agents) gives it a new one, another asks for 'proxy-agent join'"
            );
        }
        Ok(Self {
            state,
            identity: watch::Sender::new(Arc::new(identity)),
            asked: Mutex::default(),
            unkept: Mutex::default(),
            metrics,
        })
    }

    pub(crate) fn get(&self) -> Arc<Identity> {
        self.identity.borrow().clone()
    }

    /// Follows the identity as it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Identity>> {
        self.identity.subscribe()
    }

    /// Looks at the files from time to time, until `end`.
    pub(crate) async fn follow_files(&self, end: CancellationToken) {
        let files = vec![self.state.chain_path(), self.state.key_path(), self.state.ca_path()];
        let mut reload = Reload::new(files);
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        while end.run_until_cancelled(looks.tick()).await.is_some() {
            self.look(&mut reload);
            self.trust_unkept();
        }
    }

    /// Tries again what could not be kept; once it is, whoever follows the identity hears of it.
    fn trust_unkept(&self) {
        let unkept = self.unkept.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(error)) = unkept.map(|roots| self.trust(&roots)) {
            tracing::warn!(error = &error as &dyn std::error::Error, "the hub's new roots are still not followed");
        }
    }

    fn look(&self, reload: &mut Reload) -> ReloadOutcome {
        reload.check(|| Identity::load(&self.state).map(|identity| self.put(identity)))
    }

    /// A CSR, when the certificate is due for renewal at `now` and nobody has asked lately.
    pub(crate) fn renewal(&self, now: SystemTime) -> Option<Vec<u8>> {
        let identity = self.get();
        if !identity.validity().should_renew(now) {
            return None;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_some_and(|asked| asked.elapsed() < RENEWAL_PAUSE) {
            return None;
        }
        *asked = Some(Instant::now());
        self.request()
    }

    /// A CSR for a certificate in the place of the present one.
    pub(crate) fn request(&self) -> Option<Vec<u8>> {
        match self.get().csr() {
            Ok(csr) => Some(csr),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot ask for a new certificate");
                None
            }
        }
    }

    /// Keeps and trusts the roots that a hub has sent, and no more those that it has retired; says whether they were others. What
    /// cannot be kept is tried again later.
    pub(crate) fn trust(&self, roots: &Roots) -> Result<bool, TrustError> {
        let trusted = self.try_to_trust(roots);
        let unkept = matches!(trusted, Err(TrustError::Keep(_))).then(|| roots.clone());
        *self.unkept.lock().unwrap_or_else(PoisonError::into_inner) = unkept;
        trusted
    }

    fn try_to_trust(&self, Roots { pem, retired, .. }: &Roots) -> Result<bool, TrustError> {
        let retired: Vec<Pin> = retired.iter().filter_map(|pin| pin.parse().ok()).collect();
        let present = self.get();
        let own = self.state.load_ca().map_err(TrustError::Keep)?;
        let roots = certs::follow_roots(&own, pem, &retired).map_err(TrustError::Roots)?;
        if roots == own {
            return Ok(false);
        }
        let load = || {
            let key = self.state.load_key().map_err(IdentityError::State)?;
            let chain = self.state.load_chain().map_err(IdentityError::State)?;
            Identity::new(present.membership.clone(), key, &roots, &chain)
        };
        let identity = load().map_err(TrustError::Identity)?;
        self.state.save_ca(&roots).map_err(TrustError::Keep)?;
        tracing::info!(roots = identity.trusts().join(" "), "the hub's CA is rotated; these stand for the hub now");
        self.put(identity);
        Ok(true)
    }

    /// Keeps and uses the certificate that a hub has sent, if it is better than the present one; says whether.
    pub(crate) fn renewed(&self, chain_pem: &str) -> bool {
        let result = self.replace_chain(chain_pem);
        self.metrics.renewed(result.is_ok());
        match &result {
            Ok(()) => tracing::info!("the agent's certificate was renewed"),
            Err(error) => {
                tracing::warn!(error = error as &dyn std::error::Error, "a new certificate from the hub is not used");
            }
        }
        result.is_ok()
    }

    fn replace_chain(&self, chain_pem: &str) -> Result<(), RenewError> {
        let present = self.get();
        let load = || {
            let key = self.state.load_key().map_err(IdentityError::State)?;
            let ca = self.state.load_ca().map_err(IdentityError::State)?;
            Identity::new(present.membership.clone(), key, &ca, chain_pem)
        };
        let identity = load().map_err(RenewError::Identity)?;
        // One of another CA is wanted because the old one's counts no more soon.
        if identity.validity().not_after < present.validity().not_after && identity.issuer() == present.issuer() {
            return Err(RenewError::Shorter);
        }
        self.state.save_chain(chain_pem).map_err(RenewError::Keep)?;
        self.put(identity);
        Ok(())
    }

    fn put(&self, identity: Identity) {
        self.metrics.certificate_ends(identity.validity().end());
        self.identity.send_replace(Arc::new(identity));
    }
}

#[cfg(test)]
mod tests {
    use certs::{Authority, PrivateKey};

    use super::*;
    use crate::state::Membership;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    struct Fixture {
        _folder: tempfile::TempDir,
        state: StateFolder,
        authority: Authority,
        key: PrivateKey,
        current: IdentityStore,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let authority = Authority::load_or_create(folder.path()).unwrap();
            let state = StateFolder::new(folder.path().join("agent"));
            let key = state.load_or_create_key().unwrap();
            let membership = Membership {
                hubs: vec!["hub".parse().unwrap()],
                cluster: "c1".parse().unwrap(),
                agent: "a1".parse().unwrap(),
            };
            let csr = key.csr_der().unwrap();
            let issued = authority.issue_agent(&csr, &membership.cluster, &membership.agent, DAY).unwrap();
            state.save_join(&membership, authority.certificate_pem(), &issued.chain_pem).unwrap();
            let metrics = Arc::new(Metrics::register(&prometheus::Registry::new()).unwrap());
            let current = IdentityStore::load(state.clone(), metrics).unwrap();
            Self { _folder: folder, state, authority, key, current }
        }

        fn issue(&self, cluster: &str, key: &PrivateKey, validity: Duration) -> String {
            let csr = key.csr_der().unwrap();
            let (cluster, agent) = (cluster.parse().unwrap(), "a1".parse().unwrap());
            self.authority.issue_agent(&csr, &cluster, &agent, validity).unwrap().chain_pem
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_is_asked_for_when_due_and_then_not_again_at_once() {
        let fixture = Fixture::new();
        let now = SystemTime::now();
        assert_eq!(fixture.current.renewal(now), None);
        assert!(fixture.current.renewal(now + DAY).is_some());
        assert_eq!(fixture.current.renewal(now + DAY), None);
        tokio::time::advance(RENEWAL_PAUSE).await;
        assert!(fixture.current.renewal(now + DAY).is_some());
    }

    #[test]
    fn a_renewed_certificate_is_kept_and_used() {
        let fixture = Fixture::new();
        let renewed = fixture.issue("c1", &fixture.key, 2 * DAY);
        let mut follower = fixture.current.subscribe();
        fixture.current.renewed(&renewed);
        assert!(follower.has_changed().unwrap());
        assert!(!follower.borrow_and_update().validity().should_renew(SystemTime::now() + DAY));
        assert_eq!(fixture.state.load_chain().unwrap(), renewed);
    }

    #[test]
    fn the_roots_of_a_rotation_are_kept_and_what_is_over_goes() {
        let fixture = Fixture::new();
        let old = fixture.state.load_ca().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let next = Authority::load_or_create(elsewhere.path()).unwrap();
        let roots = |pem: &str, retired: &[Pin]| Roots {
            pem: pem.to_owned(),
            retired: retired.iter().map(ToString::to_string).collect(),
            renew_within: 0,
        };
        fixture.current.trust(&roots(&format!("{old}{}", next.roots_pem()), &[])).unwrap();
        assert_eq!(fixture.current.get().trusts(), [fixture.authority.pin(), next.pin()].map(|pin| pin.to_string()));
        assert_eq!(fixture.state.load_ca().unwrap(), format!("{old}{}", next.roots_pem()));
        // Of another CA a certificate may end sooner.
        let csr = fixture.key.csr_der().unwrap();
        let issued = next.issue_agent(&csr, &"c1".parse().unwrap(), &"a1".parse().unwrap(), DAY / 2).unwrap();
        assert!(fixture.current.renewed(&issued.chain_pem));
        fixture.current.trust(&roots(next.certificate_pem(), &[fixture.authority.pin()])).unwrap();
        assert_eq!(fixture.state.load_ca().unwrap(), next.roots_pem());
        let refused = fixture.current.trust(&roots("", &[next.pin()])).unwrap_err();
        assert!(matches!(refused, TrustError::Roots(BundleError::Empty)), "{refused}");
        assert_eq!(fixture.state.load_ca().unwrap(), next.roots_pem());
    }

    #[test]
    fn roots_that_could_not_be_kept_are_kept_once_there_is_room() {
        let fixture = Fixture::new();
        let elsewhere = tempfile::tempdir().unwrap();
        let next = Authority::load_or_create(elsewhere.path()).unwrap();
        let pem = format!("{}{}", fixture.state.load_ca().unwrap(), next.roots_pem());
        let roots = Roots { pem: pem.clone(), retired: Vec::new(), renew_within: 0 };
        let (ca, away) = (fixture.state.ca_path(), fixture.state.ca_path().with_extension("away"));
        std::fs::rename(&ca, &away).unwrap();
        assert!(matches!(fixture.current.trust(&roots), Err(TrustError::Keep(_))));
        fixture.current.trust_unkept();
        assert_eq!(fixture.current.get().trusts(), [fixture.authority.pin().to_string()]);
        std::fs::rename(&away, &ca).unwrap();
        fixture.current.trust_unkept();
        assert_eq!(fixture.state.load_ca().unwrap(), pem);
        assert_eq!(fixture.current.get().trusts().len(), 2);
    }

    #[test]
    fn a_certificate_that_is_no_better_changes_nothing() {
        let fixture = Fixture::new();
        let kept = fixture.state.load_chain().unwrap();
        let before = fixture.current.get();
        let stranger = PrivateKey::generate();
        for chain in [
            fixture.issue("c1", &fixture.key, DAY / 2),
            fixture.issue("c2", &fixture.key, 2 * DAY),
            fixture.issue("c1", &stranger, 2 * DAY),
            String::new(),
        ] {
            fixture.current.renewed(&chain);
            assert!(Arc::ptr_eq(&before, &fixture.current.get()));
            assert_eq!(fixture.state.load_chain().unwrap(), kept);
        }
    }

    #[test]
    fn changed_files_are_used_and_bad_ones_are_not() {
        let fixture = Fixture::new();
        let mut reload = Reload::new(vec![fixture.state.chain_path()]);
        let before = fixture.current.get();
        assert_eq!(fixture.current.look(&mut reload), ReloadOutcome::Unchanged);
        fixture.state.save_chain("damaged").unwrap();
        assert_eq!(fixture.current.look(&mut reload), ReloadOutcome::Kept);
        assert!(Arc::ptr_eq(&before, &fixture.current.get()));
        fixture.state.save_chain(&fixture.issue("c1", &fixture.key, 2 * DAY)).unwrap();
        assert_eq!(fixture.current.look(&mut reload), ReloadOutcome::Reloaded);
        assert!(!fixture.current.get().validity().should_renew(SystemTime::now() + DAY));
    }
}
