//! Who follows whom in a state folder: a hub that starts waits for the one before it, which lets go when it drains.
//!
//! They tell each other by locks of files, which the kernel takes from a process that dies:
//!
//! | file | its lock says |
//! |---|---|
//! | `successor` | a hub waits for the folder, or has it and does not serve yet |
//! | `former` | a hub has let go of the folder, and drains |
//! | `closing` | a hub binds its ports beside another's, or closes them: each counts on where the other's are |

use std::{
    fs::{File, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use store::OpenError;
use tokio::time::{Instant, sleep};

use crate::{
    config::Config,
    hub::state::{State, StateError},
    limits::descriptors,
};

/// How often is looked whether the other hub has gone on.
pub(crate) const LOOK: Duration = Duration::from_millis(25);

/// How often is told that a hub still waits.
const TELL: Duration = Duration::from_secs(5);

/// How much longer than a drain a hub waits for the one before it.
const BEYOND_DRAIN: Duration = Duration::from_secs(15);

/// What one hub tells the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flag {
    Successor,
    Former,
    Closing,
}

/// A sign that stands until it is dropped.
#[derive(Debug)]
pub(crate) struct RaisedFlag(#[expect(dead_code, reason = "held for its lock")] File);

impl RaisedFlag {
    /// Has it stand until the process has ended.
    pub(crate) fn keep_to_the_end(self) {
        std::mem::forget(self);
    }
}

impl Flag {
    fn path(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Successor => "successor",
            Self::Former => "former",
            Self::Closing => "closing",
        })
    }

    /// Raises it, unless another process has, or looks right now.
    pub(crate) fn raise(self, folder: &Path) -> io::Result<Option<RaisedFlag>> {
        let path = self.path(folder);
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        certs::give_to_owner(&file, folder)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(RaisedFlag(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// As [`Self::raise`], once no other process has, or looks; `None` where that lasts for `patience`.
    pub(crate) async fn raise_within(self, folder: &Path, patience: Duration) -> io::Result<Option<RaisedFlag>> {
        let begun = Instant::now();
        loop {
            match self.raise(folder)? {
                // One that only looks holds it for a moment.
                None if begun.elapsed() < patience => sleep(LOOK / 10).await,
                raised => return Ok(raised),
            }
        }
    }

    /// Whether another process has raised it; not known where there is no descriptor for a look.
    fn look(self, folder: &Path) -> Option<bool> {
        match File::open(self.path(folder)) {
            Ok(file) => Some(matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))),
            Err(error) => (!descriptors::are_wanting(&error)).then_some(false),
        }
    }

    /// The same. One of which it is not known is taken to stand: who counted on the contrary would be in another's way.
    pub(crate) fn stands(self, folder: &Path) -> bool {
        self.look(folder).unwrap_or(true)
    }

    /// Waits until it is seen to stand.
    pub(crate) async fn raised(self, folder: &Path) {
        while self.look(folder) != Some(true) {
            sleep(LOOK).await;
        }
    }

    /// Waits until it stands no more.
    pub(crate) async fn lowered(self, folder: &Path) {
        while self.stands(folder) {
            sleep(LOOK).await;
        }
    }
}

/// Opens the state folder, as soon as the hub before this one has let go of it. What comes with it is to be kept until the
/// hub serves.
pub(crate) async fn open(config: &Config) -> Result<(State, Option<RaisedFlag>), StateError> {
    let (begun, patience) = (Instant::now(), config.drain_timeout + BEYOND_DRAIN);
    let (mut raised, mut told) = (None, None::<Instant>);
    loop {
        match State::open(&config.state, config.etcd.as_ref()) {
            Err(StateError::InUse(_) | StateError::Registry(OpenError::InUse { .. })) if begun.elapsed() < patience => {
            }
            opened => return opened.map(|state| (state, raised)),
        }
        if raised.is_none() {
            let file = |source| StateError::File { path: Flag::Successor.path(&config.state), source };
            raised = Flag::Successor.raise(&config.state).map_err(file)?;
        }
        if told.is_none_or(|told| told.elapsed() >= TELL) {
            told = Some(Instant::now());
            let (folder, waited) = (config.state.display(), begun.elapsed().as_secs());
            tracing::info!(
                %folder,
                waited,
                at_most = patience.as_secs(),
                "another hub has the state folder; waiting for it to be told to stop (SIGTERM), when it lets go at once"
            );
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_stands_for_others_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!Flag::Successor.stands(folder.path()));
        let raised = Flag::Successor.raise(folder.path()).unwrap().unwrap();
        assert!(Flag::Successor.stands(folder.path()));
        assert!(!Flag::Former.stands(folder.path()));
        assert!(Flag::Successor.raise(folder.path()).unwrap().is_none());
        drop(raised);
        assert!(!Flag::Successor.stands(folder.path()));
        assert!(Flag::Successor.raise(folder.path()).unwrap().is_some());
    }
}
