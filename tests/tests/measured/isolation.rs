//! Isolation: streams that nobody reads take neither speed from their neighbours in the tunnel nor, all together, more memory
//! than the tunnel may take.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tests::client::{Connection, Entry};
use tests::pattern::Pattern;
use tests::service::{stalled, transfer};
use tests::speed::ratio_over;
use tests::{Hub, Process, Service, Spoke, allow_open_files, wait_until};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::ALONE;

/// How long nobody reads.
const STALL: Duration = Duration::from_secs(30);
/// How many streams are stalled at once.
const STALLED: u64 = 1000;
/// What the hub and the agent are told that one tunnel may take.
const TUNNEL_MEMORY: &str = "128MiB";
/// The most that the process which the stalled data lies in may grow by. quinn holds what has arrived in the buffers that it
/// arrived in, which makes 2 to 2.7 times as much (measured); beside that a connection takes some KiB, and the heap is never
/// quite full.
const MOST_GROWTH: u64 = (128 << 20) * 27 / 10 + STALLED * (32 << 10) + (32 << 20);
/// What a stream beside them sends and receives in each round.
const PATTERN: Pattern = Pattern { seed: 7, length: 64 << 20 };
const BOUND: Duration = Duration::from_secs(30);

/// A hub with one spoke, and a target in it.
struct Tunnel {
    spoke: Spoke,
    hub: Hub,
    target: Service,
}

impl Tunnel {
    async fn start() -> Result<Self> {
        let memory = ["--tunnel-memory", TUNNEL_MEMORY];
        // Those who stall and those beside them are one user here.
        let caps = ["--max-connections-per-user-per-cluster", "4000"];
        let hub = Hub::builder().args(memory).args(caps).start().await?;
        let spoke = Spoke::of(&hub, "c1").args(memory).start().await?;
        Ok(Self { spoke, hub, target: transfer::start().await? })
    }

    /// Over the Unix socket, whose buffers are small: a thousand connections would fill the kernel's memory for TCP.
    async fn dial(&self, service: &Service) -> Result<Connection> {
        let client = self.hub.client("c1")?.through(Entry::Unix(self.hub.socket()));
        Ok(client.dial(&service.address().to_string()).await?)
    }

    /// One stream's work, in both directions.
    async fn exchange(&self) -> Result<()> {
        transfer::exchange(&mut self.dial(&self.target).await?, PATTERN).await
    }
}

/// Compares a tunnel with stalled streams to one without, of another hub, in turn for as long as the stall lasts; and looks
/// meanwhile at the memory of `holder`, in which the stalled data lies. `before` is what that held before the stall.
async fn assert_isolated(stalled: &Tunnel, alone: &Tunnel, holder: &Process, before: u64) -> Result<()> {
    let mut most = 0;
    let ratio = ratio_over(
        STALL,
        async || alone.exchange().await,
        async || {
            stalled.exchange().await?;
            most = most.max(holder.resident_bytes()?);
            Ok(())
        },
    )
    .await?;
    let growth = most.saturating_sub(before);
    eprintln!("beside {STALLED} stalled streams: {ratio:.3} of the speed alone; {} KiB more are held", growth >> 10);
    ensure!(ratio >= 0.9, "a stream beside {STALLED} stalled ones has {ratio:.2} of its speed alone");
    ensure!(growth <= MOST_GROWTH, "{growth} bytes are held for {STALLED} stalled streams, more than {MOST_GROWTH}");
    Ok(())
}

/// Two tunnels that have worked once.
async fn tunnels() -> Result<(Tunnel, Tunnel)> {
    // Both ends of every connection at the services and at the clients.
    allow_open_files(4 * STALLED)?;
    let (stalled, alone) = (Tunnel::start().await?, Tunnel::start().await?);
    stalled.exchange().await?;
    alone.exchange().await?;
    Ok((stalled, alone))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_stop_reading_do_not_slow_their_neighbours() -> Result<()> {
    let _alone = ALONE.lock().await;
    let endless = Pattern::new(1, u64::MAX);
    let source =
        Service::start_narrow(move |mut stream| async move { endless.write_bytes(&mut stream).await.map(drop) })
            .await?;
    let (stalled, alone) = tunnels().await?;
    let holder = stalled.hub.process();
    let before = holder.resident_bytes()?;
    let mut silent = Vec::new();
    for _ in 0..STALLED {
        silent.push(stalled.dial(&source).await?);
    }
    let since = Instant::now();
    assert_isolated(&stalled, &alone, holder, before).await?;
    eprintln!("nobody read for {:?}", since.elapsed());
    // Those that read on after all find every byte in its place.
    for connection in silent.iter_mut().step_by(100) {
        timeout(BOUND, Pattern { length: 16 << 20, ..endless }.read_bytes(connection)).await??;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn targets_that_stop_reading_do_not_slow_their_neighbours() -> Result<()> {
    // More than all the sockets' buffers on the way take by themselves.
    const LENGTH: u64 = 4 << 20;
    let _alone = ALONE.lock().await;
    let sink = stalled::start().await?;
    let (stalled, alone) = tunnels().await?;
    let holder = stalled.spoke.process();
    let before = holder.resident_bytes()?;
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
    assert_isolated(&stalled, &alone, holder, before).await?;
    eprintln!("no target read for {:?}", since.elapsed());
    ensure!(writers.try_join_next().is_none(), "a writer was not held up");
    // When the targets read on after all, every byte comes.
    sink.resume();
    wait_until(4 * BOUND, "all bytes at the targets", async || sink.received() == STALLED * LENGTH).await
}
