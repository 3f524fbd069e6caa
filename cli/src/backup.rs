//! `backup` and `restore`: the hub's registry and CA in one file, and back.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use certs::write_secret;
use clap::Args;
use jiff::Timestamp;
use registry::backup::{Backup, BackupError, RestoreError, Sealed, restore};

use crate::{
    api::Api,
    config::hub_state,
    failure::{Exit, Failure},
    output::{note, print},
};

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    cluster-proxy backup hub-$(date +%F).backup\n\n\
    The hub serves on. The file holds the CA's key: who has it is the hub. It is made its owner's alone (0600).")]
pub(crate) struct BackupCommand {
    /// Where the backup goes; a file that is there is not replaced
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    cluster-proxy restore hub-2026-01-31.backup --state /var/lib/cluster-proxy\n\n\
    Run it as the hub's user; no hub may use the folder meanwhile. What is there is set aside. What joined or changed \
    since the backup is not known afterwards: those agents join again.")]
pub(crate) struct Restore {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The hub's state folder [default: that of the hub on this machine]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// In bytes: no backup is larger. That of 10,000 clusters has some 50 MB.
const LARGEST: u64 = 1 << 30;

/// Why a backup was not made or read.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("no state folder is known: neither XDG_STATE_HOME nor HOME is set")]
    NoState,
}

impl BackupCommand {
    pub(crate) async fn run(self, api: &Api) -> Result<(), Failure> {
        let path = self.file;
        if fs::exists(&path).unwrap_or(true) {
            return Err(Failure::new(Exit::Usage, FileError::Exists(path)).next("name another file"));
        }
        let sealed: Sealed = api.post("/v1/backup", &serde_json::json!({})).await?;
        let backup = sealed.open()?;
        let written = write_secret(&path, sealed.to_text());
        written.map_err(|source| Failure::new(Exit::Other, FileError::Write { path: path.clone(), source }))?;
        print(format!("{}: {}", path.display(), summary(&backup)))
    }
}

impl Restore {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let Some(state) = self.state.or_else(hub_state) else {
            return Err(Failure::new(Exit::Usage, FileError::NoState).next("name it with --state DIR"));
        };
        let text = read(&self.file)
            .map_err(|source| Failure::new(Exit::Other, FileError::Read { path: self.file, source }))?;
        let restored = restore(&Sealed::parse(&text)?, &state, Timestamp::now())?;
        for path in &restored.set_aside {
            print(format!("set aside: {}", path.display()))?;
        }
        print(format!("{}: {}", state.display(), summary(&restored.backup)))?;
        if restored.other_ca {
            note(
                "the CA that was there is not in the backup: agents and users who trust that one alone come back with \
                 'cluster-proxy join-command CLUSTER' and 'cluster-proxy user renew NAME'",
            );
        }
        Ok(())
    }
}

fn read(file: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(file)?.take(LARGEST + 1).read_to_string(&mut text)? as u64;
    if read > LARGEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

fn summary(backup: &Backup) -> String {
    let (clusters, users) = (backup.clusters(), backup.users());
    format!("{clusters} clusters and {users} users, as of {}", backup.made_at.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        Self::new(Exit::Other, error)
    }
}

impl From<RestoreError> for Failure {
    fn from(error: RestoreError) -> Self {
        Self::new(Exit::Other, error)
    }
}
