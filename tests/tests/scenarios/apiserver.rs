//! The API server's double serves all that stock kubectl does, over every protocol that kubectl knows, with nothing between.

pub(crate) mod administration;
pub(crate) mod forwarding;
pub(crate) mod streaming;

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::{Method, StatusCode, Version};
use tests::service::apiserver::ApiServer;
use tests::service::authority::TargetAuthority;
use tests::{Kubectl, Program, tool};

/// How long anything may take on a loaded machine.
pub(crate) const BOUND: Duration = Duration::from_secs(60);
const POD: &str = "first";

/// A kubectl with a server of its own.
struct Site {
    kubectl: Kubectl,
    server: ApiServer,
    /// What is to carry the streams of commands and ports.
    carrier: Carrier,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Carrier {
    WebSocket,
    /// A kubectl that knows nothing else.
    Spdy,
    /// A kubectl that tries a WebSocket first, which the server refuses.
    SpdyAfter(StatusCode),
}

impl Site {
    async fn start(kubectl: Program, carrier: Carrier) -> Result<Self> {
        let server = ApiServer::start(&TargetAuthority::new()?, &[]).await?;
        server.add_pod(POD);
        if let Carrier::SpdyAfter(status) = carrier {
            server.refuse_websockets(status);
        }
        let config = server.kubeconfig(format!("https://{}", server.address())).write()?;
        // Both are the defaults of newer versions.
        let kubectl = Kubectl::of(kubectl, config)?.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "true");
        Ok(Self { kubectl: kubectl.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "true"), server, carrier })
    }

    /// Debian's kubectl, the machine's own and the newest, each by the protocols that it knows.
    async fn all() -> Result<Vec<Self>> {
        let (own, newest) = (tool::kubectl()?, tool::newest_kubectl()?);
        Ok(vec![
            Self::start(tool::old_kubectl()?, Carrier::Spdy).await?,
            Self::start(own.clone(), Carrier::WebSocket).await?,
            Self::start(own, Carrier::SpdyAfter(StatusCode::FORBIDDEN)).await?,
            Self::start(newest.clone(), Carrier::WebSocket).await?,
            Self::start(newest, Carrier::SpdyAfter(StatusCode::BAD_REQUEST)).await?,
        ])
    }

    /// Those whose requests are not the same over another protocol.
    async fn each() -> Result<Vec<Self>> {
        let mut sites = Self::all().await?;
        sites.retain(|site| !matches!(site.carrier, Carrier::SpdyAfter(_)));
        Ok(sites)
    }

    /// Demands that the streams went by the protocol that was to carry them.
    fn ends(self) -> Result<()> {
        let asked = |protocol: &str| {
            let upgrade =
                |value: &hyper::header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(protocol.as_bytes());
            self.server.requests().iter().any(|seen| seen.headers.get("upgrade").is_some_and(upgrade))
        };
        let expected = match self.carrier {
            Carrier::WebSocket => (true, false),
            Carrier::Spdy => (false, true),
            Carrier::SpdyAfter(_) => (true, true),
        };
        let seen = (asked("websocket"), asked("SPDY/3.1"));
        ensure!(
            seen == expected,
            "{} over {:?} asked for (WebSocket, SPDY): {seen:?}",
            self.kubectl.name(),
            self.carrier
        );
        Ok(())
    }
}

#[tokio::test]
async fn every_kubectl_execs_and_keeps_the_exit_code() -> Result<()> {
    for site in Site::all().await? {
        streaming::exec_keeps_the_exit_code(&site.kubectl, POD).await?;
        streaming::exec_carries_input_and_output(&site.kubectl, POD).await?;
        streaming::exec_loses_no_output(&site.kubectl, POD).await?;
        site.ends()?;
    }
    for (_, kubectl) in tool::kubectls_by_minor()? {
        let site = Site::start(kubectl, Carrier::SpdyAfter(StatusCode::FORBIDDEN)).await?;
        streaming::exec_keeps_the_exit_code(&site.kubectl, POD).await?;
    }
    Ok(())
}

#[tokio::test]
async fn execs_at_once_lose_nothing() -> Result<()> {
    for site in Site::all().await? {
        streaming::execs_at_once_lose_nothing(&site.kubectl, POD, 10).await?;
        site.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_gets_a_terminal() -> Result<()> {
    for site in Site::all().await? {
        streaming::exec_gives_a_terminal(&site.kubectl, POD).await?;
        site.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_command() -> Result<()> {
    for site in Site::all().await? {
        streaming::a_client_that_leaves_ends_its_command(&site.kubectl, &site.server, POD).await?;
        site.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_copies_both_ways() -> Result<()> {
    for site in Site::all().await? {
        streaming::cp_copies_both_ways(&site.kubectl, &site.server, POD).await?;
        site.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_attaches() -> Result<()> {
    for site in Site::all().await? {
        streaming::attach_carries_both_ways(&site.kubectl, &site.server, POD).await?;
        site.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_forwards_ports() -> Result<()> {
    for site in Site::all().await? {
        forwarding::port_forward_carries_connections(&site.kubectl, &site.server, POD).await?;
        forwarding::port_forward_tells_a_dead_port(&site.kubectl, POD).await?;
        site.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_follows_logs() -> Result<()> {
    for site in Site::each().await? {
        streaming::logs_are_followed(&site.kubectl, &site.server, POD).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_administers() -> Result<()> {
    for site in Site::each().await? {
        administration::apply_creates_and_changes(&site.kubectl).await?;
        administration::top_shows_use(&site.kubectl, POD).await?;
        administration::describe_tells_of_a_pod(&site.kubectl, POD).await?;
        administration::proxy_answers(&site.kubectl, POD).await?;
        administration::drain_empties_the_node(&site.kubectl, &site.server, "drained").await?;
    }
    Ok(())
}

/// Debian's kubectl asks for ephemeral containers as servers before 1.23 had them.
#[tokio::test]
async fn newer_kubectls_debug() -> Result<()> {
    for site in Site::all().await?.into_iter().filter(|site| site.carrier != Carrier::Spdy) {
        administration::debug_runs_beside_the_pod(&site.kubectl, POD).await?;
        site.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn requests_come_over_http_2_and_streams_over_http_1() -> Result<()> {
    let site = Site::start(tool::newest_kubectl()?, Carrier::WebSocket).await?;
    streaming::exec_keeps_the_exit_code(&site.kubectl, POD).await?;
    let requests = site.server.requests();
    let (upgrades, others): (Vec<_>, Vec<_>) =
        requests.iter().partition(|seen| seen.headers.contains_key(hyper::header::UPGRADE));
    assert!(!upgrades.is_empty() && upgrades.iter().all(|seen| seen.version == Version::HTTP_11), "{upgrades:?}");
    assert!(!others.is_empty() && others.iter().all(|seen| seen.version == Version::HTTP_2), "{others:?}");
    Ok(())
}

#[tokio::test]
async fn who_is_impersonated_is_told() -> Result<()> {
    let site = Site::start(tool::newest_kubectl()?, Carrier::WebSocket).await?;
    administration::whoami_tells_who_asks(&site.kubectl, "user-of-the-spoke", &["system:authenticated"]).await?;
    let said = site.kubectl.ok("auth whoami -o json --as=ann --as-group=devs --as-group=ops").await?;
    let said: serde_json::Value = serde_json::from_str(&said)?;
    let info = &said["status"]["userInfo"];
    assert_eq!(
        (&info["username"], &info["groups"]),
        (&"ann".into(), &serde_json::json!(["devs", "ops", "system:authenticated"]))
    );
    let posted = |seen: &tests::service::apiserver::Seen| seen.method == Method::POST;
    let seen = site.server.requests().into_iter().rfind(posted).expect("a review");
    assert_eq!(seen.headers["impersonate-user"], "ann");
    Ok(())
}
