//! A backup: the registry at one moment, with the hub's CA, in one text that says whether it is whole.

mod restore;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use self::restore::{RestoreError, Restored, files, restore};
use crate::registry::Registry;
use store::{Entries, OpenError, Revision, Store, Versioned};

/// A backup as it is sent and kept. A secret: it holds the CA's key.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// SHA-256 of the content's text.
    checksum: String,
    content: String,
}

/// What a backup holds. A secret.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Backup {
    format: u32,
    pub made_at: Timestamp,
    /// Of the hub that made it.
    pub version: String,
    /// Files of the state folder, by name.
    pub files: BTreeMap<String, String>,
    revision: Revision,
    entries: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    key: String,
    created: Revision,
    modified: Revision,
    /// In base64.
    value: String,
}

/// Why a text is no backup that can be restored.
#[derive(Debug, Error)]
pub enum BackupError {
    #[error("this is no backup of a hub; name the file that 'cluster-proxy backup' has written")]
    Foreign(#[source] serde_json::Error),
    #[error("the backup is damaged: its checksum is another; use another copy of it")]
    Damaged,
    #[error("the backup was written by a newer version (format {0}); restore it with that version")]
    Newer(u32),
    #[error("the backup holds a value that cannot be read; use another one")]
    Value,
}

const FORMAT: u32 = 1;

/// Revisions after the backup that may have been given out before it was restored: none of them comes again with another
/// meaning, which a write that compares revisions would take for the one it knows.
const LEAP: u64 = 1_000_000;

impl Backup {
    /// The registry at this moment, beside these files.
    pub fn of(registry: &Registry, version: &str, files: BTreeMap<String, String>, now: Timestamp) -> Self {
        let (entries, revision) = registry.store().list("");
        let entry = |(key, stored): (Arc<str>, Versioned<Arc<[u8]>>)| Entry {
            key: key.to_string(),
            created: stored.created,
            modified: stored.modified,
            value: STANDARD.encode(&stored.value),
        };
        let entries = entries.into_iter().map(entry).collect();
        Self { format: FORMAT, made_at: now, version: version.to_owned(), files, revision, entries }
    }

    /// How many clusters it knows.
    pub fn clusters(&self) -> usize {
        self.count("/managedclusters/")
    }

    /// How many users it knows.
    pub fn users(&self) -> usize {
        self.count("/users/")
    }

    fn count(&self, prefix: &str) -> usize {
        self.entries.iter().filter(|entry| entry.key.starts_with(prefix)).count()
    }

    pub fn seal(&self) -> Sealed {
        let content = serde_json::to_string(self).expect("a backup has only string keys");
        Sealed { checksum: checksum(&content), content }
    }

    /// Makes the registry's file `path`, which is not there yet, and reads it as a hub would.
    pub fn restore_registry(&self, path: &Path) -> Result<(), RestoreRegistryError> {
        let mut entries = Entries::new();
        for Entry { key, created, modified, value } in &self.entries {
            let value = STANDARD.decode(value).map_err(|_| RestoreRegistryError::Backup(BackupError::Value))?;
            let stored = Versioned { value: value.into(), created: *created, modified: *modified };
            entries.insert(Arc::from(key.as_str()), stored);
        }
        let revision = self.revision.0.checked_add(LEAP).ok_or(RestoreRegistryError::Backup(BackupError::Value))?;
        let revision = Revision(revision);
        Store::make(path, entries, revision).map_err(RestoreRegistryError::Store)?;
        Registry::open(path).map(drop).map_err(RestoreRegistryError::Store)
    }
}

/// Why the registry of a backup was not made.
#[derive(Debug, Error)]
pub enum RestoreRegistryError {
    #[error(transparent)]
    Backup(BackupError),
    #[error("the registry's file cannot be made")]
    Store(#[source] OpenError),
}

impl Sealed {
    pub fn parse(text: &str) -> Result<Self, BackupError> {
        serde_json::from_str(text).map_err(BackupError::Foreign)
    }

    /// As it is kept in a file.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).expect("two strings are JSON")
    }

    /// What it holds, if it is whole.
    pub fn open(&self) -> Result<Backup, BackupError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        if checksum(&self.content) != self.checksum {
            return Err(BackupError::Damaged);
        }
        match serde_json::from_str(&self.content).map_err(BackupError::Foreign)? {
            Format { format: FORMAT } => serde_json::from_str(&self.content).map_err(BackupError::Foreign),
            Format { format } => Err(BackupError::Newer(format)),
        }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed").field("checksum", &self.checksum).finish_non_exhaustive()
    }
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup")
            .field("made_at", &self.made_at)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

fn checksum(content: &str) -> String {
    use std::fmt::Write as _;

    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(content.as_bytes()) {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use store::Txn;

    use super::*;

    async fn backup() -> (Backup, Vec<(Arc<str>, Versioned<Arc<[u8]>>)>) {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(folder.path().join("registry.redb")).unwrap();
        registry.bootstrap(Timestamp::UNIX_EPOCH).await.unwrap();
        registry.store().commit(Txn::new().put("/rights", Vec::new())).await.unwrap();
        let files = BTreeMap::from([("ca.crt".to_owned(), "certificate".to_owned())]);
        let backup = Backup::of(&registry, "1", files, Timestamp::UNIX_EPOCH);
        (backup, registry.store().list("").0)
    }

    #[tokio::test]
    async fn a_restored_registry_is_the_one_that_was_backed_up_with_revisions_of_its_own() {
        let (backup, entries) = backup().await;
        let opened = Sealed::parse(&backup.seal().to_text()).unwrap().open().unwrap();
        assert_eq!((&opened.files, opened.revision), (&backup.files, backup.revision));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("registry.redb");
        opened.restore_registry(&path).unwrap();
        let registry = Registry::open(&path).unwrap();
        assert_eq!(registry.store().list(""), (entries, Revision(backup.revision.0 + LEAP)));
        let next = registry.store().commit(Txn::new().put("/a", Vec::new())).await.unwrap();
        assert_eq!(next, Revision(backup.revision.0 + LEAP + 1));
        drop(registry);
        assert!(matches!(opened.restore_registry(&path), Err(RestoreRegistryError::Store(_))), "it was replaced");
    }

    #[tokio::test]
    async fn a_backup_that_is_not_whole_is_refused() {
        let text = backup().await.0.seal().to_text();
        assert!(matches!(Sealed::parse(&text[..text.len() / 2]), Err(BackupError::Foreign(_))));
        let other = text.replacen("certificate", "certificatf", 1);
        assert!(matches!(Sealed::parse(&other).unwrap().open(), Err(BackupError::Damaged)));
        let content = r#"{"format":2}"#.to_owned();
        let newer = Sealed { checksum: checksum(&content), content };
        assert!(matches!(newer.open(), Err(BackupError::Newer(2))));
    }
}
