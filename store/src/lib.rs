//! The store: keys and values with revisions, compare-and-swap, list by prefix and watch, kept in one redb file or in etcd.
//!
//! The whole content is also held in memory, so reads never wait for the disk or for etcd, and never fail. Writes go
//! through one thread: `writer` owns the file and commits what has queued up as one group; `etcd` sends to etcd and takes
//! over what its watch shows.
//!
//! Invariants, and the tests that hold them:
//!
//! 1. What was acknowledged survives a `kill -9`: `a_killed_store_has_lost_nothing_it_acknowledged`.
//! 2. What was refused is not applied, neither in memory nor, once the disk works again, on it:
//!    `whichever_operation_fails_refused_is_not_applied_and_acknowledged_stays`.
//! 3. A commit is on disk before anybody sees it, and can be seen before it is answered:
//!    `a_revision_is_published_before_its_commit_is_answered`.
//! 4. Revisions grow with each transaction that changes something (in a file by one), and never go back:
//!    `revisions_grow_with_each_transaction_that_changes_something`.
//! 5. A damaged file is never taken for an empty or an older store: `a_flipped_bit_is_noticed_or_harmless`.
//!
//! Beside the file `registry.redb` there is `registry.redb.lock`, which keeps other processes out and may be left behind,
//! and, while the store is being made, `registry.redb.new`.

mod backoff;
mod digest;
mod disk;
mod etcd;
#[cfg(any(test, feature = "faults"))]
pub mod faults;
mod feed;
mod log;
mod state;
#[cfg(test)]
mod tests;
mod txn;
mod watch;
mod writer;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch as latest};
use tokio::time::timeout;

pub use self::backoff::Backoff;
use self::disk::Disk;
pub use self::etcd::Etcd;
pub use self::feed::{Feed, News};
use self::log::EventLog;
pub use self::log::{Commit, Event};
use self::state::State;
pub use self::txn::{Revision, Txn, Versioned};
pub use self::watch::{Watch, WatchEnd};
use self::writer::{Request, Writer};

/// Where a store keeps what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Backend {
    /// A redb file.
    File(PathBuf),
    Etcd(Etcd),
}

/// An open store. Dropping it finishes the queued commits and closes the file; so does [`Store::close`], without
/// blocking the caller's thread.
pub struct Store {
    state: Arc<RwLock<State>>,
    /// `None` once closed. Behind a lock, so that `close` needs no `&mut`.
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    /// The newest published revision. Its sender lives in the writer: it goes when the writer ends.
    published: latest::Receiver<Revision>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Every key with its value.
pub type Entries = BTreeMap<Arc<str>, Versioned<Arc<[u8]>>>;

/// What the writer tells about each commit before it answers the callers. Runs on the writer's thread.
pub type Observer = Box<dyn FnMut(&Commit) + Send>;

/// Why a store did not open.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("the store {path} is in use by another process; stop that process, or use another state folder")]
    InUse { path: PathBuf },
    #[error(
        "the store {path} is damaged; restore a copy of it ('cluster-proxy restore BACKUP --state {}' sets the damaged file \
         aside; keep that: an empty registry would know no agent and no user)",
        path.parent().unwrap_or(path).display()
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("the store {path} was written by a newer version (format {found}); run that version, or restore a copy")]
    Newer { path: PathBuf, found: u64 },
    #[error(
        "the store in etcd at {endpoints} cannot be opened; check the endpoints, the certificates and that etcd runs"
    )]
    Etcd {
        endpoints: String,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    #[error("cannot open the store {path}; check that its folder exists, is writable and has free space")]
    Io {
        path: PathBuf,
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a transaction was refused. In every case it is not applied.
#[derive(Clone, Debug, Error)]
pub enum CommitError {
    /// A precondition does not hold: read again and decide again.
    #[error("{key} was changed by someone else (expected {expected}, found {found}); read it again and retry", 
        expected = shown(*.expected), found = shown(*.found))]
    Conflict {
        key: String,
        /// The modification revision the transaction asked for; `None` for absent.
        expected: Option<Revision>,
        found: Option<Revision>,
    },
    /// The disk refused. Reads go on, and commits work again as soon as the disk does. (If the process dies before
    /// that, and what failed was the very last write of the commit, the commit may be found on disk at the next start.)
    #[error(
        "the registry cannot be written to disk, nothing was changed; check the disk's free space and health, then retry"
    )]
    Disk {
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    /// etcd refused, or was not reached in time. Reads go on, and commits work again as soon as etcd does.
    #[error(
        "the registry cannot be written to etcd, nothing was changed; check that etcd is up and has a leader, then retry"
    )]
    Etcd {
        #[source]
        source: Arc<dyn Error + Send + Sync>,
    },
    #[error("{what} is too large ({found}, at most {limit})")]
    TooLarge { what: String, found: usize, limit: usize },
    /// The queue stayed full.
    #[error("the registry is overloaded; retry in a few seconds")]
    Overloaded,
    /// (A commit whose answer etcd owed when the process stopped may be found there later.)
    #[error("the registry is closed, the hub stops or another takes over; retry in a second")]
    Closed,
}

/// Commits that may wait for the writer. Each group takes them all, so this bounds memory and not throughput.
const QUEUE: usize = 256;

/// How long a commit waits for a place in the queue. A group takes milliseconds; this is a disk that hangs.
const QUEUE_DEADLINE: Duration = Duration::from_secs(10);

/// Whether no process uses the store in the file `path`, which need not be there.
pub fn check_unused(path: &Path) -> Result<(), OpenError> {
    disk::lock(path).map(drop)
}

impl Backend {
    /// The file, or the prefix in etcd.
    pub fn place(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Etcd(etcd) => etcd.prefix.clone().into(),
        }
    }
}

impl Store {
    /// Opens the store in the file `path`, making it if there is none. Reads the whole file, checking it, and starts
    /// the writer's thread. Blocks; meant for the start of a process.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_observed(path.as_ref(), Box::new(|_| ()))
    }

    /// Opens the store in etcd. Reads everything below its prefix, and starts the thread that writes and watches. Blocks for
    /// at most ten seconds; meant for the start of a process. Other processes may use the same prefix at the same time.
    pub fn connect(etcd: &Etcd) -> Result<Self, OpenError> {
        Self::connect_observed(etcd, Box::new(|_| ()))
    }

    /// As `open` or `connect`, with an observer of every commit to come, also of other processes' on the same etcd.
    pub fn on(backend: &Backend, observer: Observer) -> Result<Self, OpenError> {
        match backend {
            Backend::File(path) => Self::open_observed(path, observer),
            Backend::Etcd(etcd) => Self::connect_observed(etcd, observer),
        }
    }

    fn open_observed(path: &Path, observer: Observer) -> Result<Self, OpenError> {
        let (disk, state) = Disk::open(path)?;
        Self::start(disk, state, observer)
    }

    fn connect_observed(etcd: &Etcd, observer: Observer) -> Result<Self, OpenError> {
        let (requests, queue) = mpsc::channel(QUEUE);
        let started = etcd.start(queue, observer)?;
        Ok(Self {
            state: started.state,
            requests: Mutex::new(Some(requests)),
            published: started.published,
            writer: Mutex::new(Some(started.thread)),
        })
    }

    /// Makes the file `path`, which is not there yet, with these entries, for a later [`Self::open`].
    pub fn make(path: &Path, entries: Entries, revision: Revision) -> Result<(), OpenError> {
        Disk::make(path, &State::restored(entries, EventLog::after(revision)))
    }

    /// Starts the writer on an opened disk.
    pub(crate) fn start(disk: Disk, state: State, observer: Observer) -> Result<Self, OpenError> {
        let path = disk.path().to_owned();
        let (requests, queue) = mpsc::channel(QUEUE);
        let (publish, published) = latest::channel(state.revision());
        let state = Arc::new(RwLock::new(state));
        let writer = Writer::new(disk, Arc::clone(&state), publish, observer);
        let writer = std::thread::Builder::new()
            .name("registry-writer".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|source| OpenError::Io { path, source: source.into() })?;
        Ok(Self { state, requests: Mutex::new(Some(requests)), published, writer: Mutex::new(Some(writer)) })
    }

    /// The value of `key`.
    pub fn get(&self, key: &str) -> Option<Versioned<Arc<[u8]>>> {
        self.state.read().get(key).cloned()
    }

    /// Every key that starts with `prefix`, in order, and the revision at which that is so.
    ///
    /// `watch` from that revision tells everything that happens after.
    pub fn list(&self, prefix: &str) -> (Vec<(Arc<str>, Versioned<Arc<[u8]>>)>, Revision) {
        let state = self.state.read();
        (state.list(prefix), state.revision())
    }

    /// As [`Self::list`] was at `revision`, which is not newer than the store: pages of one list show one moment.
    ///
    /// Fails with the oldest revision that is still known, when `revision` is older.
    pub fn list_at(&self, prefix: &str, revision: Revision) -> Result<Vec<(Arc<str>, Versioned<Arc<[u8]>>)>, WatchEnd> {
        let state = self.state.read();
        let compacted = state.log().compacted();
        state.list_at(prefix, revision).ok_or(WatchEnd::Compacted { compacted })
    }

    /// The revision of the newest commit.
    pub fn revision(&self) -> Revision {
        self.state.read().revision()
    }

    /// Applies `txn` wholly or not at all; returns once it is on disk (in etcd: on a majority's) and in memory.
    ///
    /// The revision is the transaction's own, or the newest one when there was nothing to change. The wait for a place
    /// in the queue has a deadline, and so has the wait for an etcd that does not answer. The wait for the disk has none,
    /// because giving up on a commit that is being written would leave its outcome open; nor has the wait for an etcd that
    /// was lost in the middle of a commit, which goes on until etcd is back. Dropping the future does not take back a queued transaction.
    pub async fn commit(&self, txn: Txn) -> Result<Revision, CommitError> {
        txn.check_size()?;
        let (answer, outcome) = oneshot::channel();
        self.request(Request::Commit { txn, answer }).await?;
        outcome.await.map_err(|_| CommitError::Closed)?
    }

    /// Tells every commit after the revision `after`, in order and without a gap.
    pub fn watch(&self, after: Revision) -> Watch {
        Watch::new(after, Arc::clone(&self.state), self.published.clone())
    }

    /// Forgets how the store came to be what it was at `revision`: watches can no longer start before it. In etcd this is
    /// not told to etcd, which others may use: compacting there is its operator's.
    pub async fn compact(&self, revision: Revision) -> Result<(), CommitError> {
        let (answer, outcome) = oneshot::channel();
        self.request(Request::Compact { revision, answer }).await?;
        outcome.await.map_err(|_| CommitError::Closed)?
    }

    /// Finishes the queued commits, and lets go of the file, which another process may open then. Commits end with `Closed`;
    /// reads and watches go on with what [`Self::follow`] takes over. A store in etcd has no file and goes on as it is.
    pub async fn release(&self) {
        let (answer, done) = oneshot::channel();
        if self.request(Request::LetGo { answer }).await.is_ok() {
            // An error is a writer that has ended, and with it the file.
            let _ = done.await;
        }
    }

    /// Takes over what the process has committed that has the file now.
    pub async fn follow(&self, news: News) -> Result<(), CommitError> {
        let (answer, done) = oneshot::channel();
        self.request(Request::Follow { news, answer }).await?;
        done.await.map_err(|_| CommitError::Closed)
    }

    /// Finishes the queued commits, closes the file and waits for that. Reads still work; commits end with `Closed`.
    pub async fn close(&self) {
        drop(self.requests.lock().take());
        self.ended().await;
        self.join();
    }

    /// Waits until the writer has ended: it was closed, or it panicked.
    pub async fn ended(&self) {
        let mut published = self.published.clone();
        // Ends when the writer drops its sender, which is the last thing it does.
        while published.changed().await.is_ok() {}
    }

    async fn request(&self, request: Request) -> Result<(), CommitError> {
        let requests = self.requests.lock().clone().ok_or(CommitError::Closed)?;
        match timeout(QUEUE_DEADLINE, requests.send(request)).await {
            Ok(sent) => sent.map_err(|_| CommitError::Closed),
            Err(_) => Err(CommitError::Overloaded),
        }
    }

    fn join(&self) {
        if let Some(writer) = self.writer.lock().take()
            && writer.join().is_err()
        {
            tracing::error!("the registry's writer panicked");
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.requests.get_mut().take());
        self.join();
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

fn shown(revision: Option<Revision>) -> String {
    revision.map_or_else(|| "none".to_owned(), |revision| format!("revision {revision}"))
}
