//! Which sockets a hub's ports have, told to the hub that follows it: that one binds its own beside them.
//!
//! It is in `ports` until a hub serves beside them, and then in `ports.taken`: should that one die, the next binds beside them again.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tunnel::Share;

use crate::hub::succession::LOOK;

/// What is in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Each TCP port and its listeners.
    pub(crate) tcp: Vec<(SocketAddr, u16)>,
    /// The agents' port.
    pub(crate) tunnel: SocketAddr,
    pub(crate) share: Share,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    tcp: Vec<(SocketAddr, u16)>,
    tunnel: SocketAddr,
    first: u16,
    workers: u8,
    sockets: u16,
    generation: u8,
}

impl Layout {
    /// How many listeners `address` has.
    pub(crate) fn listeners(&self, address: SocketAddr) -> Option<u16> {
        self.tcp.iter().find(|(bound, _)| *bound == address).map(|(_, count)| *count)
    }

    /// What the hub before has left; `None` where there is nothing, or nothing that can be read.
    pub(crate) fn read(folder: &Path) -> Option<Self> {
        let left = fs::read(path(folder)).or_else(|_| fs::read(taken(folder))).ok()?;
        let File { tcp, tunnel, first, workers, sockets, generation } = serde_json::from_slice(&left).ok()?;
        (workers > 0 && generation < 2).then_some(Self {
            tcp,
            tunnel,
            share: Share { first, workers, sockets, generation },
        })
    }

    /// Takes it away: the hub that has it serves, or there is none to follow.
    pub(crate) fn take_away(folder: &Path) -> io::Result<()> {
        match fs::rename(path(folder), taken(folder)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Resolves when a hub that serves has taken it away.
    pub(crate) async fn taken(folder: &Path) {
        while path(folder).exists() {
            sleep(LOOK).await;
        }
    }

    /// Leaves it for the next hub.
    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        let Self { tcp, tunnel, share: Share { first, workers, sockets, generation } } = self.clone();
        let text = serde_json::to_vec(&File { tcp, tunnel, first, workers, sockets, generation })?;
        certs::write_secret(&path(folder), text)
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join("ports")
}

fn taken(folder: &Path) -> PathBuf {
    folder.join("ports.taken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_is_read_and_garbage_is_not() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Layout::read(folder.path()), None);
        let address = "127.0.0.1:1".parse().unwrap();
        let share = Share { first: 2, workers: 3, sockets: 5, generation: 1 };
        let layout = Layout { tcp: vec![(address, 2)], tunnel: address, share };
        layout.write(folder.path()).unwrap();
        assert_eq!(Layout::read(folder.path()), Some(layout.clone()));
        assert_eq!((layout.listeners(address), layout.listeners("127.0.0.1:2".parse().unwrap())), (Some(2), None));
        fs::write(path(folder.path()), "{}").unwrap();
        assert_eq!(Layout::read(folder.path()), None);
    }
}
