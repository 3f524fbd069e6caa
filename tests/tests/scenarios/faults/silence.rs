//! Silence: an end that is gone is told within 15 s whatever the path was like before, and an outage shorter than that ends nothing.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use nix::sys::signal::Signal;
use tests::client::Connection;
use tests::pattern::Pattern;
use tests::service::{echo, transfer};
use tests::{Hub, Path, Spoke, Weather, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{BOUND, agents, dials_well};

/// What is promised, and what a loaded machine may add.
const NOTICED: Duration = Duration::from_secs(15 + 5);
const OUTAGE: Duration = Duration::from_secs(13);
const FAIR: Weather = Weather::fair(Duration::from_millis(10));

/// A hub, an agent behind a path, and a service in its spoke.
struct Site {
    hub: Hub,
    path: Path,
    spoke: Spoke,
    service: tests::Service,
}

impl Site {
    async fn start() -> Result<Self> {
        let hub = Hub::start().await?;
        let path = Path::start(hub.addresses().tunnel, FAIR).await?;
        let spoke = Spoke::of(&hub, "c1").via(path.address()).start().await?;
        let service = echo::start().await?;
        dials_well(&hub.client("c1")?, &service.address().to_string()).await?;
        Ok(Self { hub, path, spoke, service })
    }

    async fn dial(&self) -> Result<Connection> {
        Ok(self.hub.client("c1")?.dial(&self.service.address().to_string()).await?)
    }
}

async fn echoes(connection: &mut Connection) -> Result<()> {
    connection.write_all(b"still here").await?;
    let mut echo = [0; 10];
    timeout(BOUND, connection.read_exact(&mut echo)).await.context("the connection is stuck")??;
    ensure!(&echo == b"still here");
    Ok(())
}

/// Demands that a connection breaks; says how long that took.
async fn breaks(mut connection: Connection) -> Result<Duration> {
    let start = Instant::now();
    let end = timeout(2 * BOUND, connection.read_u8()).await.context("the connection hangs")?;
    ensure!(end.is_err(), "{end:?}");
    Ok(start.elapsed())
}

/// Sends without end, and takes what comes back.
async fn pour(connection: Connection) -> std::io::Result<u64> {
    let (mut reader, mut writer) = tokio::io::split(connection);
    let (mut bytes, mut nowhere) = (tokio::io::repeat(7), tokio::io::sink());
    tokio::try_join!(tokio::io::copy(&mut bytes, &mut writer), tokio::io::copy(&mut reader, &mut nowhere))
        .map(|(sent, _)| sent)
}

#[tokio::test]
async fn after_a_spike_of_the_round_trip_time_a_killed_agent_is_missed_as_soon_as_ever() -> Result<()> {
    let mut site = Site::start().await?;
    let mut connection = site.dial().await?;
    site.path.set(Weather::fair(Duration::from_secs(2)));
    for _ in 0..3 {
        echoes(&mut connection).await?;
    }
    site.path.set(FAIR);
    echoes(&mut connection).await?;
    site.spoke.kill().await?;
    let took = breaks(connection).await?;
    eprintln!("the connection broke after {took:?}");
    ensure!(took < NOTICED, "the connection hung for {took:?}");
    agents(&site.hub, 0).await
}

/// What moves in a tunnel while its path goes.
#[derive(Clone, Copy, Debug)]
enum Load {
    Nothing,
    Download,
    Upload,
    Both,
}

const LOADS: [Load; 4] = [Load::Nothing, Load::Download, Load::Upload, Load::Both];
/// Longer than any run.
const ENDLESS: u64 = 1 << 50;

impl Load {
    async fn run(self, mut connection: Connection) -> Result<()> {
        let pattern = Pattern { seed: 7, length: ENDLESS };
        match self {
            Self::Nothing => std::future::pending().await,
            Self::Download => transfer::download(&mut connection, pattern).await,
            Self::Upload => transfer::upload(&mut connection, pattern).await,
            Self::Both => transfer::exchange(&mut connection, pattern).await,
        }
    }
}

/// A cluster whose path goes after `wait` and is back after `outage`: demands that a connection that rests and one that is loaded
/// live on.
async fn outlive(hub: &Hub, cluster: String, load: Load, wait: Duration, outage: Duration) -> Result<()> {
    let (rests, moves) = (echo::start().await?, transfer::start().await?);
    let path = Path::start(hub.addresses().tunnel, FAIR).await?;
    let _spoke = Spoke::of(hub, &cluster).via(path.address()).start().await?;
    let client = hub.client(&cluster)?;
    dials_well(&client, &rests.address().to_string()).await?;
    let mut idle = client.dial(&rests.address().to_string()).await?;
    let mut loaded = JoinSet::new();
    loaded.spawn(load.run(client.dial(&moves.address().to_string()).await?));
    sleep(wait).await;
    path.set(Weather::down());
    sleep(outage).await;
    path.set(FAIR);
    let start = Instant::now();
    echoes(&mut idle).await?;
    eprintln!("{cluster}, {load:?}: the first answer came {:?} after the outage", start.elapsed());
    ensure!(loaded.try_join_next().is_none(), "the transfer has ended");
    Ok(())
}

#[tokio::test]
async fn an_outage_of_thirteen_seconds_ends_nothing() -> Result<()> {
    let hub = Hub::start().await?;
    // At different times of the keep-alive's and of the watchdog's.
    let cases = LOADS.into_iter().flat_map(|load| [1000, 1350, 1700].map(|wait| (load, Duration::from_millis(wait))));
    let outages = cases.enumerate().map(async |(number, (load, wait))| {
        let outlived = outlive(&hub, format!("c{number}"), load, wait, OUTAGE).await;
        outlived.with_context(|| format!("{load:?}, {wait:?}"))
    });
    let failed: Vec<String> = join_all(outages)
        .await
        .into_iter()
        .filter_map(|outcome| outcome.err())
        .map(|error| format!("{error:#}"))
        .collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

#[tokio::test]
async fn a_path_that_leads_one_way_only_is_noticed_at_both_ends() -> Result<()> {
    for weather in [Weather { there: false, ..FAIR }, Weather { back: false, ..FAIR }] {
        let site = Site::start().await?;
        let connection = site.dial().await?;
        // What nobody acknowledges fills the window; the end of the tunnel is to be told all the same.
        let mut busy = JoinSet::new();
        busy.spawn(pour(site.dial().await?));
        wait_until(BOUND, "bytes to flow", async || site.service.open() == 2).await?;
        site.path.set(weather);
        let start = Instant::now();
        let took = breaks(connection).await?;
        wait_until(BOUND, "the target to be left", async || site.service.open() == 0).await?;
        eprintln!("{weather:?}: the hub noticed after {took:?}, the agent after {:?}", start.elapsed());
        ensure!(start.elapsed() < NOTICED, "{weather:?}: it took {:?}", start.elapsed());
        site.path.set(FAIR);
        dials_well(&site.hub.client("c1")?, &site.service.address().to_string()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_hub_that_stood_still_serves_at_once_and_leaves_nothing_hanging() -> Result<()> {
    let site = Site::start().await?;
    let connection = site.dial().await?;
    site.hub.process().signal(Signal::SIGSTOP)?;
    sleep(Duration::from_secs(20)).await;
    site.hub.process().signal(Signal::SIGCONT)?;
    let took = breaks(connection).await?;
    let start = Instant::now();
    dials_well(&site.hub.client("c1")?, &site.service.address().to_string()).await?;
    eprintln!("what was open broke after {took:?}; a dial worked {:?} later", start.elapsed());
    ensure!(took < Duration::from_secs(5), "what was open hung for {took:?}");
    Ok(())
}

#[tokio::test]
async fn what_a_killed_agent_served_ends_with_its_successors_tunnel() -> Result<()> {
    let mut site = Site::start().await?;
    let connection = site.dial().await?;
    site.spoke.kill().await?;
    site.spoke.start_again().await?;
    dials_well(&site.hub.client("c1")?, &site.service.address().to_string()).await?;
    let took = breaks(connection).await?;
    eprintln!("what the killed agent served broke {took:?} after its successor served");
    ensure!(took < Duration::from_secs(5), "it hung for {took:?}");
    agents(&site.hub, 1).await
}

#[tokio::test]
async fn a_dial_to_a_killed_agent_ends_at_the_first_sign_and_another_agent_takes_it() -> Result<()> {
    let mut site = Site::start().await?;
    site.spoke.kill().await?;
    let start = Instant::now();
    let told = site.dial().await.err().context("a killed agent serves")?.to_string();
    let took = start.elapsed();
    eprintln!("after {took:?}: {told}");
    ensure!(told.contains("504") && told.contains("the agent does not respond"), "{told}");
    ensure!(took < Duration::from_secs(9), "the dial waited for {took:?}");
    // One more, and the killed one's tunnel is still there: who dials comes to the other.
    let _other = Spoke::of(&site.hub, "c1").agent("other").start().await?;
    let start = Instant::now();
    site.dial().await?;
    let took = start.elapsed();
    ensure!(took < Duration::from_secs(5), "the other agent had the dial after {took:?}");
    Ok(())
}

/// A line that carries less from now on, behind a firewall that says nothing: what both ends have under way is too large for it, and
/// neither acknowledges anything while it has something to send and no room for it.
#[tokio::test]
async fn a_path_that_becomes_narrow_is_used_again_within_five_seconds() -> Result<()> {
    let site = Site::start().await?;
    let (progress, mut seen) = watch::channel(0_usize);
    let mut streams = JoinSet::new();
    for _ in 0..4 {
        let (mut reader, mut writer) = tokio::io::split(site.dial().await?);
        streams.spawn(async move {
            let chunk = vec![7; 1 << 16];
            while writer.write_all(&chunk).await.is_ok() {}
        });
        let progress = progress.clone();
        streams.spawn(async move {
            let mut chunk = vec![0; 1 << 16];
            while let Ok(read @ 1..) = reader.read(&mut chunk).await {
                progress.send_modify(|bytes| *bytes += read);
            }
        });
    }
    seen.wait_for(|bytes| *bytes > 8 << 20).await?;
    site.path.set(Weather { largest: 1372, ..FAIR });
    let narrow = Instant::now();
    let bytes = *seen.borrow_and_update();
    // Beyond what was under way.
    timeout(BOUND, seen.wait_for(|now| *now > bytes + (4 << 20))).await.context("it stands still")??;
    eprintln!("used again {:?} after it had become narrow", narrow.elapsed());
    ensure!(narrow.elapsed() < Duration::from_secs(5 + 5), "{:?}", narrow.elapsed());
    agents(&site.hub, 1).await
}
