//! The load: the clients of one path in one process, which measures itself and the CPU of the others for one span.

mod beside;
mod bulk;
mod requests;
mod stall;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use crate::cpu;
use crate::role;
use crate::route::{Connection, Dialer, Route};
use crate::service::Ask;

pub use beside::Beside;
pub use bulk::{Direction, Transfer};
pub use requests::Exchanges;

/// The role: what to do, over which route, for how long.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Load {
    /// The way to the service.
    pub route: Route,
    /// What the clients do.
    pub work: Work,
    /// How long it is measured.
    pub span: Span,
    /// The processes whose CPU seconds count, beside the load's own.
    pub counted: Vec<i32>,
}

/// What the clients do until the span is over.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Work {
    /// Each of `streams` connections carries what it can in one direction. Gives a [`Transfer`].
    Bulk { streams: usize, direction: Direction },
    /// 64 bytes there and 64 bytes back, again and again on each of `connections` standing connections. Gives [`Exchanges`].
    Requests { connections: usize },
    /// Each of `workers` opens a connection, has 64 bytes answered and closes it, again and again. Gives [`Exchanges`].
    Connections { workers: usize },
    /// A request of 64 bytes each 20 ms on one connection, beside `downloads` that carry what they can. Gives [`Beside`].
    Beside { downloads: usize },
    /// `connections` ask for all the bytes there are and read none. Says so when all have asked and then stays; gives nothing.
    Stall { connections: usize },
}

/// A warm-up whose figures are thrown away, and what is measured after it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Span {
    /// Begins when all connections are open.
    pub warm_up: Duration,
    /// What counts.
    pub measured: Duration,
}

/// What a span really took.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Spent {
    /// Seconds on the clock.
    pub seconds: f64,
    /// CPU seconds of all that count, the load included.
    pub cpu: f64,
}

impl Load {
    /// Plays the role: prints the figures as one line of JSON.
    pub async fn run(self) -> Result<()> {
        match self.work {
            Work::Bulk { streams, direction } => role::say(&bulk::run(&self, streams, direction).await?),
            Work::Requests { connections } => role::say(&requests::standing(&self, connections).await?),
            Work::Connections { workers } => role::say(&requests::fresh(&self, workers).await?),
            Work::Beside { downloads } => role::say(&beside::run(&self, downloads).await?),
            Work::Stall { connections } => stall::run(&self, connections).await,
        }
    }

    /// Connections that have asked for `ask`, opened eight at a time.
    async fn open(&self, count: usize, ask: Ask) -> Result<Vec<Connection>> {
        use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
        let dialer = Dialer::new(&self.route);
        let dials = (0..count).map(async |_| {
            let mut stream = dialer.dial().await?;
            stream.write_all(ask.line().as_bytes()).await?;
            Ok(stream)
        });
        iter(dials).buffer_unordered(8).try_collect().await
    }

    /// Lets the warm-up pass, calls `edge` at both ends of what is measured, and says what it took.
    async fn measure(&self, mut edge: impl FnMut(Edge)) -> Result<Spent> {
        let pids = [self.counted.as_slice(), &[cpu::own_pid()]].concat();
        sleep(self.span.warm_up).await;
        let (cpu, begin) = (cpu::seconds(&pids)?, Instant::now());
        edge(Edge::Begin);
        sleep(self.span.measured).await;
        edge(Edge::End);
        let seconds = begin.elapsed().as_secs_f64();
        Ok(Spent { seconds, cpu: cpu::seconds(&pids).context("a process ended under load")? - cpu })
    }
}

/// The two ends of a measured span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Edge {
    Begin,
    End,
}

impl Span {
    /// Both together.
    pub fn total(&self) -> Duration {
        self.warm_up + self.measured
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use ::tests::Service;

    use super::*;
    use crate::service::serve;

    async fn service() -> Result<Service> {
        Ok(Service::start(|stream| async { serve(stream).await.map_err(io::Error::other) }).await?)
    }

    fn load(service: &Service, work: Work) -> Load {
        let span = Span { warm_up: Duration::ZERO, measured: Duration::from_millis(50) };
        Load { route: Route::Tcp(service.address().to_string()), work, span, counted: Vec::new() }
    }

    #[tokio::test]
    async fn every_stream_carries_bytes_in_either_direction() -> Result<()> {
        let service = service().await?;
        for direction in [Direction::Download, Direction::Upload] {
            let load = load(&service, Work::Bulk { streams: 3, direction });
            let transfer = bulk::run(&load, 3, direction).await?;
            assert_eq!(transfer.streams.len(), 3);
            assert!(transfer.streams.iter().all(|bytes| *bytes > 0), "{transfer:?}");
            assert!(transfer.spent.seconds >= 0.05 && transfer.spent.cpu >= 0.0, "{transfer:?}");
        }
        Ok(())
    }

    #[tokio::test]
    async fn requests_stay_on_their_connections_or_bring_their_own() -> Result<()> {
        let service = service().await?;
        let standing = load(&service, Work::Requests { connections: 3 });
        let exchanges = requests::standing(&standing, 3).await?;
        assert!(exchanges.operations > 3 && exchanges.p50 <= exchanges.p99, "{exchanges:?}");
        assert_eq!(service.accepted(), 3);
        let fresh = load(&service, Work::Connections { workers: 2 });
        let exchanges = requests::fresh(&fresh, 2).await?;
        assert!(service.accepted() as u64 >= 3 + exchanges.operations, "{exchanges:?}");
        Ok(())
    }

    #[tokio::test]
    async fn a_service_that_breaks_off_makes_the_load_fail_and_not_its_figures_wrong() -> Result<()> {
        let service = Service::start(async |_| Ok(())).await?;
        let (streams, direction) = (1, Direction::Download);
        assert!(bulk::run(&load(&service, Work::Bulk { streams, direction }), streams, direction).await.is_err());
        assert!(requests::standing(&load(&service, Work::Requests { connections: 1 }), 1).await.is_err());
        Ok(())
    }
}
