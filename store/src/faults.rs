//! A file whose disk fails as a test tells it to.

use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use redb::backends::FileBackend;
use redb::{BackendError, Database, StorageBackend};

use crate::disk::Disk;
use crate::state::State;
use crate::{Observer, OpenError, Store};

/// What goes wrong with the next operations that change the file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    Healthy,
    /// Nothing can be written.
    ReadOnly,
    /// The file cannot grow, and nothing can be written past this offset.
    Full {
        end: u64,
    },
    /// So many operations still succeed; then one fails.
    OneAfter(u32),
    /// So many operations still succeed; then all fail.
    AllAfter(u32),
    /// So many operations still succeed; then half of one is done, and all later ones fail.
    TornAfter(u32),
    /// So many operations still succeed; then one panics, as redb itself might.
    PanicAfter(u32),
}

/// A file whose disk fails as it is told to.
#[derive(Debug)]
pub(crate) struct FaultyFile {
    pub(crate) file: FileBackend,
    pub(crate) fault: Arc<Mutex<Fault>>,
}

impl Store {
    /// Opens the store in the file `path`, made anew, and gives the switch of its disk.
    pub fn on_failing(path: &Path, observer: Observer) -> Result<(Self, Arc<Mutex<Fault>>), OpenError> {
        let (disk, state, fault) = open(path)?;
        Ok((Self::start(disk, state, observer)?, fault))
    }
}

/// Opens a file whose disk fails as it is told to.
fn open(path: &Path) -> Result<(Disk, State, Arc<Mutex<Fault>>), OpenError> {
    drop(Store::open(path)?);
    let fault = Arc::new(Mutex::new(Fault::Healthy));
    let switch = Arc::clone(&fault);
    let reopen = Box::new(move |path: &Path| {
        let file = File::options().read(true).write(true).open(path)?;
        let file = FaultyFile { file: FileBackend::new(file)?, fault: Arc::clone(&switch) };
        Database::builder().create_with_backend(file)
    });
    let (disk, state) = Disk::open_with(path, reopen)?;
    Ok((disk, state, fault))
}

impl FaultyFile {
    /// Whether the next operation, on the file up to `end`, succeeds.
    fn check(&self, end: u64, torn: impl FnOnce()) -> io::Result<()> {
        let mut fault = self.fault.lock();
        let failed = |kind: io::ErrorKind| Err(io::Error::new(kind, "injected"));
        match &mut *fault {
            Fault::Healthy => Ok(()),
            Fault::ReadOnly => failed(io::ErrorKind::ReadOnlyFilesystem),
            Fault::Full { end: limit } if end > *limit => failed(io::ErrorKind::StorageFull),
            Fault::Full { .. } => Ok(()),
            Fault::OneAfter(0) => {
                *fault = Fault::Healthy;
                failed(io::ErrorKind::Other)
            }
            Fault::AllAfter(0) => failed(io::ErrorKind::Other),
            Fault::TornAfter(0) => {
                torn();
                *fault = Fault::AllAfter(0);
                failed(io::ErrorKind::Other)
            }
            Fault::PanicAfter(0) => {
                *fault = Fault::Healthy;
                drop(fault);
                panic!("injected");
            }
            Fault::OneAfter(left) | Fault::AllAfter(left) | Fault::TornAfter(left) | Fault::PanicAfter(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

impl StorageBackend for FaultyFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check(len, || ())?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check(0, || ())?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // What is torn is told as a failure anyway.
        let half = || drop(self.file.write(offset, &data[..data.len() / 2]));
        self.check(offset + data.len() as u64, half)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }
}
