//! `cluster-proxy port-forward`: services by their names, many at once from a file, and what a person is shown.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tests::service::reset;
use tests::service::web::{self, Web};
use tests::{Fetch, Hub, Process, Program, Spoke, wait_for, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long anything may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);

/// A hub, two clusters, and a web service that each of them reaches.
struct Site {
    hub: Hub,
    _agents: [Spoke; 2],
    web: Web,
    folder: TempDir,
}

impl Site {
    async fn start() -> Result<Self> {
        let hub = Hub::start().await?;
        let agents = [Spoke::of(&hub, "one").start().await?, Spoke::of(&hub, "two").start().await?];
        Ok(Self { hub, _agents: agents, web: web::plain("web").await?, folder: TempDir::new()? })
    }

    fn port_forward(&self, words: &str) -> Result<Program> {
        Ok(self.hub.operator(&self.hub.credentials())?.arg("port-forward").args(words.split(' ')))
    }

    /// Writes a file of forwards, and gives its path.
    fn file(&self, text: &str) -> Result<String> {
        let path = self.folder.path().join("forwards.toml");
        fs::write(&path, text)?;
        path.into_os_string().into_string().ok().context("the temporary folder's path is no text")
    }
}

/// The local ports of the lines `Forwarding from 127.0.0.1:PORT -> …`, once there are so many of them.
async fn local_ports(process: &Process, count: usize) -> Result<Vec<u16>> {
    let ports = |lines: Vec<String>| -> Vec<u16> {
        let port = |line: &String| line.strip_prefix("Forwarding from 127.0.0.1:")?.split(' ').next()?.parse().ok();
        lines.iter().filter_map(port).collect()
    };
    wait_until(BOUND, "the local ports", async || ports(process.stdout()).len() == count).await?;
    Ok(ports(process.stdout()))
}

async fn is_web(port: u16) -> Result<()> {
    let answer = Fetch::get("/").plain(([127, 0, 0, 1], port).into()).await?;
    assert_eq!(answer.text(), "web\n");
    Ok(())
}

#[tokio::test]
async fn a_host_with_its_port_is_forwarded_and_kubectls_lines_are_printed() -> Result<()> {
    let site = Site::start().await?;
    let remote = site.web.service().port();
    let mut process = site.port_forward(&format!("-c one 127.0.0.1 :{remote}"))?.spawn()?;
    let local = local_ports(&process, 1).await?[0];
    is_web(local).await?;
    assert_eq!(process.stdout()[0], format!("Forwarding from 127.0.0.1:{local} -> {remote}"));
    let handling = format!("Handling connection for {local}");
    process.stderr_line(BOUND, &handling, |line| (line == handling).then_some(())).await?;
    assert!(process.stderr().iter().all(|line| !line.contains("received")), "no terminal, no progress");
    process.signal(Signal::SIGINT)?;
    process.exits_with(0, BOUND).await?;

    // On both sides the same port, of another address.
    let words = format!("-c one --address 127.0.0.9 127.0.0.1:{remote}");
    let process = site.port_forward(&words)?.spawn()?;
    let line = format!("Forwarding from 127.0.0.9:{remote} -> {remote}");
    process.stdout_line(BOUND, &line, |found| (found == line).then_some(())).await
}

#[tokio::test]
async fn a_connection_that_breaks_off_behind_the_hub_is_told_and_one_that_its_client_resets_is_not() -> Result<()> {
    let site = Site::start().await?;
    let (breaking, web) = (reset::after_reading(2).await?, site.web.service().port());
    let process = site.port_forward(&format!("-c one 127.0.0.1 :{} :{web}", breaking.port()))?.spawn()?;
    let ports = local_ports(&process, 2).await?;
    let mut left = TcpStream::connect(("127.0.0.1", ports[1])).await?;
    left.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await?;
    timeout(BOUND, left.read_u8()).await??;
    left.set_zero_linger()?;
    drop(left);

    let mut broken = TcpStream::connect(("127.0.0.1", ports[0])).await?;
    broken.write_all(b"go").await?;
    let mut received = Vec::new();
    assert!(timeout(BOUND, broken.read_to_end(&mut received)).await?.is_err(), "it broke off");
    let told = |port: u16| format!("error: connection to {port} broke off: its target reset it");
    process.stderr_line(BOUND, "the break", |line| line.starts_with(&told(ports[0])).then_some(())).await?;
    assert!(!process.stderr().iter().any(|line| line.starts_with(&told(ports[1]))), "{:?}", process.stderr());
    Ok(())
}

#[tokio::test]
async fn a_service_is_its_dns_name_in_the_cluster() -> Result<()> {
    let site = Site::start().await?;
    // There is no DNS of Kubernetes here: the agent's error tells the name that it was asked for.
    for target in
        ["svc/grafana.monitoring", "svc/grafana -n monitoring", "service/grafana.monitoring.svc.cluster.local"]
    {
        let process = site.port_forward(&format!("-c one {target} :80"))?.spawn()?;
        let local = local_ports(&process, 1).await?[0];
        let refused = Fetch::get("/").plain(([127, 0, 0, 1], local).into()).await;
        assert!(refused.is_err(), "{refused:?}");
        let named = |line: &str| line.contains("grafana.monitoring.svc").then_some(());
        process.stderr_line(BOUND, "the service's name", named).await.context(target)?;
    }
    Ok(())
}

#[tokio::test]
async fn what_only_kubernetes_knows_needs_its_api() -> Result<()> {
    let site = Site::start().await?;
    for (target, sought) in [
        ("pod/web-0 -n shop :80", "cannot look up pod web-0 in namespace shop of cluster one: "),
        ("deploy/web.v2 :80", "cannot look up deployment web.v2 in namespace default of cluster one: "),
        ("svc/web.shop :http", "cannot look up service web in namespace shop of cluster one: "),
    ] {
        let failed = site.port_forward(&format!("-c one {target}"))?.run(BOUND).await?;
        assert!(failed.stderr.contains(sought) && failed.stderr.lines().count() == 1, "{failed:?}");
        assert!(!failed.status.success());
    }
    let nameless = site.port_forward("-c one 127.0.0.1 :http")?.run(BOUND).await?;
    assert!(nameless.stderr.contains("write the port's number"), "{nameless:?}");
    Ok(())
}

#[tokio::test]
async fn many_places_are_forwarded_from_a_file_and_its_errors_name_the_line() -> Result<()> {
    let site = Site::start().await?;
    let remote = site.web.service().port();
    let good = format!(
        "[[forward]]\ncluster = \"one\"\ntarget = \"127.0.0.1\"\nports = [\":{remote}\", \":{remote}\"]\n\n\
         [[forward]]\ncluster = \"two\"\ntarget = \"localhost\"\nports = [\":{remote}\"]\n"
    );
    let file = site.file(&good)?;
    let mut process = site.port_forward(&format!("--file {file}"))?.spawn()?;
    let ports = local_ports(&process, 3).await?;
    for port in &ports {
        is_web(*port).await?;
    }
    let last = format!("Forwarding from 127.0.0.1:{} -> {remote} (localhost in two)", ports[2]);
    assert!(process.stdout().contains(&last), "{:?}", process.stdout());
    process.signal(Signal::SIGTERM)?;
    process.exits_with(0, BOUND).await?;

    let file = site.file(&format!("{good}\n[[forward]]\ncluster = \"one\"\ntarget = \"cm/x\"\nports = [\"80\"]\n"))?;
    let wrong = site.port_forward(&format!("--file {file}"))?.run(BOUND).await?;
    assert!(wrong.stderr.contains("forwards.toml line 13: ") && wrong.stderr.contains("svc/NAME"), "{wrong:?}");
    assert_eq!(wrong.exited_with(64)?, "");
    Ok(())
}

#[tokio::test]
async fn the_browser_is_opened_at_the_first_port() -> Result<()> {
    let site = Site::start().await?;
    let (browser, opened) = (site.folder.path().join("browser"), site.folder.path().join("opened"));
    fs::write(&browser, format!("#!/bin/sh\necho \"$@\" > {0}.new\nmv {0}.new {0}\n", opened.display()))?;
    fs::set_permissions(&browser, Permissions::from_mode(0o755))?;
    let remote = site.web.service().port();
    let words = format!("-c one 127.0.0.1 :{remote} :81 --open");
    let process = site.port_forward(&words)?.env("BROWSER", &browser).spawn()?;
    let local = local_ports(&process, 2).await?[0];
    let url = wait_for(BOUND, "the browser", async || fs::read_to_string(&opened)).await?;
    assert_eq!(url, format!("http://localhost:{local}\n"));

    let process = site.port_forward(&words)?.env("BROWSER", "/nonexistent").spawn()?;
    let local = local_ports(&process, 2).await?[0];
    process.stderr_line(BOUND, "an error", |line| line.contains("name a browser in BROWSER").then_some(())).await?;
    is_web(local).await
}

#[tokio::test]
async fn on_a_terminal_the_traffic_is_shown() -> Result<()> {
    let site = Site::start().await?;
    let remote = site.web.service().port();
    let terminal = site.port_forward(&format!("-c one 127.0.0.1 :{remote}"))?.env("TERM", "xterm").within_terminal();
    let mut terminal = terminal.with_stdin().spawn()?;
    let local = local_ports(&terminal, 1).await?[0];
    is_web(local).await?;
    // Each look at the counts is written over the last one.
    let place = format!("one 127.0.0.1 127.0.0.1:{local} -> {remote}");
    let shown = |line: &str| {
        let (_, last) = line.rsplit_once(&place)?;
        (last.contains("1 in all") && !last.contains(" 0B received")).then_some(())
    };
    // Ctrl-C. The display moves until then, and its last state stays.
    terminal.write(b"\x03", BOUND).await?;
    terminal.stdout_line(BOUND, "the traffic", shown).await?;
    assert!(terminal.stdout().iter().all(|line| !line.contains("Handling connection")));
    Ok(())
}
