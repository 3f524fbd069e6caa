//! The store's file: what is in it, how it is written, and how it is brought back after the disk failed.
//!
//! redb refuses everything after its first I/O error (`PreviousIo`) until the database is opened anew. So after an error
//! the file is opened again, compared with memory, which is right by definition, and made equal to it.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use redb::backends::InMemoryBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, WriteTransaction,
};
use thiserror::Error;

use super::digest::Digest;
use super::log::EventLog;
use super::state::State;
use super::{Commit, Event, OpenError, Revision, Versioned};

/// The file, locked against other processes for as long as this lives.
pub(crate) struct Disk {
    path: PathBuf,
    reopen: Reopen,
    /// `None` after a failure from which the file has not been brought back yet.
    database: Option<Database>,
    /// Of everything in the file.
    digest: Digest,
    /// Held beside redb's own lock, which is given up whenever the database is opened anew.
    _lock: File,
}

/// How to open the database in the file: redb's own way, or a test's with faults in it.
pub(super) type Reopen = Box<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send>;

/// Why the file could not be read or written.
#[derive(Debug, Error)]
pub(super) enum DiskError {
    #[error("the storage engine failed: {0}")]
    Engine(redb::Error),
    /// redb asserts on some damage where it could return an error.
    #[error("the storage engine gave up on the file")]
    Panicked,
    #[error("the file contradicts itself: {0}")]
    Inconsistent(&'static str),
    #[error("the file has format {found}")]
    Newer { found: u64 },
}

/// A value with its `created` and `modified` revisions.
type Stored<'a> = (u64, u64, &'a [u8]);

const ENTRIES: TableDefinition<'_, &str, Stored<'_>> = TableDefinition::new("entries");
/// Revision and number of the event in it; key, value after and value before.
const LOG: TableDefinition<'_, (u64, u32), (&str, Option<Stored<'_>>, Option<Stored<'_>>)> =
    TableDefinition::new("log");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

const FORMAT: u64 = 1;

/// redb keeps up to 1 GiB by default; here memory already holds everything.
const CACHE_BYTES: usize = 4 << 20;

impl Disk {
    /// Opens or makes the file and reads all of it.
    pub(crate) fn open(path: &Path) -> Result<(Self, State), OpenError> {
        Self::open_with(path, Box::new(|path| builder().open(path)))
    }

    pub(super) fn open_with(path: &Path, reopen: Reopen) -> Result<(Self, State), OpenError> {
        let lock = lock(path)?;
        match path.try_exists() {
            Ok(true) => check(path).map_err(|error| error.while_opening(path))?,
            Ok(false) => create(path, &State::default()).map_err(|error| error.while_opening(path))?,
            Err(error) => return Err(io_error(path, error)),
        }
        let (database, state, digest) = load(&reopen, path).map_err(|error| error.while_opening(path))?;
        let disk = Self { path: path.to_owned(), reopen, database: Some(database), digest, _lock: lock };
        Ok((disk, state))
    }

    /// Makes a file that holds `state`, where there is none.
    pub(super) fn make(path: &Path, state: &State) -> Result<(), OpenError> {
        let _lock = lock(path)?;
        if path.try_exists().map_err(|error| io_error(path, error))? {
            return Err(io_error(path, io::ErrorKind::AlreadyExists.into()));
        }
        create(path, state).map_err(|error| error.while_opening(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds `commits`, which follow `state`, and forgets its log up to `compacted`. On an error the file still holds
    /// `state`, or will before anything else is written to it.
    pub(super) fn write(
        &mut self,
        state: &State,
        commits: &[Arc<Commit>],
        compacted: Revision,
    ) -> Result<(), DiskError> {
        let database = match self.database.take() {
            Some(database) => database,
            None => self.recover(state)?,
        };
        match guarded(|| append(&database, self.digest, state, commits, compacted)) {
            Ok(digest) => {
                self.digest = digest;
                self.database = Some(database);
                Ok(())
            }
            Err(error) => {
                let _ = guarded(|| {
                    drop(database);
                    Ok(())
                });
                // At once, and before anybody is told: an error in the last step may have left the commit on disk.
                self.database = self.recover(state).ok();
                Err(error)
            }
        }
    }

    /// Opens the file anew and makes it equal to `state`.
    fn recover(&mut self, state: &State) -> Result<Database, DiskError> {
        let (database, digest) = guarded(|| {
            let (database, found, digest) = load(&self.reopen, &self.path)?;
            let digest = if found == *state { digest } else { rewrite(&database, state)? };
            Ok((database, digest))
        })?;
        self.digest = digest;
        tracing::info!(revision = state.revision().0, "the registry's file is open again");
        Ok(database)
    }
}

impl DiskError {
    fn while_opening(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Engine(redb::Error::DatabaseAlreadyOpen) => OpenError::InUse { path },
            Self::Engine(redb::Error::Io(source)) if !tells_damage(&source) => {
                OpenError::Io { path, source: source.into() }
            }
            Self::Newer { found } => OpenError::Newer { path, found },
            damage @ (Self::Engine(_) | Self::Panicked | Self::Inconsistent(_)) => {
                OpenError::Damaged { path, source: damage.into() }
            }
        }
    }
}

impl<E: Into<redb::Error>> From<E> for DiskError {
    fn from(error: E) -> Self {
        Self::Engine(error.into())
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

pub(super) fn lock(path: &Path) -> Result<File, OpenError> {
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(beside(path, "lock"))
        .map_err(|error| io_error(path, error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error(path, error)),
    }
}

/// Makes a store. It gets its name only when it is complete, so a file of that name is never half a store:
/// an empty or short one is damage, and not a reason to start anew.
fn create(path: &Path, state: &State) -> Result<(), DiskError> {
    let unfinished = beside(path, "new");
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    rewrite(&builder().create_file(file)?, state)?;
    fs::rename(&unfinished, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
    Ok(())
}

/// Reads all of the file from a copy in memory. Opening a file writes to it, and a damaged one is to stay as it is, for
/// whoever tries to save something from it.
fn check(path: &Path) -> Result<(), DiskError> {
    guarded(|| {
        let content = fs::read(path)?;
        let copy = InMemoryBackend::new();
        copy.set_len(content.len() as u64)?;
        copy.write(0, &content)?;
        drop(content);
        read(&builder().create_with_backend(copy)?).map(drop)
    })
}

fn load(reopen: &Reopen, path: &Path) -> Result<(Database, State, Digest), DiskError> {
    guarded(|| {
        let database = reopen(path)?;
        let (state, digest) = read(&database)?;
        Ok((database, state, digest))
    })
}

fn read(database: &Database) -> Result<(State, Digest), DiskError> {
    let txn = database.begin_read()?;
    let meta = txn.open_table(META)?;
    let number = |name: &str| match meta.get(name)? {
        Some(number) => Ok(number.value()),
        None => Err(DiskError::Inconsistent("a number is missing")),
    };
    match number("format")? {
        FORMAT => {}
        found => return Err(DiskError::Newer { found }),
    }
    let mut digest = Digest::default();
    let mut entries = BTreeMap::new();
    for row in txn.open_table(ENTRIES)?.iter()? {
        let (key, stored) = row?;
        let versioned = versioned(stored.value());
        digest.add_entry(key.value(), &versioned);
        entries.insert(Arc::from(key.value()), versioned);
    }
    let mut commits: Vec<Commit> = Vec::new();
    for row in txn.open_table(LOG)?.iter()? {
        let (number, event) = row?;
        let (key, after, before) = event.value();
        let event = Event { key: key.into(), after: after.map(versioned), before: before.map(versioned) };
        let revision = Revision(number.value().0);
        digest.add_event(revision, &event);
        match commits.last_mut() {
            Some(commit) if commit.revision == revision => commit.events.push(event),
            _ => commits.push(Commit { revision, events: vec![event] }),
        }
    }
    if digest != Digest(number("digest")?) {
        return Err(DiskError::Inconsistent("its content does not match its digest"));
    }
    let mut log = EventLog::after(Revision(number("compacted")?));
    for commit in commits {
        if commit.revision != log.newest().next() {
            return Err(DiskError::Inconsistent("its log has a gap"));
        }
        log.push(Arc::new(commit));
    }
    if log.newest() != Revision(number("revision")?) {
        return Err(DiskError::Inconsistent("its log is not up to date"));
    }
    Ok((State::restored(entries, log), digest))
}

/// Writes one group as one transaction of the storage engine.
fn append(
    database: &Database,
    mut digest: Digest,
    state: &State,
    commits: &[Arc<Commit>],
    compacted: Revision,
) -> Result<Digest, DiskError> {
    let txn = begin(database)?;
    {
        let mut entries = txn.open_table(ENTRIES)?;
        let mut log = txn.open_table(LOG)?;
        for commit in state.log().until(compacted) {
            for (number, event) in numbered(commit) {
                digest.remove_event(commit.revision, event);
                log.remove((commit.revision.0, number))?;
            }
        }
        for commit in commits {
            for (number, event) in numbered(commit) {
                if let Some(before) = &event.before {
                    digest.remove_entry(&event.key, before);
                }
                match &event.after {
                    Some(after) => {
                        digest.add_entry(&event.key, after);
                        entries.insert(&*event.key, stored(after))?;
                    }
                    None => drop(entries.remove(&*event.key)?),
                }
                digest.add_event(commit.revision, event);
                log.insert((commit.revision.0, number), row(event))?;
            }
        }
    }
    let compacted = compacted.max(state.log().compacted()).min(state.revision());
    let revision = commits.last().map_or_else(|| state.revision(), |commit| commit.revision);
    finish(txn, revision, compacted, digest)
}

/// Makes the file hold `state` and nothing else.
fn rewrite(database: &Database, state: &State) -> Result<Digest, DiskError> {
    let txn = begin(database)?;
    let mut digest = Digest::default();
    txn.delete_table(ENTRIES)?;
    txn.delete_table(LOG)?;
    {
        let mut entries = txn.open_table(ENTRIES)?;
        for (key, versioned) in state.entries() {
            digest.add_entry(key, versioned);
            entries.insert(&**key, stored(versioned))?;
        }
        let mut log = txn.open_table(LOG)?;
        for commit in state.log().iter() {
            for (number, event) in numbered(commit) {
                digest.add_event(commit.revision, event);
                log.insert((commit.revision.0, number), row(event))?;
            }
        }
    }
    finish(txn, state.revision(), state.log().compacted(), digest)
}

fn begin(database: &Database) -> Result<WriteTransaction, DiskError> {
    let mut txn = database.begin_write()?;
    // With one phase, whoever may choose values can make a torn write look like a valid commit.
    txn.set_two_phase_commit(true);
    Ok(txn)
}

fn finish(txn: WriteTransaction, revision: Revision, compacted: Revision, digest: Digest) -> Result<Digest, DiskError> {
    {
        let mut meta = txn.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("revision", revision.0)?;
        meta.insert("compacted", compacted.0)?;
        meta.insert("digest", digest.0)?;
    }
    txn.commit()?;
    Ok(digest)
}

thread_local! {
    /// Whether a panic of this thread is expected, and becomes an error.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Turns a panic of the storage engine into an error: neither a damaged file nor a failing disk may end the process, and what
/// they say to who reads the log is the error, not where redb gave up.
fn guarded<T>(work: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                loud(panic);
            }
        }));
    });
    let before = GUARDED.replace(true);
    // What `work` may leave half done is redb's database, and that is thrown away on any error.
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(DiskError::Panicked));
    GUARDED.set(before);
    done
}

fn numbered(commit: &Commit) -> impl Iterator<Item = (u32, &Event)> {
    (0..).zip(&commit.events)
}

fn stored(versioned: &Versioned<Arc<[u8]>>) -> Stored<'_> {
    (versioned.created.0, versioned.modified.0, &versioned.value)
}

fn versioned((created, modified, value): Stored<'_>) -> Versioned<Arc<[u8]>> {
    Versioned { value: value.into(), created: Revision(created), modified: Revision(modified) }
}

fn row(event: &Event) -> (&str, Option<Stored<'_>>, Option<Stored<'_>>) {
    (&event.key, event.after.as_ref().map(stored), event.before.as_ref().map(stored))
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source: source.into() }
}

/// Whether an I/O error speaks of the file's content and not of the disk.
fn tells_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidInput)
}
