//! Reset hints: a file that lists the live tunnels, so that a hub that starts after a crash resets them at once.
//!
//! Its agents would otherwise find out by their next keep-alive. The file is a hint and no more: it is not flushed to the
//! disk, a line that cannot be read is passed over, and a reset of a tunnel that is gone is noise to whoever gets it.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tokio::time::MissedTickBehavior;
use tunnel::{Listener, Resettable};

use crate::{
    agents::tunnels::Tunnels,
    agents::{Agents, HANDSHAKES},
    limits::lobby::Lobby,
};

/// The pause after a write, for each tunnel that was written: a tenth of a percent of a core, and 2 s with 10,000 tunnels.
const PAUSE: Duration = Duration::from_micros(200);

/// However few were written: a new file costs 150 us.
const LEAST_PAUSE: Duration = Duration::from_millis(50);

/// How often the file says that the hub is still there.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);

/// Resets in a row, and the least time from one row to the next. The next row leaves only when there is room for the handshakes
/// of those who come back, an agent waits up to 100 ms before it does.
const ROW: usize = 16;
const ROW_INTERVAL: Duration = Duration::from_millis(5);

/// The file in the hub's state folder.
#[derive(Clone, Debug)]
pub(crate) struct ResetHints {
    path: PathBuf,
}

impl ResetHints {
    /// The file in this state folder.
    pub(crate) fn new(state: &Path) -> Self {
        Self { path: state.join("tunnels") }
    }

    /// When the process before this one was there last, if it did not end well. To [`SIGN_OF_LIFE`].
    pub(crate) fn until(&self) -> Option<Timestamp> {
        let modified = fs::metadata(&self.path).and_then(|metadata| metadata.modified());
        modified.ok().and_then(|modified| Timestamp::try_from(modified).ok())
    }

    /// Resets the tunnels of the process before this one, and keeps the file for the one after it.
    pub(crate) async fn serve(self, agents: Arc<Agents>, listener: Arc<Listener>) {
        tokio::join!(reset(self.read(), &listener, &agents.handshakes), self.store(&agents.tunnels));
    }

    /// Forgets the tunnels, which have been told that the hub stops.
    pub(crate) fn clear(&self) {
        // What is left costs a few datagrams at the next start.
        let _ = fs::remove_file(&self.path);
    }

    fn read(&self) -> Vec<Resettable> {
        match fs::read_to_string(&self.path) {
            Ok(text) => text.lines().filter_map(|line| line.parse().ok()).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "cannot read which tunnels were up; agents find out by their keep-alive");
                Vec::new()
            }
        }
    }

    /// Writes the file when a tunnel has come or gone, at once and then after a pause.
    async fn store(&self, tunnels: &Tunnels) {
        loop {
            while tokio::time::timeout(SIGN_OF_LIFE, tunnels.changed()).await.is_err() {
                let path = self.path.clone();
                // Only its time is new. Where there is no file there were no tunnels.
                let touch = move || File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
                let _ = tokio::task::spawn_blocking(touch).await;
            }
            let up = tunnels.resettable();
            let pause = LEAST_PAUSE.max(PAUSE * u32::try_from(up.len()).unwrap_or(u32::MAX));
            let hints = self.clone();
            match tokio::task::spawn_blocking(move || hints.write(&up)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "cannot write which tunnels are up"),
                // The hub is ending.
                Err(_) => return,
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn write(&self, up: &[Resettable]) -> io::Result<()> {
        let mut text = String::new();
        for tunnel in up {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{tunnel}");
        }
        let new = self.path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&new, &self.path)
    }
}

async fn reset(tunnels: Vec<Resettable>, listener: &Listener, handshakes: &Lobby) {
    if tunnels.is_empty() {
        return;
    }
    let mut rows = tokio::time::interval(ROW_INTERVAL);
    rows.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for row in tunnels.chunks(ROW) {
        rows.tick().await;
        while handshakes.crowd() > HANDSHAKES.guests / 2 {
            rows.tick().await;
        }
        for tunnel in row {
            if let Err(error) = listener.reset(tunnel) {
                tracing::debug!(%error, %tunnel, "cannot reset a tunnel of the process before");
            }
        }
    }
    tracing::info!(tunnels = tunnels.len(), "reset the tunnels of the process before, which did not end well");
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_what_is_damaged_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let hints = ResetHints::new(folder.path());
        assert!(hints.read().is_empty());
        let up = ["192.0.2.1:1 00000000000000ff", "[2001:db8::1]:2 0000000000000001"].map(|line| line.parse().unwrap());
        hints.write(&up).unwrap();
        assert_eq!(hints.read(), up);
        let text = fs::read_to_string(&hints.path).unwrap();
        fs::write(&hints.path, format!("{text}192.0.2.1:3 00")).unwrap();
        assert_eq!(hints.read().len(), 3);
        fs::write(&hints.path, format!("garbage\n{text}192.0.2")).unwrap();
        assert_eq!(hints.read(), up);
        assert_eq!(fs::metadata(&hints.path).unwrap().permissions().mode() & 0o777, 0o600);
        hints.clear();
        assert!(hints.read().is_empty());
    }
}
