//! The digest of everything in the store's file: tells damage that the storage engine does not look for.

use std::sync::Arc;

use sha2::Sha256;

use super::{Event, Revision, Versioned};

/// A sum of the hashes of all rows. It does not depend on their order, so a commit only adds what comes and subtracts
/// what goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Digest(pub(super) u64);

impl Digest {
    pub(super) fn add_entry(&mut self, key: &str, versioned: &Versioned<Arc<[u8]>>) {
        self.0 = self.0.wrapping_add(entry_hash(key, versioned));
    }

    pub(super) fn remove_entry(&mut self, key: &str, versioned: &Versioned<Arc<[u8]>>) {
        self.0 = self.0.wrapping_sub(entry_hash(key, versioned));
    }

    pub(super) fn add_event(&mut self, revision: Revision, event: &Event) {
        self.0 = self.0.wrapping_add(event_hash(revision, event));
    }

    pub(super) fn remove_event(&mut self, revision: Revision, event: &Event) {
        self.0 = self.0.wrapping_sub(event_hash(revision, event));
    }
}

fn entry_hash(key: &str, versioned: &Versioned<Arc<[u8]>>) -> u64 {
    hash(b'e', Revision::ZERO, key, [Some(versioned), None])
}

fn event_hash(revision: Revision, event: &Event) -> u64 {
    hash(b'l', revision, &event.key, [event.after.as_ref(), event.before.as_ref()])
}

/// 64 bits of SHA-256 over a row, each part with its length: against damage, not against an attacker.
fn hash(table: u8, revision: Revision, key: &str, values: [Option<&Versioned<Arc<[u8]>>>; 2]) -> u64 {
    use sha2::Digest;

    let mut hash = Sha256::new();
    hash.update([table]);
    hash.update(revision.0.to_le_bytes());
    hash.update(length(key.len()));
    hash.update(key);
    for value in values {
        hash.update([u8::from(value.is_some())]);
        if let Some(versioned) = value {
            hash.update(versioned.created.0.to_le_bytes());
            hash.update(versioned.modified.0.to_le_bytes());
            hash.update(length(versioned.value.len()));
            hash.update(&versioned.value);
        }
    }
    let bytes: [u8; 32] = hash.finalize().into();
    u64::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// The same on machines of any word size, so that a file can move between them.
fn length(bytes: usize) -> [u8; 8] {
    (bytes as u64).to_le_bytes()
}
