//! Requests of 64 bytes with answers of 64 bytes, on standing connections and on fresh ones.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use anyhow::{Result, bail};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::{JoinSet, LocalSet};

use super::{Edge, Load, Spent};
use crate::route::{Connection, Dialer};
use crate::service::Ask;

/// A request, and an answer.
const MESSAGE: usize = 64;

/// What the clients had answered. One operation is one request, with its connection where that is fresh.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exchanges {
    /// What it took.
    pub spent: Spent,
    /// Operations that ended within the span.
    pub operations: u64,
    /// Half of them took at most this long, in microseconds.
    pub p50: f64,
    /// 99 of 100 of them took at most this long, in microseconds.
    pub p99: f64,
}

impl Exchanges {
    /// Operations a second.
    pub fn rate(&self) -> f64 {
        self.operations as f64 / self.spent.seconds
    }

    /// CPU microseconds of all processes that count, per operation.
    pub fn cpu_per_operation(&self) -> f64 {
        self.spent.cpu * 1e6 / self.operations as f64
    }
}

/// Where the clients note what they had answered while it is measured.
#[derive(Debug)]
struct Notes {
    measuring: Cell<bool>,
    /// Nanoseconds.
    times: RefCell<Histogram<u64>>,
}

/// Each connection asks again as soon as it is answered.
pub(super) async fn standing(load: &Load, connections: usize) -> Result<Exchanges> {
    let notes = Rc::new(Notes::new()?);
    let clients = load.open(connections, Ask::Echo).await?;
    run(load, &notes, clients.into_iter().map(|stream| ask_again(stream, Rc::clone(&notes)))).await
}

/// Each worker opens a connection for each request, which goes with the first bytes after the connection is there.
pub(super) async fn fresh(load: &Load, workers: usize) -> Result<Exchanges> {
    let notes = Rc::new(Notes::new()?);
    let dialer = Rc::new(Dialer::new(&load.route));
    run(load, &notes, (0..workers).map(|_| ask_once_each(Rc::clone(&dialer), Rc::clone(&notes)))).await
}

async fn ask_again(mut stream: Connection, notes: Rc<Notes>) -> Result<()> {
    loop {
        let begin = Instant::now();
        stream.write_all(&[0x5a; MESSAGE]).await?;
        stream.read_exact(&mut [0; MESSAGE]).await?;
        notes.take(begin);
    }
}

async fn ask_once_each(dialer: Rc<Dialer>, notes: Rc<Notes>) -> Result<()> {
    let first = [Ask::Echo.line().as_bytes(), &[0x5a; MESSAGE]].concat();
    loop {
        let begin = Instant::now();
        let mut stream = dialer.dial().await?;
        stream.write_all(&first).await?;
        stream.read_exact(&mut [0; MESSAGE]).await?;
        drop(stream);
        notes.take(begin);
    }
}

/// Lets the clients run beside each other, and notes what ends within the span.
async fn run<F>(load: &Load, notes: &Notes, clients: impl Iterator<Item = F>) -> Result<Exchanges>
where
    F: Future<Output = Result<()>> + 'static,
{
    let (local, mut running) = (LocalSet::new(), JoinSet::new());
    for client in clients {
        running.spawn_local_on(client, &local);
    }
    let measured = load.measure(|edge| notes.measuring.set(edge == Edge::Begin));
    let spent = local
        .run_until(async {
            tokio::select! {
                spent = measured => spent,
                Some(ended) = running.join_next() => match ended? {
                    Ok(()) => bail!("a client ended before its time"),
                    Err(error) => Err(error.context("a client failed before its time")),
                },
            }
        })
        .await?;
    let times = notes.times.borrow();
    // Where nothing was answered, every request took at least the whole span.
    let microseconds = |quantile| match times.is_empty() {
        true => spent.seconds * 1e6,
        false => times.value_at_quantile(quantile) as f64 / 1e3,
    };
    Ok(Exchanges { spent, operations: times.len(), p50: microseconds(0.5), p99: microseconds(0.99) })
}

impl Notes {
    /// Times from 1 us to a minute, to three digits.
    fn new() -> Result<Self> {
        let times = Histogram::new_with_bounds(1_000, 60_000_000_000, 3)?;
        Ok(Self { measuring: Cell::new(false), times: RefCell::new(times) })
    }

    fn take(&self, begin: Instant) {
        if self.measuring.get() {
            let nanoseconds = u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.times.borrow_mut().saturating_record(nanoseconds);
        }
    }
}
