//! Restoring a backup into a state folder: checked whole before anything is put in the place of what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use certs::{Authority, AuthorityError, give_to_owner};
use jiff::Timestamp;
use thiserror::Error;

use super::{Backup, BackupError, RestoreRegistryError, Sealed};
use store::{OpenError, check_unused};

/// Why a backup was not restored. The state folder is as it was.
#[derive(Debug, Error)]
pub enum RestoreError {
    #[error(transparent)]
    Backup(BackupError),
    #[error("{0} is in use by a hub; stop that one first, or name another folder with --state")]
    InUse(PathBuf),
    #[error("the backup's registry cannot be restored")]
    Registry(#[source] RestoreRegistryError),
    #[error("the backup's CA cannot be used; use another backup")]
    Authority(#[source] AuthorityError),
    #[error("the backup names a file {0:?} that is no hub's; use another one")]
    Name(String),
    #[error("the backup holds no CA, and no agent and no user would know a hub with a new one; use another backup")]
    NoAuthority,
    #[error("cannot write {path}; check its permissions and the disk's free space, then restore again")]
    File { path: PathBuf, source: io::Error },
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    pub backup: Backup,
    /// Where what was there before is now.
    pub set_aside: Vec<PathBuf>,
    /// The CA that was there is not in the backup: it is of before a rotation, or of another hub.
    pub other_ca: bool,
}

const REGISTRY: &str = "registry.redb";

/// The files of `folder` that belong into a backup: those of the CA.
pub fn files(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if let Some(name) = name.to_str().filter(|name| is_of_ca(name)) {
            files.insert(name.to_owned(), fs::read_to_string(folder.join(name))?);
        }
    }
    Ok(files)
}

/// Restores a backup into `folder`, which no hub may use. What is there is set aside and not lost.
pub fn restore(sealed: &Sealed, folder: &Path, now: Timestamp) -> Result<Restored, RestoreError> {
    let backup = sealed.open().map_err(RestoreError::Backup)?;
    if let Some(name) = backup.files.keys().find(|name| !is_of_ca(name)) {
        return Err(RestoreError::Name(name.clone()));
    }
    if !["ca.crt", "ca.key"].iter().all(|name| backup.files.contains_key(*name)) {
        return Err(RestoreError::NoAuthority);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::File { path, source }
    };
    let make = |path: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path));
    make(folder)?;
    let _in_use = claim(folder)?;
    // On the same disk, so that moving from it is all or nothing for each file.
    let staging = folder.join("restoring");
    match fs::remove_dir_all(&staging) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&staging)(error)),
        Ok(()) | Err(_) => make(&staging)?,
    }
    let _staged = Staged(&staging);
    for (name, text) in &backup.files {
        write(&staging.join(name), text).map_err(failed(&staging.join(name)))?;
    }
    backup.restore_registry(&staging.join(REGISTRY)).map_err(RestoreError::Registry)?;
    let restored = Authority::load_or_create(&staging).map_err(RestoreError::Authority)?;
    // One that is damaged says nothing.
    let replaced = fs::exists(folder.join("ca.key")).unwrap_or(false).then(|| Authority::load_or_create(folder));
    let other_ca = replaced.and_then(Result::ok).is_some_and(|ca| restored.pins().all(|(pin, _)| pin != ca.newest()));
    let mut set_aside = Vec::new();
    // Those that are no part of the backup are of another state of the CA: they would say that it is retired.
    let present: BTreeSet<String> = files(folder).map_err(failed(folder))?.into_keys().collect();
    let mut names: BTreeSet<&str> = present.iter().map(String::as_str).collect();
    names.extend(backup.files.keys().map(String::as_str).chain([REGISTRY]));
    for name in names {
        let (new, place) = (staging.join(name), folder.join(name));
        let aside = folder.join(format!("{name}.before-{}", now.as_second()));
        match fs::rename(&place, &aside) {
            Ok(()) => set_aside.push(aside),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&place)(error)),
        }
        if name != REGISTRY && !backup.files.contains_key(name) {
            continue;
        }
        // The hub does not run as root, who restores it.
        File::open(&new).and_then(|file| give_to_owner(&file, folder)).map_err(failed(&new))?;
        fs::rename(&new, &place).map_err(failed(&place))?;
    }
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))?;
    Ok(Restored { backup, set_aside, other_ca })
}

/// A folder that goes whatever becomes of the restoring: in its files are keys.
struct Staged<'a>(&'a Path);

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // The next restoring begins with that.
        let _ = fs::remove_dir_all(self.0);
    }
}

/// The files of the CA, however many roots it has.
fn is_of_ca(name: &str) -> bool {
    let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
    let named = stem == "ca" || stem.strip_prefix("ca.").is_some_and(|rest| !rest.contains(['/', '.']));
    named && matches!(extension, "crt" | "key")
}

/// Keeps hubs out: one with its registry in a file holds a lock beside that, any other one of the folder.
fn claim(folder: &Path) -> Result<File, RestoreError> {
    match check_unused(&folder.join(REGISTRY)) {
        Err(OpenError::InUse { .. }) => return Err(RestoreError::InUse(folder.to_owned())),
        Err(error) => return Err(RestoreError::Registry(RestoreRegistryError::Store(error))),
        Ok(()) => {}
    }
    let path = folder.join("in-use");
    let opened = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let opened = opened.and_then(|file| give_to_owner(&file, folder).map(|()| file));
    let locked = opened.map_err(TryLockError::Error).and_then(|file| file.try_lock().map(|()| file));
    locked.map_err(|error| match error {
        TryLockError::WouldBlock => RestoreError::InUse(folder.to_owned()),
        TryLockError::Error(source) => RestoreError::File { path, source },
    })
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use certs::Step;

    use super::*;
    use crate::registry::Registry;
    use store::Revision;

    async fn backed_up() -> (tempfile::TempDir, Sealed) {
        let folder = tempfile::tempdir().unwrap();
        Authority::load_or_create(folder.path()).unwrap();
        let registry = Registry::open(folder.path().join(REGISTRY)).unwrap();
        registry.bootstrap(Timestamp::UNIX_EPOCH).await.unwrap();
        let sealed = Backup::of(&registry, "1", files(folder.path()).unwrap(), Timestamp::UNIX_EPOCH).seal();
        (folder, sealed)
    }

    #[tokio::test]
    async fn a_backup_is_restored_beside_what_was_there() {
        let (lost, sealed) = backed_up().await;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(REGISTRY), "damaged").unwrap();
        let restored = restore(&sealed, folder.path(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(restored.set_aside, [folder.path().join("registry.redb.before-0")]);
        assert_eq!(fs::read(&restored.set_aside[0]).unwrap(), b"damaged");
        let [before, after] = [&lost, &folder].map(|folder| Authority::load_or_create(folder.path()).unwrap().pin());
        assert_eq!(before, after);
        assert!(!Registry::open(folder.path().join(REGISTRY)).unwrap().is_new());
    }

    #[tokio::test]
    async fn a_backup_of_before_a_rotation_brings_all_of_its_ca_back_and_says_so() {
        let (hub, sealed) = backed_up().await;
        let before = Authority::load_or_create(hub.path()).unwrap().pin();
        assert!(!restore(&sealed, hub.path(), Timestamp::UNIX_EPOCH).unwrap().other_ca);
        for step in [Step::Begin, Step::Sign, Step::Finish] {
            Authority::step(hub.path(), step).unwrap();
        }
        assert_ne!(Authority::load_or_create(hub.path()).unwrap().pin(), before);
        let restored = restore(&sealed, hub.path(), Timestamp::UNIX_EPOCH).unwrap();
        assert!(restored.other_ca);
        let again = Authority::load_or_create(hub.path()).unwrap();
        assert_eq!((again.pin(), again.retired().count()), (before, 0), "it is retired: {:?}", restored.set_aside);
    }

    #[tokio::test]
    async fn a_folder_in_use_is_left_alone() {
        let (used, sealed) = backed_up().await;
        let registry = Registry::open(used.path().join(REGISTRY)).unwrap();
        let error = restore(&sealed, used.path(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, RestoreError::InUse(_)), "{error}");
        drop(registry);
        let _lock = claim(used.path()).unwrap();
        let error = restore(&sealed, used.path(), Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(matches!(error, RestoreError::InUse(_)), "{error}");
    }

    #[tokio::test]
    async fn a_backup_that_no_hub_has_made_changes_nothing_and_leaves_nothing() {
        let (_hub, sealed) = backed_up().await;
        let none = Backup { files: BTreeMap::new(), ..sealed.open().unwrap() };
        let late = Backup { revision: Revision(u64::MAX), ..sealed.open().unwrap() };
        for backup in [none, late] {
            let folder = tempfile::tempdir().unwrap();
            restore(&backup.seal(), folder.path(), Timestamp::UNIX_EPOCH).unwrap_err();
            let left = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
            assert!(
                left.into_iter()
                    .all(|name| !name.to_string_lossy().starts_with("restor") && !is_of_ca(&name.to_string_lossy()))
            );
        }
    }

    #[test]
    fn only_files_of_the_ca_have_a_place() {
        for name in ["ca.crt", "ca.key", "ca.next.key", "ca.old.crt"] {
            assert!(is_of_ca(name), "{name}");
        }
        for name in ["ca", "ca.", "../ca.key", "ca./x.key", "ca.a.b.key", "admin/token", "tls.key", "", ".key"] {
            assert!(!is_of_ca(name), "{name}");
        }
    }
}
