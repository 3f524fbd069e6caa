//! A disk that is full, and a log that is rotated: nothing is lost in silence, and nothing is torn.

use super::*;

use std::path::Path;

use nix::sys::signal::Signal;
use tests::client::DialError;
use tests::metrics::Metrics;
use tests::{Fetch, Program, Spoke, wait_until};

/// A file system with room for a few pages, mounted in a folder until it is dropped.
struct SmallDisk(TempDir);

impl SmallDisk {
    async fn mount() -> Result<Self> {
        Self::mount_with_room("64k").await
    }

    async fn mount_with_room(size: &str) -> Result<Self> {
        let (folder, size) = (TempDir::new()?, format!("size={size}"));
        let mount = Program::at("/bin/mount").args(["-t", "tmpfs", "-o", &size, "small"]).arg(folder.path());
        mount.run(BOUND).await?.success()?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // What stays mounted is seen by the folder's removal.
        let _ = std::process::Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

async fn readiness(hub: &Hub) -> Result<(u16, String)> {
    let answer = Fetch::get("/readyz").plain(hub.addresses().metrics).await?;
    Ok((answer.status.as_u16(), answer.text()))
}

async fn metric(hub: &Hub, name: &str) -> Result<f64> {
    Ok(Metrics::fetch(hub.addresses().metrics).await?.sum(name, &[]))
}

/// Leaves so many events.
async fn ask(hub: &Hub, count: usize) -> Result<()> {
    for _ in 0..count {
        let asked = hub.client("nobody")?.dial("target:80").await;
        ensure!(matches!(asked, Err(DialError::Status { status: 404, .. })), "{asked:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_record_goes_on_whole_when_there_is_room() -> Result<()> {
    let disk = SmallDisk::mount().await?;
    let log = disk.path().join("audit");
    let hub = Hub::builder().args(["--audit-log", &log.display().to_string()]).start().await?;
    ask(&hub, 3).await?;
    wait_for(BOUND, "three events", async || {
        ensure!(events(&log)?.len() == 3, "{}", events(&log)?.len());
        Ok(())
    })
    .await?;
    assert_eq!(readiness(&hub).await?, (200, "ok\n".into()));
    // All but a little room is taken: the next events do not fit, and one is cut off.
    let ballast = disk.path().join("ballast");
    drop(std::fs::write(&ballast, vec![b'x'; 128 * 1024]));
    ask(&hub, 40).await?;
    wait_until(BOUND, "the failure in the metrics", async || {
        metric(&hub, "proxy_server_audit_failing").await.is_ok_and(|failing| failing == 1.0)
    })
    .await?;
    assert_eq!(readiness(&hub).await?, (200, "ok, but the audit log cannot be written\n".into()));
    let told = |line: &str| line.contains("cannot write audit events").then_some(());
    hub.process().stderr_line(BOUND, "the failure", told).await?;
    std::fs::remove_file(&ballast)?;
    wait_for(BOUND, "all events", async || {
        let asked = events(&log)?.iter().filter(|event| has(event, &[("result", "unknown_cluster")])).count();
        ensure!(asked == 43, "{asked}");
        Ok(())
    })
    .await?;
    assert_eq!(metric(&hub, "proxy_server_audit_lost_total").await?, 0.0);
    wait_until(BOUND, "readiness", async || readiness(&hub).await.is_ok_and(|(_, text)| text == "ok\n")).await
}

#[tokio::test]
async fn what_a_full_disk_has_no_room_for_is_counted_and_the_record_tells_how_much_is_missing() -> Result<()> {
    const QUEUE: usize = 8192;
    let folder = TempDir::new()?;
    let log = folder.path().join("audit");
    std::os::unix::fs::symlink("/dev/full", &log)?;
    let hub = Hub::builder().args(["--audit-log", &log.display().to_string()]).start().await?;
    // By SOCKS5, which is quickest; of strangers not all would be told.
    let mut asks = JoinSet::new();
    for _ in 0..64 {
        let client = hub.client("a")?.socks5();
        asks.spawn(async move {
            for _ in 0..150 {
                drop(client.dial("target:80").await);
            }
        });
    }
    while asks.join_next().await.is_some() {}
    let lost = metric(&hub, "proxy_server_audit_lost_total").await?;
    assert!(lost >= (64 * 150 - QUEUE - 200) as f64, "{lost}");
    std::fs::remove_file(&log)?;
    hub.process().signal(Signal::SIGHUP)?;
    wait_for(BOUND, "the record to tell", async || {
        let events = events(&log)?;
        let missing =
            events.iter().filter(|event| event["event"] == "lost").filter_map(|event| event["count"].as_f64());
        ensure!(missing.sum::<f64>() == lost, "{lost} are missing");
        let asked = events.iter().filter(|event| event["event"] == "connection").count() as f64;
        ensure!(asked + lost == 9600.0, "{asked} and {lost}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pipe_whose_reader_sleeps_is_told_and_holds_nobody_up() -> Result<()> {
    let folder = TempDir::new()?;
    let log = folder.path().join("audit");
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU)?;
    let to_pipe = ["--audit-log".to_owned(), log.display().to_string()];
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&log)?;
    let mut hub = Hub::builder().args(to_pipe).start().await?;
    // More than a pipe holds.
    ask(&hub, 300).await?;
    wait_until(BOUND, "the failure in the metrics", async || {
        metric(&hub, "proxy_server_audit_failing").await.is_ok_and(|failing| failing == 1.0)
    })
    .await?;
    assert_eq!(readiness(&hub).await?, (200, "ok, but the audit log cannot be written\n".into()));
    let reading = tokio::task::spawn_blocking(move || {
        let lines = std::io::BufRead::lines(std::io::BufReader::new(reader)).map_while(Result::ok);
        lines.filter(|line| line.contains("unknown_cluster")).take(300).count()
    });
    assert_eq!(timeout(BOUND, reading).await??, 300);
    wait_until(BOUND, "readiness", async || readiness(&hub).await.is_ok_and(|(_, text)| text == "ok\n")).await?;

    hub.stop().await?;
    let unread = hub.program()?.run(BOUND).await?;
    ensure!(unread.stderr.contains("nobody reads this pipe; start its reader first"), "{}", unread.stderr);
    Ok(())
}

#[tokio::test]
async fn a_hub_whose_disk_is_full_starts_again() -> Result<()> {
    let disk = SmallDisk::mount_with_room("8m").await?;
    let mut hub = Hub::builder().state_in(disk.path()).start().await?;
    hub.kill().await?;
    drop(std::fs::write(disk.path().join("ballast"), vec![b'x'; 16 << 20]));
    hub.start_again().await?;
    hub.ask(Fetch::get("/v1/status")).await?.success()?;
    let told = |line: &str| line.contains("cannot write the administrator's credentials anew").then_some(());
    hub.process().stderr_line(BOUND, "the disk", told).await
}

#[tokio::test]
async fn a_hub_that_must_record_refuses_what_it_cannot() -> Result<()> {
    let hub = Hub::builder().args(["--audit-log", "/dev/full", "--audit-failure", "refuse"]).start().await?;
    let _agent = Spoke::of(&hub, "a").start().await;
    // The first ask finds out.
    drop(hub.client("a")?.dial("127.0.0.1:1").await);
    wait_until(BOUND, "readiness to go", async || readiness(&hub).await.is_ok_and(|(status, _)| status == 503)).await?;
    let refused = hub.client("a")?.dial("127.0.0.1:1").await;
    assert!(
        matches!(&refused, Err(DialError::Status { status: 503, body, .. }) if body.contains("audit log")),
        "{refused:?}"
    );
    let changed =
        hub.ask(Fetch::new(Method::DELETE, "/apis/cluster.open-cluster-management.io/v1/managedclusters/a")).await?;
    assert_eq!(changed.status.as_u16(), 503, "{}", changed.text());
    assert_eq!(hub.ask(Fetch::get("/v1/tunnels")).await?.status.as_u16(), 200, "reading is no change");
    Ok(())
}

#[tokio::test]
async fn a_rotated_log_is_opened_again_at_sighup_and_nothing_is_lost() -> Result<()> {
    let mut site = Site::start().await?;
    let mut expected = 0;
    let moved: Vec<_> = (0..5).map(|turn| site.folder.path().join(format!("audit.{turn}"))).collect();
    for moved in &moved {
        ask(&site.hub, 20).await?;
        expected += 20;
        std::fs::rename(site.log(), moved)?;
        ask(&site.hub, 5).await?;
        expected += 5;
        site.hub.process().signal(Signal::SIGHUP)?;
        wait_until(BOUND, "the new file", async || site.log().exists()).await?;
    }
    site.hub.stop().await?;
    let mut found = 0;
    for log in moved.iter().chain([&site.log()]) {
        let all = events(log)?;
        found += all.iter().filter(|event| has(event, &[("result", "unknown_cluster")])).count();
    }
    assert_eq!(found, expected);
    Ok(())
}

#[tokio::test]
async fn what_was_asked_before_sigterm_is_in_the_record() -> Result<()> {
    let mut site = Site::start().await?;
    ask(&site.hub, 500).await?;
    site.hub.stop().await?;
    let asked = site.events()?.iter().filter(|event| has(event, &[("result", "unknown_cluster")])).count();
    assert_eq!(asked, 500);
    Ok(())
}

#[tokio::test]
async fn an_agent_survives_sighup() -> Result<()> {
    let hub = Hub::start().await?;
    let mut agent = Spoke::of(&hub, "a").start().await?;
    for _ in 0..3 {
        agent.process().signal(Signal::SIGHUP)?;
    }
    let told = |line: &str| line.contains("nothing to reopen").then_some(());
    agent.process().stderr_line(BOUND, "that it goes on", told).await?;
    assert!(hub.is_available("a").await);
    agent.stop().await
}
