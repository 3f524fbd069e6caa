//! Stalled readers: connections whose bytes nobody takes.

use std::future::pending;

use anyhow::Result;
use serde_json::json;

use super::Load;
use crate::role;
use crate::service::Ask;

/// Opens the connections, says so, and holds them until the process is killed.
pub(super) async fn run(load: &Load, connections: usize) -> Result<()> {
    let _held = load.open(connections, Ask::Source).await?;
    role::say(&json!({ "stalled": connections }))?;
    pending().await
}
