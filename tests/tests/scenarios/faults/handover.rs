//! A hub that stops and the one that follows it: clients dial all the while, and none of them is the worse for it.

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use tests::client::Connection;
use tests::service::echo;
use tests::{Client, Hub, Spoke};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{BOUND, dials_well};

/// 200 dials a second.
const EVERY: Duration = Duration::from_millis(5);
/// How long a client waits before it connects again where nobody listens.
const AGAIN: Duration = Duration::from_millis(20);
/// Load before the hub stops, and after the next one is there.
const AROUND: Duration = Duration::from_secs(2);

/// Clients that dial all the time.
struct Load {
    stop: CancellationToken,
    seen: Arc<Mutex<Seen>>,
    dialling: JoinHandle<()>,
}

/// What became of their dials.
#[derive(Debug, Default)]
struct Seen {
    failed: Vec<String>,
    /// Connects that were refused and made again.
    retried: usize,
    /// When each good dial began and was answered.
    good: Vec<(Instant, Instant)>,
}

impl Load {
    fn start(client: Client, target: String) -> Self {
        let (stop, seen) = (CancellationToken::new(), Arc::new(Mutex::new(Seen::default())));
        let (stopped, noted) = (stop.clone(), Arc::clone(&seen));
        let dialling = TaskTracker::new().spawn(async move {
            let (dials, mut turns) = (TaskTracker::new(), interval(EVERY));
            turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while stopped.run_until_cancelled(turns.tick()).await.is_some() {
                let (client, target, seen) = (client.clone(), target.clone(), Arc::clone(&noted));
                dials.spawn(async move {
                    let begun = Instant::now();
                    let mut retried = 0;
                    let outcome = dial_once(&client, &target, &mut retried).await;
                    let mut seen = seen.lock().await;
                    seen.retried += retried;
                    match outcome {
                        Ok(()) => seen.good.push((begun, Instant::now())),
                        Err(error) => seen.failed.push(format!("{error:#}")),
                    }
                });
            }
            dials.close();
            dials.wait().await;
        });
        Self { stop, seen, dialling }
    }

    async fn end(self, what: &str) -> Result<Seen> {
        self.stop.cancel();
        timeout(BOUND, self.dialling).await.context("dials do not end")??;
        let mut seen = Arc::into_inner(self.seen).context("dials are left")?.into_inner();
        seen.tell(what);
        Ok(seen)
    }
}

impl Seen {
    fn tell(&mut self, what: &str) {
        let mut took: Vec<_> = self.good.iter().map(|(begun, answered)| *answered - *begun).collect();
        took.sort_unstable();
        let (of, p99, gap) = (took.len(), took.get(took.len() * 99 / 100), self.longest_gap());
        eprintln!(
            "{what}: {of} dials well, {} failed, {} connects again; p99 {:?}, slowest {:?}, longest gap {gap:?}",
            self.failed.len(),
            self.retried,
            p99.unwrap_or(&Duration::ZERO),
            took.last().unwrap_or(&Duration::ZERO),
        );
        self.failed.sort_unstable();
        for same in self.failed.chunk_by(|one, other| one == other) {
            eprintln!("  {} × {}", same.len(), same[0]);
        }
    }

    /// The longest time without an answer.
    fn longest_gap(&mut self) -> Duration {
        self.good.sort_unstable_by_key(|(_, answered)| *answered);
        self.good.windows(2).map(|pair| pair[1].1 - pair[0].1).max().unwrap_or_default()
    }
}

/// Connects, again where nobody listens yet, dials, and has a few bytes echoed.
async fn dial_once(client: &Client, target: &str, retried: &mut usize) -> Result<()> {
    let connecting = async {
        loop {
            match client.enter().await {
                Ok(connection) => return connection,
                Err(_) => {
                    *retried += 1;
                    sleep(AGAIN).await;
                }
            }
        }
    };
    let connection = timeout(BOUND, connecting).await.context("nobody listens")?;
    let mut connection = client.dial_over(connection, target).await?;
    echoes(&mut connection).await
}

async fn echoes(connection: &mut Connection) -> Result<()> {
    let echoing = async {
        let mut seen = [0; 4];
        connection.write_all(b"ping").await?;
        connection.flush().await?;
        connection.read_exact(&mut seen).await?;
        ensure!(&seen == b"ping", "another echo");
        Ok(())
    };
    timeout(BOUND, echoing).await.context("no echo")?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_fails_no_dial() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "5s"]).start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    let (client, target) = (hub.client("c1")?, service.address().to_string());
    dials_well(&client, &target).await?;
    // Held to the end of the drain.
    let _idle = client.dial(&target).await?;
    let load = Load::start(client, target);
    sleep(AROUND).await;
    hub.process().signal(Signal::SIGTERM)?;
    hub.stopped().await?;
    hub.start_again().await?;
    sleep(AROUND).await;
    let seen = load.end("stopped, then started").await?;
    ensure!(seen.failed.is_empty(), "{} dials failed", seen.failed.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_drains_hands_over_to_the_next_and_no_dial_fails() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "5s"]).start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    let (client, target) = (hub.client("c1")?, service.address().to_string());
    dials_well(&client, &target).await?;
    let mut held = client.dial(&target).await?;
    let load = Load::start(client.clone(), target.clone());
    sleep(AROUND).await;
    let stopped = Instant::now();
    hub.process().signal(Signal::SIGTERM)?;
    let mut before = hub.succeed().await?;
    eprintln!("the next hub was ready after {:?}", stopped.elapsed());
    // What is open at the hub before goes on, and new clients are the next one's.
    echoes(&mut held).await?;
    sleep(AROUND).await;
    echoes(&mut held).await?;
    ensure!(before.is_running()?, "the hub before has ended with a connection open");
    drop(held);
    before.exits_with(0, BOUND).await?;
    eprintln!("the hub before had ended after {:?}", stopped.elapsed());
    sleep(AROUND).await;
    let seen = load.end("handed over").await?;
    ensure!(seen.failed.is_empty(), "{} dials failed", seen.failed.len());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_with_a_socket_of_systemds_refuses_no_client() -> Result<()> {
    let socket = TcpListener::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    // As systemd hands it over: descriptor 3, for this process.
    fcntl(&socket, FcntlArg::F_SETFD(FdFlag::empty()))?;
    let given = format!("exec 3<&{}; export LISTEN_FDS=1 LISTEN_PID=$$; exec \"$0\" \"$@\"", socket.as_raw_fd());
    // dash knows descriptors of one digit.
    let given = format!("exec bash -c '{given}' \"$0\" \"$@\"");
    let mut hub = Hub::builder().args(["--drain-timeout", "1s"]).proxy_at(address).after_shell(&given).start().await?;
    ensure!(hub.addresses().proxy == address, "{:?}", hub.addresses());
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    let (client, target) = (hub.client("c1")?, service.address().to_string());
    dials_well(&client, &target).await?;
    let _idle = client.dial(&target).await?;
    let load = Load::start(client, target);
    sleep(AROUND).await;
    hub.restart().await?;
    sleep(AROUND).await;
    let seen = load.end("restarted behind systemd's socket").await?;
    ensure!(seen.failed.is_empty(), "{} dials failed", seen.failed.len());
    ensure!(seen.retried == 0, "{} connects were refused", seen.retried);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_goes_at_the_next_hub_ends_what_the_hub_before_has_open() -> Result<()> {
    let mut hub = Hub::builder().args(["--drain-timeout", "1h"]).start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    let client = hub.client("c1")?;
    let mut held = client.dial(&service.address().to_string()).await?;
    hub.process().signal(Signal::SIGTERM)?;
    let mut before = hub.succeed().await?;
    dials_well(&client, &service.address().to_string()).await?;
    echoes(&mut held).await?;
    let changed = Instant::now();
    hub.deny("c1").await?;
    let mut seen = [0];
    let end = timeout(BOUND, held.read(&mut seen)).await.context("the connection is not cut")?;
    ensure!(end.is_err(), "{end:?}");
    eprintln!("cut {:?} after the cluster was denied", changed.elapsed());
    before.exits_with(0, BOUND).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_hub_under_load_for_comparison() -> Result<()> {
    let mut hub = Hub::start().await?;
    let _spoke = Spoke::of(&hub, "c1").start().await?;
    let service = echo::start().await?;
    let (client, target) = (hub.client("c1")?, service.address().to_string());
    dials_well(&client, &target).await?;
    let load = Load::start(client, target);
    sleep(AROUND).await;
    hub.kill().await?;
    hub.start_again().await?;
    sleep(AROUND).await;
    // What was under way at the hub that was killed is lost; nothing else is.
    load.end("killed, then started").await?;
    Ok(())
}
