//! The etcd back end: what etcd holds for this store, how it is reached, and how its thread is started.
//!
//! etcd 3.4 or newer is spoken to by gRPC, with linearizable requests only. What is in memory comes from etcd's
//! watch and from nowhere else (`feed`), also what this store itself has committed: so several hubs on one etcd see the same.
//!
//! Every transaction also writes a marker, whether its preconditions hold or not, and is answered when the watch shows that
//! marker (`writer`). So a lost answer leaves nothing open: the marker tells the outcome, and when none comes, a fence
//! makes sure that the transaction can no longer be applied.
//!
//! Revisions are etcd's: they grow, but not by one, and they begin anew for watches with each start of the process, because
//! etcd keeps no values from before a change. Compacting etcd's own history is left to its operator (`etcd
//! --auto-compaction-retention`): others may use the same etcd. [`super::Store::compact`] forgets this process' log alone.

mod client;
mod connection;
mod feed;
mod layout;
mod message;
mod proto;
mod tls;
mod writer;

use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, mpsc as blocking};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::RwLock;
use thiserror::Error;
use tokio::sync::{mpsc, watch as latest};
use tokio::time::{Instant, sleep, timeout_at};

use self::client::{CallError, Client};
use self::feed::{Feed, Snapshot};
use self::layout::{Identity, Layout};
use self::tls::TlsFilesError;
use self::writer::Writer;
use super::state::State;
use super::writer::Request;
use super::{Observer, OpenError, Revision};
use crate::backoff::Backoff;

/// How an etcd is reached, and which part of it is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// `http://` or `https://` with host and port (2379 if left out), of one or more members of one cluster. TLS 1.3 only.
    pub endpoints: Vec<String>,
    /// PEM file of the CAs that may have signed etcd's certificates. Needed for `https`.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's certificate chain and of its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Every key is below it; at most 128 bytes.
    pub prefix: String,
}

/// Why these options reach no etcd, whatever etcd does.
#[derive(Debug, Error)]
pub(super) enum OptionsError {
    #[error("no endpoint of etcd is given")]
    NoEndpoint,
    #[error("{0:?} is no endpoint of etcd: write http://HOST:PORT or https://HOST:PORT")]
    Endpoint(String),
    #[error("etcd's endpoints are some http and some https")]
    Mixed,
    #[error("the prefix of etcd's keys is longer than {limit} bytes", limit = Etcd::MAX_PREFIX)]
    Prefix,
    #[error("TLS to etcd cannot be set up")]
    Tls(#[source] TlsFilesError),
}

/// Why what is in etcd was not read.
#[derive(Debug, Error)]
enum LoadError {
    #[error("etcd did not tell what it holds")]
    Call(#[source] CallError),
    #[error("the key {0} says that something else uses this prefix")]
    Foreign(String),
    #[error("the format is {0}")]
    Newer(u64),
}

/// How long the start of a process waits for etcd.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What a started thread hands to the store.
pub(super) struct Started {
    pub(super) state: Arc<RwLock<State>>,
    pub(super) published: latest::Receiver<Revision>,
    pub(super) thread: JoinHandle<()>,
}

impl Etcd {
    /// The prefix of keys unless another is named.
    pub const PREFIX: &'static str = "/cluster-proxy";
    /// Longest prefix, in bytes: transactions leave room for it.
    pub const MAX_PREFIX: usize = 128;

    /// Reads everything and starts the thread that serves `queue`. Blocks for at most ten seconds.
    pub(super) fn start(&self, queue: mpsc::Receiver<Request>, observer: Observer) -> Result<Started, OpenError> {
        let failed = |source: Box<dyn Error + Send + Sync>| OpenError::Etcd { endpoints: self.shown(), source };
        let layout = Layout::new(&self.prefix).ok_or_else(|| failed(OptionsError::Prefix.into()))?;
        let client = Client::new(self).map_err(|error| failed(error.into()))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| failed(error.into()))?;
        let (started, outcome) = blocking::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("registry-etcd".to_owned())
            .spawn(move || runtime.block_on(serve(Arc::new(client), Arc::new(layout), queue, observer, started)))
            .map_err(|error| failed(error.into()))?;
        match outcome.recv() {
            Ok(Ok((state, published))) => Ok(Started { state, published, thread }),
            Ok(Err(LoadError::Newer(found))) => Err(OpenError::Newer { path: self.prefix.clone().into(), found }),
            Ok(Err(error @ LoadError::Foreign(_))) => {
                Err(OpenError::Damaged { path: self.prefix.clone().into(), source: error.into() })
            }
            Ok(Err(error @ LoadError::Call(_))) => Err(failed(error.into())),
            Err(error) => Err(failed(error.into())),
        }
    }

    fn shown(&self) -> String {
        self.endpoints.join(", ")
    }
}

type Opened = Result<(Arc<RwLock<State>>, latest::Receiver<Revision>), LoadError>;

/// The thread: reads everything, tells so, and then writes until the queue is closed.
async fn serve(
    client: Arc<Client>,
    layout: Arc<Layout>,
    queue: mpsc::Receiver<Request>,
    observer: Observer,
    started: blocking::SyncSender<Opened>,
) {
    let (identity, snapshot) = match load(&client, &layout).await {
        Ok(loaded) => loaded,
        // Whoever waits for it is gone only if the process is being ended.
        Err(error) => return drop(started.send(Err(error))),
    };
    snapshot.forget_dead_writers(&client, &layout).await;
    let state = Arc::new(RwLock::new(snapshot.state(&layout)));
    let (publish, published) = latest::channel(snapshot.revision);
    let (feed, shown) = Feed::new(Arc::clone(&client), Arc::clone(&layout), identity, snapshot.revision);
    let writer = Writer::new(client, layout, Arc::clone(&state), publish, observer, feed);
    if started.send(Ok((state, published))).is_ok() {
        writer.run(queue, shown).await;
    }
}

/// Tries until the deadline: etcd may be starting, too.
async fn load(client: &Client, layout: &Layout) -> Result<(Identity, Snapshot), LoadError> {
    let deadline = Instant::now() + CONNECT_DEADLINE;
    let mut backoff = Backoff::default();
    let mut last = CallError::Silent;
    loop {
        match timeout_at(deadline, read(client, layout)).await {
            Ok(Err(LoadError::Call(error))) => last = error,
            Ok(outcome) => return outcome,
            Err(_) => return Err(LoadError::Call(last)),
        }
        tracing::debug!(error = &last as &dyn Error, "etcd is tried again");
        sleep(backoff.next_wait()).await;
    }
}

async fn read(client: &Client, layout: &Layout) -> Result<(Identity, Snapshot), LoadError> {
    let created = message::create(&layout.store(), &Identity::draw().to_json());
    client.call(&created).await.map_err(LoadError::Call)?;
    let snapshot = Snapshot::read(client, layout).await.map_err(LoadError::Call)?;
    let foreign = || LoadError::Foreign(layout.store());
    let identity = snapshot.identity(layout).ok_or_else(foreign)?;
    if identity.format > Identity::FORMAT {
        return Err(LoadError::Newer(identity.format));
    }
    Ok((identity, snapshot))
}

#[cfg(test)]
impl Etcd {
    /// Lets etcd forget everything before now.
    pub(super) async fn forget(&self) {
        let client = Client::new(self).unwrap();
        let now = message::revision(client.call(&message::get("a")).await.unwrap().header);
        let compaction = proto::etcdserverpb::CompactionRequest { revision: now.0.cast_signed(), physical: true };
        client.call(&compaction).await.unwrap();
    }
}
