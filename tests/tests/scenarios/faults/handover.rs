//! A hub that stops and the one that follows it: clients dial all the while, and none of them is the worse for it.

mod load;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use tests::hub::{ClusterAccess, HubBuilder};
use tests::service::echo;
use tests::{Client, Etcd, Hub, Process, Program, Service, Spoke, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use self::load::{Load, echoes};
use super::{BOUND, dials_well};

/// More than a handover takes on a loaded machine.
const DRAIN: &str = "60s";
/// Load before the hub stops, and after the next one is there.
const AROUND: Duration = Duration::from_secs(2);

/// A hub with a cluster, a client of it, a target there, and what is to be kept for as long.
async fn begin(hub: HubBuilder) -> Result<(Hub, Client, String, (Spoke, Service))> {
    let (hub, service) = (hub.start().await?, echo::start().await?);
    let spoke = Spoke::of(&hub, "c1").start().await?;
    let (client, target) = (hub.client("c1")?, service.address().to_string());
    dials_well(&client, &target).await?;
    Ok((hub, client, target, (spoke, service)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_under_load_fails_no_dial() -> Result<()> {
    let (mut hub, client, target, _kept) = begin(Hub::builder().args(["--drain-timeout", "5s"])).await?;
    // Held to the end of the drain.
    let _idle = client.dial(&target).await?;
    let load = Load::of_dials(client, target);
    sleep(AROUND).await;
    hub.process().signal(Signal::SIGTERM)?;
    hub.stopped().await?;
    hub.start_again().await?;
    sleep(AROUND).await;
    load.fails_none("dials, stopped, then started").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_drains_hands_over_to_the_next_and_no_dial_fails() -> Result<()> {
    let (mut hub, client, target, _kept) = begin(Hub::builder().args(["--drain-timeout", DRAIN])).await?;
    let mut held = client.dial(&target).await?;
    let load = Load::of_dials(client.clone(), target.clone());
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
    load.fails_none("dials, handed over").await?;
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
    let (mut hub, client, target, _kept) =
        begin(Hub::builder().args(["--drain-timeout", "1s"]).proxy_at(address).after_shell(&given)).await?;
    ensure!(hub.addresses().proxy == address, "{:?}", hub.addresses());
    let _idle = client.dial(&target).await?;
    let load = Load::of_dials(client, target);
    sleep(AROUND).await;
    hub.restart().await?;
    sleep(AROUND).await;
    let seen = load.fails_none("dials, restarted behind systemd's socket").await?;
    ensure!(seen.retried == 0, "{} connects were refused", seen.retried);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_that_goes_at_the_next_hub_ends_what_it_concerns_at_the_hub_before() -> Result<()> {
    let (mut hub, client, target, _kept) =
        begin(Hub::builder().args(["--drain-timeout", "1h", "--head-timeout", "5m"])).await?;
    let bob = hub.create_user("bob", &ClusterAccess::All).await?;
    let bobs_token = bob.token()?;
    let bob = client.clone().cluster("c1", &bobs_token);
    let (mut held, mut of_bob) = (client.dial(&target).await?, bob.dial(&target).await?);
    // They ask when the other hub serves.
    let proxy = hub.addresses().proxy;
    let connect = format!("CONNECT {target}");
    let mut late = [asking(proxy, &bobs_token, &connect).await?, asking(proxy, &bobs_token, &connect).await?];
    hub.process().signal(Signal::SIGTERM)?;
    let mut before = hub.succeed().await?;
    dials_well(&client, &target).await?;
    echoes(&mut held).await?;
    // What one loses, or gains, concerns nobody else.
    hub.command(["user", "token", "create", "bob", "--name", "further"]).await?.success()?;
    echoes(&mut of_bob).await?;
    ensure!(answered(&mut late[0]).await?.starts_with("HTTP/1.1 200"), "who has a right is served to the end");
    hub.command(["user", "delete", "bob"]).await?.success()?;
    let mut seen = [0];
    let end = timeout(BOUND, of_bob.read(&mut seen)).await.context("who was deleted is not cut")?;
    ensure!(end.is_err(), "{end:?}");
    let refused = answered(&mut late[1]).await?;
    ensure!(refused.starts_with("HTTP/1.1 407"), "a deleted user opens something at the hub before: {refused}");
    let _second = Spoke::of(&hub, "c1").agent("second").start().await?;
    echoes(&mut held).await?;
    let changed = Instant::now();
    hub.deny("c1").await?;
    let end = timeout(BOUND, held.read(&mut seen)).await.context("the connection is not cut")?;
    ensure!(end.is_err(), "{end:?}");
    eprintln!("cut {:?} after the cluster was denied", changed.elapsed());
    before.exits_with(0, BOUND).await
}

/// A client that has connected, and said all of its request (method and target) but the end.
async fn asking(proxy: SocketAddr, token: &str, request: &str) -> Result<TcpStream> {
    let mut client = TcpStream::connect(proxy).await?;
    let login = BASE64_STANDARD.encode(format!("c1:{token}"));
    let head = format!("{request} HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic {login}\r\n");
    client.write_all(head.as_bytes()).await?;
    Ok(client)
}

/// Asks, and gives the answer's beginning; empty if there is none.
async fn answered(client: &mut TcpStream) -> Result<String> {
    client.write_all(b"\r\n").await?;
    let mut answer = vec![0; 1024];
    let read = timeout(BOUND, client.read(&mut answer)).await.context("no answer")??;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_connected_as_a_hub_hands_over_is_answered_in_every_form() -> Result<()> {
    let patient = ["--drain-timeout", DRAIN, "--head-timeout", "5m"];
    let (mut hub, client, target, _kept) = begin(Hub::builder().args(patient)).await?;
    let (proxy, token) = (hub.addresses().proxy, hub.credentials().token()?);
    let held = client.dial(&target).await?;
    let mut late = Vec::new();
    for _ in 0..40 {
        late.push(asking(proxy, &token, &format!("GET http://{target}/")).await?);
    }
    hub.process().signal(Signal::SIGTERM)?;
    let mut before = hub.succeed().await?;
    let hands_over = async || before.stderr().iter().any(|line| line.contains("another hub serves here now"));
    wait_until(BOUND, "it to let go", hands_over).await?;
    let mut empty = 0;
    for client in &mut late {
        empty += usize::from(!answered(client).await?.starts_with("HTTP/1.1 "));
    }
    ensure!(empty == 0, "{empty} of 40 had no answer");
    drop((held, late));
    before.exits_with(0, BOUND).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_hub_under_load_for_comparison() -> Result<()> {
    let (mut hub, client, target, _kept) = begin(Hub::builder()).await?;
    let load = Load::of_dials(client, target);
    sleep(AROUND).await;
    hub.kill().await?;
    hub.start_again().await?;
    sleep(AROUND).await;
    // What was under way at the hub that was killed is lost; nothing else is.
    load.end("killed, then started").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handover_fails_nobody_who_asks_the_api_or_comes_by_the_socket() -> Result<()> {
    let (mut hub, client, target, _kept) = begin(Hub::builder().args(["--drain-timeout", DRAIN])).await?;
    let held = client.dial(&target).await?;
    let (api, socket) = (Load::of_the_api(&hub)?, Load::of_dials_by_socket(&hub, target)?);
    sleep(AROUND).await;
    hub.process().signal(Signal::SIGTERM)?;
    let mut before = hub.succeed().await?;
    sleep(AROUND).await;
    drop(held);
    before.exits_with(0, BOUND).await?;
    sleep(AROUND).await;
    socket.fails_none("dials by the socket").await?;
    api.fails_none("questions").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hubs_that_wait_one_serves_at_once_and_the_other_goes_on_waiting() -> Result<()> {
    let (hub, client, target, _kept) = begin(Hub::builder().args(["--drain-timeout", DRAIN])).await?;
    let mut held = client.dial(&target).await?;
    // What a handover that did not happen may have left.
    std::fs::write(hub.state().join("ports"), "{}")?;
    let waiting = [hub.program()?.spawn()?, hub.program()?.spawn()?];
    let waits = |next: &Process| next.stderr().iter().any(|line| line.contains("another hub has the state folder"));
    wait_until(BOUND, "both to wait", async || waiting.iter().all(waits)).await?;
    let load = Load::of_dials(client.clone(), target.clone());
    sleep(AROUND).await;
    hub.process().signal(Signal::SIGTERM)?;
    let ready = |next: &Process| next.stderr().iter().any(|line| line.contains("hub ready"));
    wait_until(BOUND, "one to serve", async || waiting.iter().any(ready)).await?;
    sleep(AROUND).await;
    echoes(&mut held).await?;
    load.fails_none("dials, with two that wait").await?;
    ensure!(waiting.iter().filter(|next| ready(next)).count() == 1, "both serve");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_over_etcd_hands_over_and_no_dial_fails() -> Result<()> {
    let etcd = Etcd::start().await?;
    let store = ["--store", "etcd", "--etcd-endpoint", &etcd.endpoint(), "--drain-timeout", DRAIN];
    let (mut hub, client, target, _kept) = begin(Hub::builder().args(store)).await?;
    let mut held = client.dial(&target).await?;
    let (dials, api) = (Load::of_dials(client, target), Load::of_the_api(&hub)?);
    sleep(AROUND).await;
    hub.process().signal(Signal::SIGTERM)?;
    let mut before = hub.succeed().await?;
    echoes(&mut held).await?;
    drop(held);
    before.exits_with(0, BOUND).await?;
    sleep(AROUND).await;
    dials.fails_none("dials, over etcd").await?;
    api.fails_none("questions, over etcd").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hubs_follow_one_another_and_each_drains_to_its_end() -> Result<()> {
    let (mut hub, client, target, _kept) = begin(Hub::builder().args(["--drain-timeout", DRAIN])).await?;
    let bob = client.clone().cluster("c1", &hub.create_user("bob", &ClusterAccess::All).await?.token()?);
    let load = Load::of_dials(client.clone(), target.clone());
    let mut of_first = client.dial(&target).await?;
    hub.process().signal(Signal::SIGTERM)?;
    let mut first = hub.succeed().await?;
    dials_well(&client, &target).await?;
    let (mut of_second, mut of_bob) = (client.dial(&target).await?, bob.dial(&target).await?);
    hub.process().signal(Signal::SIGTERM)?;
    let first_ends = async {
        // The second serves, and keeps its place, for as long as the first drains.
        sleep(AROUND).await;
        echoes(&mut of_first).await?;
        drop(of_first);
        first.exits_with(0, BOUND).await
    };
    let (mut second, ()) = tokio::try_join!(hub.succeed(), first_ends)?;
    hub.command(["user", "delete", "bob"]).await?.success()?;
    let end =
        timeout(BOUND, of_bob.read(&mut [0])).await.context("who was deleted at the third is not cut at the second")?;
    ensure!(end.is_err(), "{end:?}");
    echoes(&mut of_second).await?;
    drop(of_second);
    second.exits_with(0, BOUND).await?;
    dials_well(&client, &target).await?;
    load.fails_none("dials, of three hubs").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_dies_beside_one_that_drains_is_followed_at_once() -> Result<()> {
    let (mut hub, client, target, _kept) = begin(Hub::builder().args(["--drain-timeout", "1h"])).await?;
    let mut held = client.dial(&target).await?;
    hub.process().signal(Signal::SIGTERM)?;
    let mut first = hub.succeed().await?;
    dials_well(&client, &target).await?;
    hub.kill().await?;
    let killed = Instant::now();
    hub.start_again().await?;
    dials_well(&client, &target).await?;
    eprintln!("a dial worked {:?} after the second hub was killed", killed.elapsed());
    echoes(&mut held).await?;
    drop(held);
    first.exits_with(0, BOUND).await?;
    dials_well(&client, &target).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hub_that_comes_as_the_one_before_closes_its_ports_is_reached_by_all() -> Result<()> {
    let comes = [2_700, 2_800, 2_850, 2_900, 2_925, 2_950, 2_975, 3_000].map(Duration::from_millis);
    let hubs = comes.map(async |comes| {
        let (mut hub, client, target, _kept) = begin(Hub::builder().args(["--drain-timeout", "3s"])).await?;
        let _held = client.dial(&target).await?;
        hub.process().signal(Signal::SIGTERM)?;
        sleep(comes).await;
        let mut before = hub.succeed().await?;
        before.exits_with(0, BOUND).await?;
        dials_well(&client, &target).await.with_context(|| format!("it came after {comes:?}"))
    });
    futures_util::future::try_join_all(hubs).await.map(drop)
}

#[tokio::test]
async fn a_hub_without_descriptors_hands_over_once_it_has_some() -> Result<()> {
    let (mut hub, client, target, _kept) = begin(Hub::builder().after_shell("ulimit -n 4096")).await?;
    let (pid, proxy) = (hub.process().pid(), hub.addresses().proxy);
    let limit = async |files: u32| {
        let prlimit = Program::at("/usr/bin/prlimit").arg(format!("--pid={pid}")).arg(format!("--nofile={files}:"));
        prlimit.run(BOUND).await?.success().map(drop)
    };
    limit(3).await?;
    hub.process().signal(Signal::SIGTERM)?;
    let begun = Instant::now();
    let back = async {
        sleep(AROUND).await;
        limit(4096).await
    };
    // Somebody listens all the while.
    let listening = async {
        while begun.elapsed() < BOUND {
            TcpStream::connect(proxy).await.with_context(|| format!("nobody listens after {:?}", begun.elapsed()))?;
            sleep(Duration::from_millis(20)).await;
        }
        bail!("the next hub does not serve")
    };
    let following = async { tokio::try_join!(hub.succeed(), back) };
    let (mut before, ()) = tokio::select! {
        followed = following => followed?,
        failed = listening => return failed,
    };
    dials_well(&client, &target).await?;
    before.exits_with(0, BOUND).await
}

/// What its clients have open at the hub that drains ends as soon as the next hub knows.
#[tokio::test]
async fn an_agent_that_starts_anew_at_the_next_hub_is_not_waited_for_at_the_one_that_drains() -> Result<()> {
    let (mut hub, client, target, (mut spoke, _service)) =
        begin(Hub::builder().args(["--drain-timeout", DRAIN])).await?;
    let mut held = client.dial(&target).await?;
    hub.process().signal(Signal::SIGTERM)?;
    let _before = hub.succeed().await?;
    dials_well(&client, &target).await?;
    echoes(&mut held).await?;
    spoke.kill().await?;
    spoke.start_again().await?;
    dials_well(&client, &target).await?;
    let known = Instant::now();
    let broken = timeout(BOUND, held.read_u8()).await?;
    ensure!(broken.is_err(), "a stream of a killed agent goes on");
    eprintln!("the stream ended {:?} after the next hub had the agent", known.elapsed());
    ensure!(known.elapsed() < Duration::from_secs(6), "it was noticed by the agent's silence");
    Ok(())
}

#[tokio::test]
async fn a_hub_that_cannot_hand_over_ends_once_nobody_is_connected() -> Result<()> {
    let (mut hub, client, target, _kept) = begin(Hub::builder().args(["--drain-timeout", DRAIN])).await?;
    let held = client.dial(&target).await?;
    // In the way of what the next hub is told.
    std::fs::create_dir(hub.state().join("ports"))?;
    hub.process().signal(Signal::SIGTERM)?;
    let leaving = async {
        sleep(AROUND).await;
        drop(held);
        Ok(Instant::now())
    };
    let (mut before, left) = tokio::try_join!(hub.succeed(), leaving)?;
    before.exits_with(0, BOUND).await?;
    ensure!(left.elapsed() < BOUND, "it drained to the end");
    dials_well(&client, &target).await
}

#[tokio::test]
async fn a_hub_that_waits_for_its_turn_ends_when_it_is_told_to() -> Result<()> {
    let (hub, client, target, _kept) = begin(Hub::builder()).await?;
    let mut waiting = hub.program()?.spawn()?;
    let waits = |next: &Process| next.stderr().iter().any(|line| line.contains("another hub has the state folder"));
    wait_until(BOUND, "it to wait", async || waits(&waiting)).await?;
    waiting.signal(Signal::SIGTERM)?;
    waiting.exits_with(0, Duration::from_secs(10)).await?;
    client.dial(&target).await?;
    Ok(())
}
