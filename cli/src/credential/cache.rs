//! The certificate that is kept between two runs, for the time that it is good.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::Duration,
};

use certs::write_secret;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::AHEAD;
use crate::credentials::Located;

/// How long another process may ask the hub. After that each asks for itself, which does no harm.
const LOCK_DEADLINE: Duration = Duration::from_secs(15);
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Where it is kept: files in the folder of the user's credentials.
#[derive(Debug)]
pub(super) struct Cache {
    file: PathBuf,
    lock: PathBuf,
    /// The long-lived certificate: what was got with another one is another user's, or another hub's.
    issued_for: String,
}

/// A short-lived certificate with its key.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) issued_for: String,
    pub(super) issued_at: Timestamp,
    pub(super) not_after: Timestamp,
    pub(super) certificate_chain_pem: String,
    pub(super) key_pem: SecretString,
}

impl Cache {
    pub(super) fn of(located: &Located) -> Self {
        let file = |name| located.folder.join(name);
        Self {
            file: file("short-lived.json"),
            lock: file("short-lived.lock"),
            issued_for: located.credentials.chain_pem.clone(),
        }
    }

    /// What is kept; nothing, if it is not to be understood.
    pub(super) fn read(&self) -> Option<Kept> {
        let read: Value = serde_json::from_slice(&fs::read(&self.file).ok()?).ok()?;
        let text = |field: &str| read[field].as_str().map(str::to_owned);
        let kept = Kept {
            issued_for: text("issuedFor")?,
            issued_at: text("issuedAt")?.parse().ok()?,
            not_after: text("notAfter")?.parse().ok()?,
            certificate_chain_pem: text("certificateChainPem")?,
            key_pem: text("keyPem")?.into(),
        };
        (kept.issued_for == self.issued_for).then_some(kept)
    }

    /// Replaces it whole: a reader sees the old one or the new.
    pub(super) fn write(&self, kept: &Kept) -> io::Result<()> {
        let json = json!({
            "issuedFor": kept.issued_for,
            "issuedAt": kept.issued_at,
            "notAfter": kept.not_after,
            "certificateChainPem": kept.certificate_chain_pem,
            "keyPem": kept.key_pem.expose_secret(),
        });
        write_secret(&self.file, json.to_string())
    }

    pub(super) fn remove(&self) {
        // One that cannot be removed is of no use: the hub does not take it.
        let _ = fs::remove_file(&self.file);
    }

    /// Waits until no other process asks the hub, but not for ever. Dropping the file, or the process' end, unlocks.
    pub(super) async fn lock(&self) -> Option<File> {
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.lock).ok()?;
        let give_up = Instant::now() + LOCK_DEADLINE;
        loop {
            match file.try_lock() {
                Ok(()) => return Some(file),
                Err(TryLockError::WouldBlock) if Instant::now() < give_up => sleep(LOCK_PAUSE).await,
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
            }
        }
    }
}

impl Kept {
    /// When it is to be exchanged.
    pub(super) fn fresh_until(&self) -> Timestamp {
        let life = Duration::try_from(self.not_after.duration_since(self.issued_at)).unwrap_or_default();
        self.not_after.saturating_sub(AHEAD.min(life / 2)).unwrap_or(self.issued_at)
    }

    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now < self.fresh_until()
    }

    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        now < self.not_after
    }
}
