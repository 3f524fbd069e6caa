//! A service of a spoke by its URL at the hub: pages, uploads, events, WebSockets, and what a browser may do.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper::{Method, StatusCode};
use tempfile::TempDir;
use tests::hub::ClusterAccess;
use tests::service::authority::TargetAuthority;
use tests::service::web::{self, Web};
use tests::{Answer, Fetch, HUB_NAME, Hub, Spoke, tool};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::BOUND;

/// A hub, and a cluster in which `web.mon` is a service that speaks HTTP and `safe.mon` one that speaks HTTPS.
struct Site {
    hub: Hub,
    web: Web,
    safe: Web,
    _spoke: Spoke,
    _folder: TempDir,
    _authority: TargetAuthority,
}

impl Site {
    async fn start() -> Result<Self> {
        let hub = Hub::start().await?;
        let authority = TargetAuthority::new()?;
        let (web, safe) =
            (web::plain("web").await?, web::tls("safe", authority.server_config(&["safe.mon.svc"])?).await?);
        let folder = TempDir::new()?;
        let hosts = folder.path().join("hosts");
        std::fs::write(&hosts, "127.0.0.1 localhost web.mon.svc safe.mon.svc other.mon.svc\n")?;
        let ca = authority.file().display().to_string();
        let spoke = Spoke::of(&hub, "one").hosts(&hosts).args(["--service-ca", &ca]).start().await?;
        Ok(Self { hub, web, safe, _spoke: spoke, _folder: folder, _authority: authority })
    }

    fn url(&self, service: &str, web: &Web, path: &str) -> String {
        format!("/clusters/one/services/mon/{service}:{}{path}", web.service().port())
    }

    fn api(&self) -> SocketAddr {
        self.hub.addresses().api
    }

    async fn fetch(&self, fetch: Fetch) -> Result<Answer> {
        fetch.tls(self.api(), HUB_NAME, self.hub.credentials().mutual_tls()?).await
    }
}

#[tokio::test]
async fn services_are_reached_by_both_forms_of_their_url() -> Result<()> {
    let site = Site::start().await?;
    let (plain, tls) = (site.web.service().port(), site.safe.service().port());
    let ocm = "/one/api/v1/namespaces/mon/services";
    for (path, says) in [
        (site.url("web", &site.web, "/"), "web\n"),
        (site.url("https:safe", &site.safe, "/"), "safe\n"),
        (format!("{ocm}/http:web:{plain}/proxy-service"), "web\n"),
        (format!("{ocm}/http:web:{plain}/proxy-service/"), "web\n"),
        (format!("{ocm}/safe:{tls}/proxy-service/"), "safe\n"),
    ] {
        let answer = site.fetch(Fetch::get(&path)).await?.success()?;
        ensure!(answer.text() == says, "{path}: {}", answer.text());
    }
    let seen = site.fetch(Fetch::get(site.url("web", &site.web, "/request?a=b%2Fc"))).await?.success()?.json()?;
    ensure!(seen["target"] == "/request?a=b%2Fc", "{seen}");
    let fields = seen["headers"].to_string();
    ensure!(fields.contains("x-forwarded-prefix") && !fields.contains("authorization"), "{fields}");
    // A service whose certificate is another's is not believed.
    let other = site.fetch(Fetch::get(site.url("https:other", &site.safe, "/"))).await?;
    ensure!(other.status == StatusCode::BAD_GATEWAY && other.text().contains("--service-ca"), "{}", other.text());
    // Where a page's links start.
    let moved = site.fetch(Fetch::get(site.url("web", &site.web, ""))).await?;
    ensure!(moved.status == StatusCode::PERMANENT_REDIRECT, "{}", moved.status);
    Ok(())
}

#[tokio::test]
async fn what_the_hub_says_is_no_clients_to_take_out() -> Result<()> {
    let site = Site::start().await?;
    let named = "host, x-forwarded-for, X-Forwarded-Host, x-forwarded-proto, x-forwarded-prefix, via, x-own";
    let fetch = Fetch::get(site.url("web", &site.web, "/request")).header("Connection", named).header("X-Own", "1");
    let fetch =
        fetch.header("X-Forwarded-For", "10.9.9.9").header("X-Forwarded-Port", "1").header("Forwarded", "for=x");
    let seen = site.fetch(fetch).await?.success()?.json()?;
    let fields: Vec<(String, String)> = serde_json::from_value(seen["headers"].clone())?;
    let told = |name: &str| fields.iter().filter(|(told, _)| told == name).map(|(_, value)| value).collect::<Vec<_>>();
    for (name, value) in [("host", HUB_NAME), ("x-forwarded-host", HUB_NAME), ("x-forwarded-proto", "https")] {
        ensure!(told(name) == [value], "{name}: {fields:?}");
    }
    ensure!(told("x-forwarded-prefix").len() == 1, "{fields:?}");
    ensure!(told("x-forwarded-for").iter().all(|told| told.starts_with("127.")), "{fields:?}");
    ensure!(told("x-forwarded-for").len() == 1 && told("x-own").is_empty(), "{fields:?}");
    ensure!(told("x-forwarded-port").is_empty() && told("forwarded").is_empty(), "{fields:?}");
    Ok(())
}

#[tokio::test]
async fn nobody_is_spoken_for_where_it_would_not_be_told() -> Result<()> {
    let site = Site::start().await?;
    for path in [site.url("web", &site.web, "/"), "/v1/tunnels".into(), "/prometheus/targets".into()] {
        for field in ["Impersonate-User", "Impersonate-Group", "Impersonate-Extra-Scopes"] {
            let answer = site.fetch(Fetch::get(&path).header(field, "bob")).await?;
            ensure!(answer.status == StatusCode::BAD_REQUEST, "{path} {field}: {} {}", answer.status, answer.text());
            ensure!(answer.text().to_lowercase().contains(&field.to_lowercase()), "{}", answer.text());
        }
    }
    let uid = Fetch::get("/clusters/one/api").header("Impersonate-User", "bob").header("Impersonate-Uid", "7");
    let answer = site.fetch(uid).await?;
    ensure!(answer.status == StatusCode::BAD_REQUEST, "{} {}", answer.status, answer.text());
    ensure!(site.web.requests() == 0);
    Ok(())
}

#[tokio::test]
async fn large_bodies_pass_both_ways() -> Result<()> {
    const SIZE: usize = 32 * 1024 * 1024;
    let site = Site::start().await?;
    let body: Vec<u8> = (0..SIZE).map(|index| (index % 251) as u8).collect();
    let echoed = site.fetch(Fetch::new(Method::POST, site.url("web", &site.web, "/echo")).body(body.clone())).await?;
    ensure!(echoed.status.is_success() && echoed.body == body, "{} bytes came back", echoed.body.len());
    Ok(())
}

#[tokio::test]
async fn who_has_no_right_to_the_cluster_reaches_no_service() -> Result<()> {
    let site = Site::start().await?;
    let stranger = site.hub.create_user("stranger", &ClusterAccess::Named(Vec::new())).await?;
    let url = site.url("web", &site.web, "/");
    let refused = Fetch::get(&url).tls(site.api(), HUB_NAME, stranger.mutual_tls()?).await?;
    ensure!(refused.status == StatusCode::FORBIDDEN, "{}", refused.text());
    let nobody = Fetch::get(&url).tls(site.api(), HUB_NAME, stranger.tls()?).await?;
    ensure!(nobody.status == StatusCode::UNAUTHORIZED, "{}", nobody.text());
    // A browser asks its user for the token.
    ensure!(nobody.headers["www-authenticate"].to_str()?.starts_with("Basic"), "{:?}", nobody.headers);
    ensure!(site.web.requests() == 0);
    Ok(())
}

#[tokio::test]
async fn a_page_from_a_spoke_asks_nothing_of_the_hub() -> Result<()> {
    let site = Site::start().await?;
    let service = site.url("web", &site.web, "/");
    let clusters = "/apis/cluster.open-cluster-management.io/v1/managedclusters";
    let api = "/clusters/one/api/v1/pods";
    for (path, from, mode, allowed) in [
        (service.as_str(), "none", "navigate", true),
        (&service, "same-origin", "cors", true),
        (&service, "cross-site", "navigate", true),
        (&service, "cross-site", "cors", false),
        (clusters, "none", "navigate", true),
        (clusters, "same-origin", "cors", false),
        (clusters, "same-origin", "navigate", false),
        ("/v1/status", "same-origin", "cors", false),
        (api, "same-origin", "cors", false),
        (api, "cross-site", "navigate", false),
    ] {
        let fetch = Fetch::get(path).header("Sec-Fetch-Site", from).header("Sec-Fetch-Mode", mode);
        let status = site.fetch(fetch).await?.status;
        ensure!((status != StatusCode::FORBIDDEN) == allowed, "{path} from {from} by {mode}: {status}");
    }
    let posted = Fetch::new(Method::POST, &service).header("Sec-Fetch-Site", "cross-site");
    let status = site.fetch(posted.header("Sec-Fetch-Mode", "navigate")).await?.status;
    ensure!(status == StatusCode::FORBIDDEN, "{status}");
    Ok(())
}

#[tokio::test]
async fn websockets_of_services_pass() -> Result<()> {
    let site = Site::start().await?;
    let echo = tests::Service::start(|stream| async move {
        let mut socket = tokio_tungstenite::accept_async(stream).await.map_err(std::io::Error::other)?;
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
        Ok(())
    })
    .await?;
    let tcp = TcpStream::connect(site.api()).await?;
    let connector = TlsConnector::from(site.hub.credentials().mutual_tls()?);
    let tls = connector.connect(HUB_NAME.try_into()?, tcp).await?;
    let url = format!("ws://{HUB_NAME}/clusters/one/services/mon/web:{}/socket", echo.port());
    let (mut socket, _) = tokio_tungstenite::client_async(url, tls).await?;
    for text in ["one", "two"] {
        socket.send(text.into()).await?;
        let answer = socket.next().await.context("the socket ended")??;
        ensure!(answer.to_text()? == text, "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn grpc_of_services_passes_with_its_trailers() -> Result<()> {
    let site = Site::start().await?;
    let script = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/grpc").join(name);
        Ok::<_, anyhow::Error>(tool::grpc_python()?.arg(file))
    };
    let service = script("service.py")?.with_stdin().spawn()?;
    let port: u16 = service.stdout_line(BOUND, "the service's port", |line| line.parse().ok()).await?;
    let path = format!("/clusters/one/services/mon/web:{port}");
    let (hub, credentials) = (site.api().to_string(), site.hub.credentials());
    let client = script("client.py")?.args([&hub, &path]).arg(credentials.folder()).arg(HUB_NAME);
    let told: serde_json::Value = serde_json::from_str(&client.run(BOUND).await?.success()?)?;
    let expected = serde_json::json!({"once": true, "each": true, "fail": ["ALREADY_EXISTS", "there is one"]});
    ensure!(told == expected, "{told}");
    Ok(())
}
