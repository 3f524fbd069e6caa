//! The role of clients that open connections and then neither send nor read.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tests::{Process, allow_open_files};

use crate::fleet_agents::OTHER_FILES;
use crate::place::Place;
use crate::role::{self, Role};
use crate::route::{Dialer, Route};

/// Dials at a time.
const TOGETHER: usize = 32;

/// How long ten thousand dials may take on a loaded machine.
const OPENED: Duration = Duration::from_secs(180);

/// The role: connections over each of `routes` in turns.
#[derive(Debug, Serialize, Deserialize)]
pub struct Idlers {
    /// The ways in.
    pub routes: Vec<Route>,
    /// How many in all.
    pub connections: usize,
}

/// What the role says when all are open.
#[derive(Debug, Serialize, Deserialize)]
struct Opened {
    connections: usize,
}

impl Idlers {
    /// Starts them, and waits until all connections are open. They end with the process.
    pub async fn start(self) -> Result<Process> {
        let process = Role::Idlers(self).program(&Place::loopback())?.spawn()?;
        process.stdout_json(OPENED).await.context("idle connections cannot be opened")?;
        Ok(process)
    }

    /// Plays the role until it is killed.
    pub async fn run(self) -> Result<()> {
        allow_open_files(self.connections as u64 + OTHER_FILES)?;
        let dialers: Vec<Dialer> = self.routes.iter().map(Dialer::new).collect();
        let dials = (0..self.connections).map(|index| dialers[index % dialers.len()].dial());
        let open: Vec<_> = stream::iter(dials).buffer_unordered(TOGETHER).try_collect().await?;
        role::say(&Opened { connections: open.len() })?;
        std::future::pending().await
    }
}
