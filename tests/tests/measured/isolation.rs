//! Isolation: a stream that nobody reads takes neither speed from its neighbours in the tunnel nor much memory from the hub.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::client::Connection;
use tests::pattern::Pattern;
use tests::service::{stalled, transfer};
use tests::speed::ratio_over;
use tests::{Hub, Service, Spoke, wait_until};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ALONE;

/// How long nobody reads.
const STALL: Duration = Duration::from_secs(60);
/// How many streams are stalled at once, so that what each of them holds is seen.
const STALLED: u64 = 16;
/// The most memory that the hub may hold for all of them: 4 MiB each, of which the stream's window is 1 MiB.
const MOST_GROWTH: u64 = STALLED * (4 << 20);
/// What a stream beside them sends and receives in each round.
const PATTERN: Pattern = Pattern { seed: 7, length: 64 << 20 };
const BOUND: Duration = Duration::from_secs(30);

/// A hub with one spoke, and a target in it.
struct Tunnel {
    _spoke: Spoke,
    hub: Hub,
    target: Service,
}

impl Tunnel {
    async fn start() -> Result<Self> {
        let hub = Hub::start().await?;
        let spoke = Spoke::of(&hub, "c1").start().await?;
        Ok(Self { _spoke: spoke, hub, target: transfer::start().await? })
    }

    async fn dial(&self, service: &Service) -> Result<Connection> {
        Ok(self.hub.client("c1")?.dial(&service.address().to_string()).await?)
    }

    /// One stream's work, in both directions.
    async fn exchange(&self) -> Result<()> {
        transfer::exchange(&mut self.dial(&self.target).await?, PATTERN).await
    }
}

/// Compares a tunnel with stalled streams to one without, of another hub, in turn for as long as the stall lasts; and looks at
/// the first hub's memory meanwhile. `before` is what that held before the stall.
async fn assert_isolated(stalled: &Tunnel, alone: &Tunnel, before: u64) -> Result<()> {
    let mut most = 0;
    let ratio = ratio_over(
        STALL,
        async || alone.exchange().await,
        async || {
            stalled.exchange().await?;
            most = most.max(stalled.hub.process().resident_bytes()?);
            Ok(())
        },
    )
    .await?;
    let growth = most.saturating_sub(before);
    eprintln!("beside {STALLED} stalled streams: {ratio:.3} of the speed alone; the hub grew by {} KiB", growth >> 10);
    ensure!(ratio >= 0.9, "a stream beside {STALLED} stalled ones has {ratio:.2} of its speed alone");
    ensure!(growth <= MOST_GROWTH, "the hub holds {growth} bytes for {STALLED} stalled streams");
    Ok(())
}

/// Two tunnels that have worked once, and what the first one's hub holds after that.
async fn tunnels() -> Result<(Tunnel, Tunnel, u64)> {
    let (stalled, alone) = (Tunnel::start().await?, Tunnel::start().await?);
    stalled.exchange().await?;
    alone.exchange().await?;
    let before = stalled.hub.process().resident_bytes()?;
    Ok((stalled, alone, before))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stop_reading_do_not_slow_their_neighbours() -> Result<()> {
    let _alone = ALONE.lock().await;
    let endless = Pattern::new(1, u64::MAX);
    let source =
        Service::start(move |mut stream| async move { endless.write_bytes(&mut stream).await.map(drop) }).await?;
    let (stalled, alone, before) = tunnels().await?;
    let mut silent = Vec::new();
    for _ in 0..STALLED {
        silent.push(stalled.dial(&source).await?);
    }
    let since = Instant::now();
    assert_isolated(&stalled, &alone, before).await?;
    eprintln!("nobody read for {:?}", since.elapsed());
    // Those that read on after all find every byte in its place.
    for connection in &mut silent {
        timeout(BOUND, Pattern { length: 16 << 20, ..endless }.read_bytes(connection)).await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_that_stop_reading_do_not_slow_their_neighbours() -> Result<()> {
    // More than all the sockets' buffers on the way take by themselves.
    const LENGTH: u64 = 64 << 20;
    let _alone = ALONE.lock().await;
    let sink = stalled::start().await?;
    let (stalled, alone, before) = tunnels().await?;
    let mut writers = JoinSet::new();
    for seed in 0..STALLED {
        let mut connection = stalled.dial(sink.service()).await?;
        writers.spawn(async move {
            Pattern::new(seed, LENGTH).write_bytes(&mut connection).await?;
            connection.shutdown().await?;
            anyhow::Ok(connection)
        });
    }
    let since = Instant::now();
    assert_isolated(&stalled, &alone, before).await?;
    eprintln!("no target read for {:?}", since.elapsed());
    ensure!(writers.try_join_next().is_none(), "a writer was not held up");
    // When the targets read on after all, every byte comes.
    sink.resume();
    wait_until(4 * BOUND, "all bytes at the targets", async || sink.received() == STALLED * LENGTH).await
}
