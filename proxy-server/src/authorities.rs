//! The hub's CA and its own certificate as they are now: issued anew in time, changed by the steps of a rotation, and reloaded
//! when the CA's files change.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use certs::{
    Authority, AuthorityError, HUB_SERVER_NAME, IssueError, Pin, Reload, RotationError, SERVER_VALIDITY, ServerTls,
    Step, TlsError, UserName,
};
use dashmap::DashMap;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config::EndedAgents;

/// How often the hub's own certificate, which is never stored, is made anew: long before it ends.
const SERVER_RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// How often the CA's files and the clock are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The CA and the TLS configurations that hang on it.
#[derive(Debug)]
pub(crate) struct Authorities {
    folder: PathBuf,
    /// Names in the hub's certificate.
    names: Vec<String>,
    current: watch::Sender<Arc<Authority>>,
    tls: ServerTls,
    /// One step, or look at the files, at a time.
    files: Mutex<()>,
    /// CAs whose certificates open nothing, and what they had opened is cut.
    revoked: Mutex<HashSet<Pin>>,
    /// The CA of the certificate that each user has shown last, of those CAs that are trusted.
    users: DashMap<UserName, (Pin, Timestamp)>,
}

/// Why the hub has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    #[error("the hub's CA cannot be used")]
    Authority(#[source] AuthorityError),
    #[error("the hub's own certificate cannot be issued; check the names given to --advertise")]
    Issue(#[source] IssueError),
    #[error("the hub's certificate cannot be used for TLS")]
    Tls(#[source] TlsError),
}

/// Why a step of a rotation was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StepError {
    #[error(transparent)]
    Rotation(RotationError),
    #[error("the step was taken, and the hub serves with the CA of before; restart it")]
    Apply(#[source] AuthoritiesError),
}

impl Authorities {
    pub(crate) fn new(authority: Authority, folder: PathBuf, names: Vec<String>) -> Result<Self, AuthoritiesError> {
        let credentials = authority.issue_server(&names, SERVER_VALIDITY).map_err(AuthoritiesError::Issue)?;
        let tls = ServerTls::new(credentials, &authority.roots()).map_err(AuthoritiesError::Tls)?;
        if let Err(error) = Authority::forget_retired_keys(&folder) {
            tracing::warn!(error = &error as &dyn std::error::Error, "a key of a CA that is over stays in ca.key");
        }
        let current = watch::Sender::new(Arc::new(authority));
        let (files, revoked, users) = Default::default();
        Ok(Self { folder, names, current, tls, files, revoked, users })
    }

    /// The CA's files, which do not change while they are read.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
        let _whole = self.files.lock();
        read(&self.folder)
    }

    /// The names in the hub's certificate, beside `localhost` and its addresses.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.iter().cloned().chain([HUB_SERVER_NAME.to_owned()]).collect()
    }

    /// The CA that issues now.
    pub(crate) fn current(&self) -> Arc<Authority> {
        self.current.borrow().clone()
    }

    /// Follows the CA as it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Authority>> {
        self.current.subscribe()
    }

    /// TLS for a listener; follows every change.
    pub(crate) fn tls(&self, alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        self.tls.config(alpn)
    }

    /// The same for the agents' port, where certificates of agents that have ended may be let through.
    pub(crate) fn agents_tls(&self, alpn: &[&[u8]], ended: EndedAgents) -> Arc<rustls::ServerConfig> {
        match ended {
            EndedAgents::Renew => self.tls.config_for_ended_agents(alpn),
            EndedAgents::Refuse => self.tls.config(alpn),
        }
    }

    /// Takes a step of a rotation; `false` where it had been taken. It waits for the disk.
    pub(crate) fn step(&self, step: Step) -> Result<bool, StepError> {
        let _turn = self.files.lock();
        let taken = Authority::step(&self.folder, step).map_err(StepError::Rotation)?;
        let changed = taken.is_some();
        if let Some(authority) = taken {
            self.apply(authority).map_err(StepError::Apply)?;
        }
        if step == Step::Revoke {
            self.revoked.lock().extend(self.current().retired());
        }
        Ok(changed)
    }

    /// Whether what was opened with a certificate of this CA is to end.
    pub(crate) fn is_revoked(&self, issuer: Pin) -> bool {
        self.revoked.lock().contains(&issuer)
    }

    /// Notes whose certificate a user has shown or was given: a rotation asks for those of before it, too.
    pub(crate) fn saw(&self, user: &UserName, issuer: Pin) {
        self.users.insert(user.clone(), (issuer, Timestamp::now()));
    }

    /// Who has shown a certificate of which CA, and when.
    pub(crate) fn users(&self) -> BTreeMap<UserName, (Pin, Timestamp)> {
        self.users.iter().map(|seen| (seen.key().clone(), *seen.value())).collect()
    }

    /// Renews and reloads for ever.
    pub(crate) async fn keep_current(&self) {
        let mut reload = Reload::new(["ca.crt", "ca.key"].map(|name| self.folder.join(name)).into());
        let mut look = tokio::time::interval(LOOK);
        let mut renewed = SystemTime::now();
        loop {
            look.tick().await;
            reload.check(|| self.reload());
            // By the clock, which may be set: one that was months slow has made a certificate that is over.
            if !renewed.elapsed().is_ok_and(|age| age < SERVER_RENEWAL) {
                renewed = SystemTime::now();
                self.renew();
            }
        }
    }

    fn reload(&self) -> Result<(), AuthoritiesError> {
        let _turn = self.files.lock();
        let authority = Authority::load_or_create(&self.folder).map_err(AuthoritiesError::Authority)?;
        self.apply(authority)
    }

    fn apply(&self, authority: Authority) -> Result<(), AuthoritiesError> {
        self.publish(&authority)?;
        self.users.retain(|_, (issuer, _)| authority.pins().any(|(pin, _)| pin == *issuer));
        self.current.send_if_modified(|current| {
            let same =
                |one: &Authority| (one.signer(), one.pins().collect::<Vec<_>>(), one.retired().collect::<Vec<_>>());
            let changed = same(current) != same(&authority);
            *current = Arc::new(authority);
            changed
        });
        Ok(())
    }

    fn renew(&self) {
        if let Err(error) = self.publish(&self.current()) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot renew the hub's certificate");
        }
    }

    /// Shows a new certificate of the hub's, and verifies clients, under this CA.
    fn publish(&self, authority: &Authority) -> Result<(), AuthoritiesError> {
        let credentials = authority.issue_server(&self.names, SERVER_VALIDITY).map_err(AuthoritiesError::Issue)?;
        self.tls.swap(credentials, &authority.roots()).map_err(AuthoritiesError::Tls)
    }
}
