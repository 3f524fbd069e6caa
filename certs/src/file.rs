//! Writing credential files: whole or not at all, and readable by their owner only where they are secret.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
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
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Nothing to add to the error that is reported.
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

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
