//! All that stock kubectl does goes through the gateway, over every protocol that kubectl knows.

mod administration;
mod forwarding;
mod streaming;

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::{StatusCode, Version};
use tests::{Kubectl, Program, tool};

use super::{BOUND, Site};

const POD: &str = "first";
/// How long gigabytes may take on a loaded machine.
const LONG: Duration = Duration::from_secs(300);

/// A kubectl with a hub, a cluster and a server of its own.
struct Case {
    kubectl: Kubectl,
    site: Site,
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

impl Case {
    async fn start(kubectl: Program, carrier: Carrier) -> Result<Self> {
        let site = Box::pin(Site::start()).await?;
        if let Carrier::SpdyAfter(status) = carrier {
            site.server.refuse_websockets(status);
        }
        // Both are the defaults of newer versions.
        let kubectl = Kubectl::of(kubectl, site.admin()?)?.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "true");
        Ok(Self { kubectl: kubectl.env("KUBECTL_PORT_FORWARD_WEBSOCKETS", "true"), site, carrier })
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
        let mut cases = Self::all().await?;
        cases.retain(|case| !matches!(case.carrier, Carrier::SpdyAfter(_)));
        Ok(cases)
    }

    /// Demands that the streams went by the protocol that was to carry them.
    fn ends(self) -> Result<()> {
        let asked = |protocol: &str| {
            let upgrade =
                |value: &hyper::header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(protocol.as_bytes());
            self.site.server.requests().iter().any(|seen| seen.headers.get("upgrade").is_some_and(upgrade))
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
    for case in Case::all().await? {
        streaming::exec_keeps_the_exit_code(&case.kubectl, POD).await?;
        streaming::exec_carries_input_and_output(&case.kubectl, POD).await?;
        streaming::exec_loses_no_output(&case.kubectl, POD).await?;
        case.ends()?;
    }
    for (_, kubectl) in tool::kubectls_by_minor()? {
        let case = Case::start(kubectl, Carrier::SpdyAfter(StatusCode::FORBIDDEN)).await?;
        streaming::exec_keeps_the_exit_code(&case.kubectl, POD).await?;
    }
    Ok(())
}

#[tokio::test]
async fn execs_at_once_lose_nothing() -> Result<()> {
    for case in Case::all().await? {
        streaming::execs_at_once_lose_nothing(&case.kubectl, POD, 10).await?;
        case.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_gets_a_terminal() -> Result<()> {
    for case in Case::all().await? {
        streaming::exec_gives_a_terminal(&case.kubectl, POD).await?;
        case.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_command() -> Result<()> {
    for case in Case::all().await? {
        streaming::a_client_that_leaves_ends_its_command(&case.kubectl, &case.site.server, POD).await?;
        case.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_copies_both_ways() -> Result<()> {
    for case in Case::all().await? {
        streaming::cp_copies_both_ways(&case.kubectl, &case.site.server, POD).await?;
        case.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_attaches() -> Result<()> {
    for case in Case::all().await? {
        streaming::attach_carries_both_ways(&case.kubectl, &case.site.server, POD).await?;
        case.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_forwards_ports() -> Result<()> {
    for case in Case::all().await? {
        forwarding::port_forward_carries_connections(&case.kubectl, &case.site.server, POD).await?;
        forwarding::port_forward_tells_a_dead_port(&case.kubectl, POD).await?;
        case.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_follows_logs() -> Result<()> {
    for case in Case::each().await? {
        streaming::logs_are_followed(&case.kubectl, &case.site.server, POD).await?;
    }
    Ok(())
}

#[tokio::test]
async fn every_kubectl_administers() -> Result<()> {
    for case in Case::each().await? {
        administration::apply_creates_and_changes(&case.kubectl).await?;
        administration::top_shows_use(&case.kubectl, POD).await?;
        administration::describe_tells_of_a_pod(&case.kubectl, POD).await?;
        // Debian's takes no server with a path.
        if case.carrier != Carrier::Spdy {
            administration::proxy_answers(&case.kubectl, POD).await?;
        }
        administration::drain_empties_the_node(&case.kubectl, &case.site.server, "drained").await?;
    }
    Ok(())
}

/// Debian's kubectl asks for ephemeral containers as servers before 1.23 had them.
#[tokio::test]
async fn newer_kubectls_debug() -> Result<()> {
    for case in Case::all().await?.into_iter().filter(|case| case.carrier != Carrier::Spdy) {
        administration::debug_runs_beside_the_pod(&case.kubectl, POD).await?;
        case.ends()?;
    }
    Ok(())
}

#[tokio::test]
async fn requests_come_over_http_2_and_streams_over_http_1() -> Result<()> {
    let case = Case::start(tool::newest_kubectl()?, Carrier::WebSocket).await?;
    streaming::exec_keeps_the_exit_code(&case.kubectl, POD).await?;
    let requests = case.site.server.requests();
    let (upgrades, others): (Vec<_>, Vec<_>) =
        requests.iter().partition(|seen| seen.headers.contains_key(hyper::header::UPGRADE));
    assert!(!upgrades.is_empty() && upgrades.iter().all(|seen| seen.version == Version::HTTP_11), "{upgrades:?}");
    assert!(!others.is_empty() && others.iter().all(|seen| seen.version == Version::HTTP_2), "{others:?}");
    Ok(())
}

#[tokio::test]
async fn the_spoke_knows_the_hubs_user() -> Result<()> {
    let case = Case::start(tool::newest_kubectl()?, Carrier::WebSocket).await?;
    administration::whoami_tells_who_asks(&case.kubectl, "admin", &["system:authenticated"]).await
}

#[tokio::test]
async fn many_execs_at_once_lose_nothing() -> Result<()> {
    let case = Case::start(tool::kubectl()?, Carrier::WebSocket).await?;
    streaming::execs_at_once_lose_nothing(&case.kubectl, POD, 50).await
}

#[tokio::test]
async fn gibibytes_come_through_whole() -> Result<()> {
    const DOWN: u64 = 2 << 30;
    const UP: u64 = 512 << 20;
    let case = Case::start(tool::kubectl()?, Carrier::WebSocket).await?;
    // Numbers in their order: a byte that is lost, doubled or moved shows.
    let numbers = |bytes: u64| format!("seq 1 300000000 | head -c {bytes}");
    let down = case.kubectl.program(&format!("exec {POD} -- sh -c '{}'", numbers(DOWN)));
    let sum = down.in_pipeline("", "| sha256sum").run(LONG).await?.success()?;
    ensure!(sum.starts_with("773104d51781d005f3b533d5d65cefa3f098b811910def4401ac2c603073b037"), "{sum}");
    let up = case.kubectl.program(&format!("exec -i {POD} -- sha256sum"));
    let sum = up.in_pipeline(&format!("{} |", numbers(UP)), "").run(LONG).await?.success()?;
    ensure!(sum.starts_with("23498f8f8939e4baded916565fff0630bb659e458c853a39983e1f847ac59066"), "{sum}");
    Ok(())
}
