//! Noticing that credential files have changed, so that they are used without a restart.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A set of files, and what they held when they were last looked at. Call [`Self::check`] from an interval: Kubernetes
/// swaps a symbolic link under mounted secrets, which polling sees like any other change.
#[derive(Debug)]
pub struct Reload {
    files: Vec<PathBuf>,
    seen: Vec<Vec<u8>>,
}

/// What a look at the files brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadOutcome {
    /// Nothing has changed since the last look.
    Unchanged,
    /// The new contents are in use.
    Reloaded,
    /// The new contents are bad or cannot be read; what was in use stays. Said once for each bad version.
    Kept,
}

impl Reload {
    /// Watches `files`, which are in use as they are now.
    pub fn new(files: Vec<PathBuf>) -> Self {
        let seen = read(&files).unwrap_or_default();
        Self { files, seen }
    }

    /// Calls `apply` if the files have changed; logs, once per version, what it refuses.
    pub fn check<E: std::error::Error + 'static>(&mut self, apply: impl FnOnce() -> Result<(), E>) -> ReloadOutcome {
        let now = match read(&self.files) {
            Ok(now) => now,
            Err((path, error)) => {
                // An empty list is no version of the files: the next readable one is new.
                if !std::mem::take(&mut self.seen).is_empty() {
                    tracing::warn!(path = %path.display(), %error, "cannot read; keeping what is in use");
                    return ReloadOutcome::Kept;
                }
                return ReloadOutcome::Unchanged;
            }
        };
        if now == self.seen {
            return ReloadOutcome::Unchanged;
        }
        self.seen = now;
        let path = self.files.first().map(|path| path.display().to_string()).unwrap_or_default();
        match apply() {
            Ok(()) => {
                tracing::info!(path, "reloaded");
                ReloadOutcome::Reloaded
            }
            Err(error) => {
                tracing::warn!(path, error = &error as &dyn std::error::Error, "bad; keeping what is in use");
                ReloadOutcome::Kept
            }
        }
    }
}

fn read(files: &[PathBuf]) -> Result<Vec<Vec<u8>>, (&Path, io::Error)> {
    files.iter().map(|path| fs::read(path).map_err(|error| (path.as_path(), error))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Authority, ServerTls, handshake::Handshake, pinned_tls};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_change_is_applied_once_and_a_bad_one_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tls.crt");
        fs::write(&path, "one").unwrap();
        let mut reload = Reload::new(vec![path.clone()]);
        let good = || Ok::<_, io::Error>(());
        let bad = || Err(io::Error::from(io::ErrorKind::InvalidData));
        assert_eq!(reload.check(good), ReloadOutcome::Unchanged);
        fs::write(&path, "two").unwrap();
        assert_eq!(reload.check(good), ReloadOutcome::Reloaded);
        assert_eq!(reload.check(good), ReloadOutcome::Unchanged);
        fs::write(&path, "bad").unwrap();
        assert_eq!(reload.check(bad), ReloadOutcome::Kept);
        assert_eq!(reload.check(bad), ReloadOutcome::Unchanged);
        fs::remove_file(&path).unwrap();
        assert_eq!(reload.check(good), ReloadOutcome::Kept);
        assert_eq!(reload.check(good), ReloadOutcome::Unchanged);
        fs::write(&path, "three").unwrap();
        assert_eq!(reload.check(good), ReloadOutcome::Reloaded);
    }

    #[test]
    fn the_last_good_authority_serves_while_its_files_are_bad() {
        let folder = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(folder.path()).unwrap();
        let tls = ServerTls::new(first.issue_server(&[], HOUR).unwrap(), &[first.certificate().clone()]).unwrap();
        let config = tls.config(&[]);
        let mut reload = Reload::new(["ca.crt", "ca.key"].map(|name| folder.path().join(name)).into());
        let apply = || {
            let authority = Authority::load_or_create(folder.path())?;
            let credentials = authority.issue_server(&[], HOUR).unwrap();
            tls.swap(credentials, &[authority.certificate().clone()]).unwrap();
            Ok::<_, crate::AuthorityError>(())
        };
        let serves =
            |authority: &Authority| Handshake::run(&pinned_tls(&authority.pin(), &[]).config(), &config).succeeded();
        let other = tempfile::tempdir().unwrap();
        let second = Authority::load_or_create(other.path()).unwrap();

        fs::copy(other.path().join("ca.crt"), folder.path().join("ca.crt")).unwrap();
        assert_eq!(reload.check(apply), ReloadOutcome::Kept, "the key is still the old one");
        assert!(serves(&first) && !serves(&second));
        fs::copy(other.path().join("ca.key"), folder.path().join("ca.key")).unwrap();
        assert_eq!(reload.check(apply), ReloadOutcome::Reloaded);
        assert!(serves(&second) && !serves(&first));
    }
}
