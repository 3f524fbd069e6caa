//! The hub's CA and its own certificate as they are now: issued anew in time, and reloaded when the CA's files change.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::config::EndedAgents;
use arc_swap::ArcSwap;
use certs::{Authority, AuthorityError, HUB_SERVER_NAME, IssueError, Reload, ServerTls, TlsError};

/// The hub's own certificate is never stored, and made anew long before it ends.
const SERVER_VALIDITY: Duration = Duration::from_secs(90 * 24 * 3600);

/// How often a new one is made.
const SERVER_RENEWAL: Duration = Duration::from_secs(24 * 3600);

/// How often the CA's files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The CA and the TLS configurations that hang on it.
#[derive(Debug)]
pub(crate) struct Authorities {
    folder: PathBuf,
    /// Names in the hub's certificate.
    names: Vec<String>,
    current: ArcSwap<Authority>,
    tls: ServerTls,
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

impl Authorities {
    pub(crate) fn new(authority: Authority, folder: PathBuf, names: Vec<String>) -> Result<Self, AuthoritiesError> {
        let credentials = authority.issue_server(&names, SERVER_VALIDITY).map_err(AuthoritiesError::Issue)?;
        let tls = ServerTls::new(credentials, &[authority.certificate().clone()]).map_err(AuthoritiesError::Tls)?;
        Ok(Self { folder, names, current: ArcSwap::from_pointee(authority), tls })
    }

    /// Where the CA is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The names in the hub's certificate, beside `localhost` and its addresses.
    pub(crate) fn names(&self) -> Vec<String> {
        self.names.iter().cloned().chain([HUB_SERVER_NAME.to_owned()]).collect()
    }

    /// The CA that issues now.
    pub(crate) fn current(&self) -> Arc<Authority> {
        self.current.load_full()
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

    /// Renews and reloads for ever.
    pub(crate) async fn keep_current(&self) {
        let mut reload = Reload::new(["ca.crt", "ca.key"].map(|name| self.folder.join(name)).into());
        let mut look = tokio::time::interval(LOOK);
        let mut renewal = tokio::time::interval_at(tokio::time::Instant::now() + SERVER_RENEWAL, SERVER_RENEWAL);
        loop {
            tokio::select! {
                _ = look.tick() => {
                    reload.check(|| self.reload());
                }
                _ = renewal.tick() => {
                    if let Err(error) = self.renew() {
                        tracing::warn!(error = &error as &dyn std::error::Error, "cannot renew the hub's certificate");
                    }
                }
            }
        }
    }

    fn reload(&self) -> Result<(), AuthoritiesError> {
        let authority = Authority::load_or_create(&self.folder).map_err(AuthoritiesError::Authority)?;
        self.apply(&authority)?;
        self.current.store(Arc::new(authority));
        Ok(())
    }

    fn renew(&self) -> Result<(), AuthoritiesError> {
        self.apply(&self.current())
    }

    fn apply(&self, authority: &Authority) -> Result<(), AuthoritiesError> {
        let credentials = authority.issue_server(&self.names, SERVER_VALIDITY).map_err(AuthoritiesError::Issue)?;
        self.tls.swap(credentials, &[authority.certificate().clone()]).map_err(AuthoritiesError::Tls)
    }
}
