//! Bulk: bytes per stream over a span.

use std::cell::Cell;
use std::rc::Rc;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{JoinSet, LocalSet};

use super::{Edge, Load, Spent};
use crate::route::Connection;
use crate::service::{Ask, CHUNK, Turns};

/// Bytes of one GiB.
const GIB: f64 = (1_u64 << 30) as f64;

/// Which way the bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// From the service to the clients.
    Download,
    /// From the clients to the service. Counted where they are written: after the warm-up every buffer on the way is full.
    Upload,
}

/// What the streams carried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transfer {
    /// What it took.
    pub spent: Spent,
    /// Bytes of each stream.
    pub streams: Vec<u64>,
}

impl Transfer {
    /// Of all streams together.
    pub fn gbit_per_second(&self) -> f64 {
        self.bytes() * 8.0 / self.spent.seconds / 1e9
    }

    /// CPU seconds of all processes that count, per GiB delivered.
    pub fn cpu_per_gib(&self) -> f64 {
        self.spent.cpu / (self.bytes() / GIB)
    }

    /// The slowest stream as a part of the median stream.
    pub fn slowest_of_median(&self) -> f64 {
        let mut sorted = self.streams.clone();
        sorted.sort_unstable();
        match (sorted.first(), sorted.get(sorted.len() / 2)) {
            (Some(slowest), Some(median)) if *median > 0 => *slowest as f64 / *median as f64,
            _ => 0.0,
        }
    }

    fn bytes(&self) -> f64 {
        self.streams.iter().sum::<u64>() as f64
    }
}

/// Opens the streams, lets them run, and counts.
pub(super) async fn run(load: &Load, streams: usize, direction: Direction) -> Result<Transfer> {
    let ask = match direction {
        Direction::Download => Ask::Source,
        Direction::Upload => Ask::Sink,
    };
    let (local, mut pumps) = (LocalSet::new(), JoinSet::new());
    let mut counts = Vec::new();
    for stream in load.open(streams, ask).await? {
        let count = Rc::new(Cell::new(0));
        counts.push(Rc::clone(&count));
        pumps.spawn_local_on(pump(stream, direction, count), &local);
    }
    let counted = || counts.iter().map(|count| count.get()).collect::<Vec<u64>>();
    let (mut begun, mut ended) = (Vec::new(), Vec::new());
    let measured = load.measure(|edge| match edge {
        Edge::Begin => begun = counted(),
        Edge::End => ended = counted(),
    });
    let spent = local
        .run_until(async {
            tokio::select! {
                spent = measured => spent,
                Some(ended) = pumps.join_next() => match ended? {
                    Ok(()) => bail!("a stream ended before its time"),
                    Err(error) => Err(error.context("a stream broke before its time")),
                },
            }
        })
        .await?;
    let streams = ended.iter().zip(&begun).map(|(ended, begun)| ended - begun).collect();
    Ok(Transfer { spent, streams })
}

pub(super) async fn pump(mut stream: Connection, direction: Direction, count: Rc<Cell<u64>>) -> Result<()> {
    let (mut chunk, mut turns) = (vec![0; CHUNK], Turns::default());
    loop {
        let moved = match direction {
            Direction::Download => stream.read(&mut chunk).await?,
            Direction::Upload => stream.write(&chunk).await?,
        };
        if moved == 0 {
            return Ok(());
        }
        count.set(count.get() + moved as u64);
        turns.pass().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_is_told_as_rate_cost_and_fairness() {
        let transfer = Transfer { spent: Spent { seconds: 2.0, cpu: 3.0 }, streams: vec![1 << 29, 1 << 30, 1 << 30] };
        assert!((transfer.gbit_per_second() - 2.5 * GIB * 8.0 / 2.0 / 1e9).abs() < 1e-9);
        assert!((transfer.cpu_per_gib() - 1.2).abs() < 1e-9);
        assert!((transfer.slowest_of_median() - 0.5).abs() < 1e-9);
    }
}
