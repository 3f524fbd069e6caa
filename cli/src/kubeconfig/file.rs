//! The user's kubeconfig as a file: where it is, kubectl's lock on it, and replacing it whole or not at all.

use std::{
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use super::document::{Document, ParseError, TakenError};
use crate::failure::{Exit, Failure};

/// How long another program may hold the lock.
const LOCK_DEADLINE: Duration = Duration::from_secs(5);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A kubeconfig that nobody else changes meanwhile: it has kubectl's own lock.
#[derive(Debug)]
pub(crate) struct LockedFile {
    path: PathBuf,
    lock: PathBuf,
}

/// Why a kubeconfig was not changed. It is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("there is no path for the kubeconfig: neither KUBECONFIG nor HOME is set")]
    Nowhere,
    #[error("{} is there: another program is changing the kubeconfig, or was killed doing so", .0.display())]
    Locked(PathBuf),
    #[error("cannot read or write {}", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} cannot be understood and is left as it is", .path.display())]
    Damaged { path: PathBuf, source: ParseError },
    #[error("{} has content that cannot be preserved, and was not changed", .0.display())]
    Unwritable(PathBuf),
    #[error("{} is left as it is", .path.display())]
    Taken { path: PathBuf, source: TakenError },
}

impl LockedFile {
    /// Locks the file, which need not be there. A link is followed: what it points to is replaced, not the link.
    pub(crate) async fn lock(path: &Path) -> Result<Self, FileError> {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let file = |source| FileError::File { path: path.clone(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder(&path)).map_err(file)?;
        let mut lock = path.clone().into_os_string();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        let give_up = Instant::now() + LOCK_DEADLINE;
        loop {
            match OpenOptions::new().write(true).create_new(true).open(&lock) {
                Ok(_) => return Ok(Self { path, lock }),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(file(error)),
                Err(_) if Instant::now() > give_up => return Err(FileError::Locked(lock)),
                Err(_) => sleep(LOCK_PAUSE).await,
            }
        }
    }

    /// Reads it, has `change` change it, and replaces it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Document) -> Result<(), TakenError>) -> Result<(), FileError> {
        let path = || self.path.clone();
        let before = match fs::read(&self.path) {
            Ok(text) => Document::parse(&text).map_err(|source| FileError::Damaged { path: path(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Document::new(),
            Err(source) => return Err(FileError::File { path: path(), source }),
        };
        let mut after = before.clone();
        change(&mut after).map_err(|source| FileError::Taken { path: path(), source })?;
        if after == before {
            return Ok(());
        }
        let text = after.to_yaml();
        // Somebody's access to all clusters is at stake: nothing is replaced by what does not read the same.
        if Document::parse(text.as_bytes()).as_ref() != Ok(&after) {
            return Err(FileError::Unwritable(path()));
        }
        self.replace(&text).map_err(|source| FileError::File { path: path(), source })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        // 0600 as it is made.
        let mut file = NamedTempFile::new_in(folder(&self.path))?;
        file.write_all(text.as_bytes())?;
        if let Ok(before) = fs::metadata(&self.path) {
            // With sudo, a file stays its owner's; without, it is one's own already.
            let _ = chown(file.path(), Some(before.uid()), Some(before.gid()));
            file.as_file().set_permissions(Permissions::from_mode(before.permissions().mode() & 0o777))?;
        }
        file.as_file().sync_all()?;
        file.persist(&self.path).map(drop).map_err(|error| error.error)
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        // One that cannot be removed is reported by the next who wants it.
        let _ = fs::remove_file(&self.lock);
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        let next = match &error {
            FileError::Nowhere => "name a file with --output FILE".to_owned(),
            FileError::Locked(lock) => format!("if none is running, remove it: rm {}", lock.display()),
            FileError::File { .. } => String::new(),
            FileError::Damaged { .. } | FileError::Unwritable(_) => {
                "correct it, or write another file with --output FILE".into()
            }
            FileError::Taken { .. } => {
                "have ours begin otherwise with --prefix PREFIX, or remove that one with 'kubectl config delete-context'"
                    .into()
            }
        };
        Self::new(Exit::Other, error).next(next)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with_context(document: &mut Document) -> Result<(), TakenError> {
        let text = json!({"contexts": [{"name": "a", "context": {}}]}).to_string();
        *document = Document::parse(text.as_bytes()).unwrap();
        Ok(())
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_new_file_is_its_owners_and_an_old_one_keeps_its_mode_and_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".kube/config");
        LockedFile::lock(&path).await.unwrap().change(with_context).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        LockedFile::lock(&link).await.unwrap().change(with_context).unwrap();
        assert_eq!(mode(&path), 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&path).unwrap().contains("name: a"));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a lock or a temporary file is left");
    }

    #[tokio::test]
    async fn what_cannot_be_understood_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        for text in ["a: [", "- list", "kind: Pod", "clusters: 3", "users: [x]", "\u{0}", "a: 1\n---\nb: 2\n"] {
            fs::write(&path, text).unwrap();
            let error = LockedFile::lock(&path).await.unwrap().change(with_context).unwrap_err();
            assert!(matches!(error, FileError::Damaged { .. }), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_of_kubectls_is_waited_for_and_then_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        fs::write(folder.path().join("config.lock"), "").unwrap();
        let line = Failure::from(LockedFile::lock(&path).await.unwrap_err()).line();
        assert!(line.contains("config.lock") && line.contains("rm "), "{line}");
    }
}
