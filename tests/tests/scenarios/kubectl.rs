//! Stock kubectl, every version at hand, with the hub as `proxy-url` in its kubeconfig, against an API server in a spoke.

use std::time::Duration;

use anyhow::Result;
use tempfile::TempDir;
use tests::kubeconfig::{Kubeconfig, KubeconfigFile};
use tests::service::apiserver::{ApiServer, TOKEN};
use tests::service::authority::TargetAuthority;
use tests::{Hub, Process, Program, Spoke, tool, wait_until};

const BOUND: Duration = Duration::from_secs(60);
/// The first minor version whose exec knows WebSockets.
const WEBSOCKETS: u32 = 29;
/// Longer than any time-out for what is idle: that of the tunnel, of request heads, and of TCP's keep-alive.
const IDLE_TIME: Duration = Duration::from_secs(65);
/// The name in an API server's certificate that clients use when they call it by another.
const KUBERNETES: &str = "kubernetes.default.svc";

/// A hub and one cluster with its API server.
struct Site {
    hub: Hub,
    _agent: Spoke,
    _folder: TempDir,
    authority: TargetAuthority,
    server: ApiServer,
}

impl Site {
    async fn start() -> Result<Self> {
        let hub = Hub::start().await?;
        let authority = TargetAuthority::new()?;
        let server = ApiServer::start(&authority, &[KUBERNETES]).await?;
        let (folder, ca) = (TempDir::new()?, authority.file().display().to_string());
        let token = folder.path().join("token");
        std::fs::write(&token, TOKEN)?;
        let agent = Spoke::of(&hub, "one").args(["--kube-api", &server.address().to_string(), "--kube-ca", &ca]);
        let agent = agent.args(["--kube-token".to_owned(), token.display().to_string()]).start().await?;
        server.add_pod("first");
        Ok(Self { hub, _agent: agent, _folder: folder, authority, server })
    }

    /// The hub's gateway.
    fn gateway(&self) -> Result<KubeconfigFile> {
        let (hub, user) = (self.hub.addresses().api, self.hub.credentials());
        let authority = std::fs::read_to_string(user.authority_file())?;
        Kubeconfig::new(format!("https://{hub}/clusters/one"), &authority, user.token()?).write()
    }

    /// The API server by its address, through the hub by `scheme` with the cluster as the proxy's user.
    fn config(&self, scheme: &str) -> Result<KubeconfigFile> {
        let proxy = self.hub.proxy_url(scheme, "one", &self.hub.credentials())?;
        self.called(&format!("https://{}", self.server.address()))?.proxy_url(&proxy).write()
    }

    /// The API server called `url`. kubectl verifies the hub of an `https://` proxy by the same authorities as its target.
    fn called(&self, url: &str) -> Result<Kubeconfig> {
        let hub = std::fs::read_to_string(self.hub.credentials().authority_file())?;
        Ok(Kubeconfig::new(url, &format!("{}{hub}", self.authority.pem()), TOKEN))
    }
}

/// The default kubectl, then all with a version in their names, each with its minor version where it is known.
fn kubectls() -> Result<Vec<(Option<u32>, Program)>> {
    let by_minor = tool::kubectls_by_minor()?.into_iter().map(|(minor, program)| (Some(minor), program));
    Ok([(None, tool::kubectl()?)].into_iter().chain(by_minor).collect())
}

async fn event(watch: &Process, kind: &str, pod: &str) -> Result<()> {
    let fits = |line: &str| line.split_whitespace().take(2).eq([kind, pod]).then_some(());
    watch.stdout_line(BOUND, &format!("{kind} {pod}"), fits).await
}

fn watching(kubectl: Program) -> Program {
    kubectl.args(["get", "pods", "--watch", "--output-watch-events"])
}

#[tokio::test]
async fn every_kubectl_gets_through_every_kind_of_proxy() -> Result<()> {
    let site = Site::start().await?;
    for scheme in ["http", "https", "socks5"] {
        let config = site.config(scheme)?;
        for (minor, kubectl) in kubectls()? {
            let kubectl = config.configure(kubectl);
            let pods = kubectl.clone().args(["get", "pods", "--output", "name"]).run(BOUND).await?.success()?;
            assert_eq!(pods, "pod/first\n", "{scheme} {minor:?}");
            let missing = kubectl.args(["get", "pod", "second"]).run(BOUND).await?;
            assert!(missing.stderr.contains(r#"pods "second" not found"#), "{scheme} {minor:?} {missing:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_watches_pods_come_and_go() -> Result<()> {
    let site = Site::start().await?;
    for scheme in ["http", "https", "socks5"] {
        let config = site.config(scheme)?;
        for (_, kubectl) in kubectls()? {
            let watch = watching(config.configure(kubectl)).spawn()?;
            event(&watch, "ADDED", "first").await?;
            site.server.add_pod("second");
            event(&watch, "ADDED", "second").await?;
            site.server.delete_pod("second");
            event(&watch, "DELETED", "second").await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_outlives_long_silences_without_being_opened_anew() -> Result<()> {
    let site = Site::start().await?;
    let mut watches = Vec::new();
    let proxied = ["http", "https", "socks5"].map(|scheme| site.config(scheme));
    for config in proxied.into_iter().chain([site.gateway()]) {
        let config = config?;
        let watch = watching(config.kubectl()?).spawn()?;
        event(&watch, "ADDED", "first").await?;
        watches.push((watch, config));
    }
    let opened = site.server.service().accepted();
    for pod in ["second", "third"] {
        tokio::time::sleep(IDLE_TIME).await;
        site.server.add_pod(pod);
        for (watch, _) in &watches {
            event(watch, "ADDED", pod).await?;
        }
    }
    assert_eq!(site.server.service().accepted(), opened, "a watch was broken off");
    Ok(())
}

#[tokio::test]
async fn every_kubectl_follows_a_log_line_by_line_to_its_end() -> Result<()> {
    let site = Site::start().await?;
    for scheme in ["http", "https", "socks5"] {
        let config = site.config(scheme)?;
        for (minor, kubectl) in kubectls()? {
            let pod = format!("{scheme}-{}", minor.unwrap_or_default());
            site.server.add_pod(&pod);
            site.server.log(&pod, "before");
            let kubectl = config.configure(kubectl);
            assert_eq!(kubectl.clone().args(["logs", &pod]).run(BOUND).await?.success()?, "before\n");
            let mut follower = kubectl.args(["logs", "--follow", &pod]).spawn()?;
            for line in ["before", "during", "later"] {
                if line != "before" {
                    site.server.log(&pod, line);
                }
                follower.stdout_line(BOUND, line, |found| (found == line).then_some(())).await?;
            }
            site.server.end_log(&pod);
            follower.exits_with(0, BOUND).await?;
        }
    }
    Ok(())
}

/// kubectl's WebSockets know no `https://` proxy: it falls back to SPDY there, which API servers are about to drop.
#[tokio::test]
async fn every_kubectl_with_websockets_execs_and_keeps_the_exit_code() -> Result<()> {
    let site = Site::start().await?;
    let mut execs = 0;
    for scheme in ["http", "socks5"] {
        let config = site.config(scheme)?;
        for (_, kubectl) in kubectls()?.into_iter().filter(|(minor, _)| minor.is_none_or(|minor| minor >= WEBSOCKETS)) {
            exec(config.configure(kubectl)).await?;
            execs += 3;
        }
    }
    let upgrades = site.server.requests().into_iter().filter(|seen| seen.headers.contains_key("upgrade")).count();
    assert_eq!(upgrades, execs, "some exec did not use a WebSocket, or a second try");
    Ok(())
}

/// Three commands: output, an exit code, and input that is more than any buffer on the way holds.
pub(crate) async fn exec(kubectl: Program) -> Result<()> {
    // The default from 1.31 on.
    let kubectl = kubectl.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "true");
    let echo = kubectl.clone().args(["exec", "first", "--", "echo", "a b", "c+d%"]).run(BOUND).await?;
    assert_eq!(echo.success()?, "a b c+d%\n");
    let failed = kubectl.clone().args(["exec", "first", "--", "sh", "-c", "echo why >&2; exit 3"]).run(BOUND).await?;
    assert!(failed.stderr.starts_with("why\n"), "{failed:?}");
    failed.exited_with(3)?;

    let mut cat = kubectl.args(["exec", "-i", "first", "--", "cat"]).with_stdin().spawn()?;
    cat.write(b"first line\n", BOUND).await?;
    cat.stdout_line(BOUND, "the first line", |line| (line == "first line").then_some(())).await?;
    let long = [vec![b'x'; 60_000], b"\n".to_vec()].concat().repeat(20);
    cat.write(&long, BOUND).await?;
    cat.close_stdin();
    cat.exits_with(0, BOUND).await?;
    wait_until(BOUND, "all lines", async || cat.stdout().len() == 21).await?;
    assert!(cat.stdout().iter().skip(1).all(|line| line.len() == 60_000));
    Ok(())
}

#[tokio::test]
async fn a_clusters_name_alone_is_its_kubernetes_api() -> Result<()> {
    let site = Site::start().await?;
    let credentials = site.hub.credentials();
    let names = [
        ("admin", "https://one"),
        ("admin", "https://one.clusters.internal"),
        ("one", "https://one.clusters.internal"),
    ];
    for scheme in ["http", "socks5"] {
        for (user, url) in names {
            let proxy = site.hub.proxy_url(scheme, user, &credentials)?;
            let config = site.called(url)?.proxy_url(&proxy).tls_server_name(KUBERNETES).write()?;
            let pods = config.kubectl()?.args(["get", "pods", "--output", "name"]).run(BOUND).await?.success()?;
            assert_eq!(pods, "pod/first\n", "{scheme} {user} {url}");
            exec(config.kubectl()?).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_shows_in_kubectls_own_error() -> Result<()> {
    let site = Site::start().await?;
    let token = site.hub.credentials().token()?;
    let address = site.hub.addresses().proxy;
    for (proxy, reason) in [
        (format!("http://one:wrong@{address}"), "Proxy Authentication Required"),
        (format!("http://three:{token}@{address}"), "Not Found"),
        (format!("socks5://one:wrong@{address}"), "not allowed"),
    ] {
        let config = site.called(&format!("https://{}", site.server.address()))?.proxy_url(&proxy).write()?;
        let refused = config.kubectl()?.args(["get", "pods"]).run(BOUND).await?;
        assert!(refused.stderr.contains(reason), "{refused:?}");
        refused.exited_with(1)?;
    }
    assert_eq!(site.server.service().accepted(), 0);
    Ok(())
}
