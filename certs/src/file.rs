//! Writing credential files: whole or not at all, and readable by their owner only where they are secret.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

/// Writes a file that only its owner may read (0600).
pub fn write_secret(path: &Path, contents: impl AsRef<[u8]>) -> io::Result<()> {
    write(path, contents.as_ref(), 0o600)
}

/// Writes a file that everyone may read (0644).
pub fn write_public(path: &Path, contents: impl AsRef<[u8]>) -> io::Result<()> {
    write(path, contents.as_ref(), 0o644)
}

/// Takes a secret file from everybody but its owner: a copy or a backup may have come back open to all. An error where
/// others may read it and that cannot be changed.
pub fn guard_secret(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7700)) {
        Ok(()) => {
            let (path, before) = (path.display(), format!("{:o}", mode & 0o777));
            tracing::warn!(%path, before, "others could read a secret; only its owner may now");
            Ok(())
        }
        // Its group is who may read it, as in volumes that belong to a group.
        Err(_) if mode & 0o007 == 0 => Ok(()),
        Err(_) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("others may read it (mode {:o}); its owner runs 'chmod 600' on it", mode & 0o777),
        )),
    }
}

/// Takes a folder of secrets from everybody but its owner and group; where that cannot be, as of a volume's, it warns.
pub fn guard_folder(path: &Path) -> io::Result<()> {
    const STICKY: u32 = 0o1000;
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o002 == 0 {
        return Ok(());
    }
    let closed = fs::Permissions::from_mode(mode & 0o7775);
    // One with the sticky bit is for everybody, and named by mistake.
    let guarded = mode & STICKY == 0 && fs::set_permissions(path, closed).is_ok();
    let (path, before) = (path.display(), format!("{:o}", mode & 0o7777));
    match guarded {
        true => {
            tracing::warn!(%path, before, "everybody could put files into a folder of secrets; nobody else may now")
        }
        false => tracing::warn!(%path, before, "everybody may put files into a folder of secrets; use one of your own"),
    }
    Ok(())
}

/// A reader sees the old contents or the new; so does the next start after a crash.
fn write(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    // A name of its own: two writers of one path, or what a crash left behind, must not meet.
    let mut unique = [0; 8];
    aws_lc_rs::rand::fill(&mut unique).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let temporary = folder.join(format!(".{}.{:016x}", name.to_string_lossy(), u64::from_ne_bytes(unique)));
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The umask has narrowed the mode; this says exactly what is meant.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        give_to_owner(&file, folder)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Nothing to add to the error that is reported.
        let _ = fs::remove_file(&temporary);
    }
    written
}

/// What root writes into a folder of somebody else is for them to read.
pub fn give_to_owner(file: &File, folder: &Path) -> io::Result<()> {
    let (owner, own) = (fs::metadata(folder)?, file.metadata()?);
    if own.uid() == 0 && owner.uid() != 0 {
        fchown(file, Some(owner.uid()), Some(owner.gid()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_root_writes_into_anothers_folder_is_theirs() {
        const NOBODY: u32 = 65534;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        // Only root can give anything away.
        let owner = match std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)) {
            Ok(()) => NOBODY,
            Err(_) => fs::metadata(folder.path()).unwrap().uid(),
        };
        write_secret(&path, "secret").unwrap();
        let written = fs::metadata(&path).unwrap();
        assert_eq!((written.uid(), written.mode() & 0o777), (owner, 0o600));
    }

    #[test]
    fn a_secret_is_its_owners_also_when_it_replaces_a_public_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        write_public(&path, "public").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        write_secret(&path, "secret").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(&path).unwrap(), "secret");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_secret_that_others_may_read_is_taken_from_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        for (found, then) in [(0o644, 0o600), (0o660, 0o600), (0o400, 0o400), (0o600, 0o600)] {
            write_secret(&path, "secret").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(found)).unwrap();
            guard_secret(&path).unwrap();
            assert_eq!(mode(), then);
        }
        assert_eq!(guard_secret(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_folder_that_everybody_may_write_to_is_taken_from_them() {
        let folder = tempfile::tempdir().unwrap();
        let mode = || fs::metadata(folder.path()).unwrap().permissions().mode() & 0o7777;
        for (found, then) in [(0o700, 0o700), (0o755, 0o755), (0o770, 0o770), (0o777, 0o775), (0o1777, 0o1777)] {
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(found)).unwrap();
            guard_folder(folder.path()).unwrap();
            assert_eq!(mode(), then, "{found:o}");
        }
    }

    #[test]
    fn a_failed_write_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("key")).unwrap();
        write_secret(&folder.path().join("key"), "secret").unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn writers_of_one_path_leave_one_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::thread::scope(|scope| {
            for byte in b'a'..b'i' {
                let path = &path;
                scope.spawn(move || write_secret(path, [byte; 4096]).unwrap());
            }
        });
        let contents = fs::read(&path).unwrap();
        assert!(contents.len() == 4096 && contents.iter().all(|byte| *byte == contents[0]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn paths_that_name_no_file_are_errors() {
        for path in ["/", "", "/nonexistent/folder/key"] {
            write_secret(Path::new(path), "secret").unwrap_err();
        }
    }
}
