//! A page that opens a WebSocket into a pod, with the certificate of who looks at it.

use std::time::Duration;

use anyhow::{Result, ensure};
use hyper::{Method, StatusCode};
use tests::{Answer, Fetch, HUB_NAME};

use super::{EVIL, Pages, Site, open_socket, socket_echo};

const BOUND: Duration = Duration::from_secs(20);
const EXEC: &str = "api/v1/namespaces/default/pods/first/exec?command=echo&command=secret&stdout=true";

#[tokio::test]
async fn no_page_opens_a_shell_in_a_pod() -> Result<()> {
    let site = Site::start().await?;
    let (browser, evil) = (site.browser(&[]).await?, Pages::empty().await?);
    let foreign = browser.open(&format!("http://{EVIL}:{}/", evil.port())).await?;
    // All services of all clusters are of the hub's origin.
    let own = browser.open(&site.service("web", evil.port(), "/")).await?;
    ensure!(own.text().await?.contains("page"), "{}", own.text().await?);
    for prefix in ["/clusters/one", "/one"] {
        let url = site.url("wss", &format!("{prefix}/{EXEC}"));
        for (page, whose) in [(&foreign, "another site's"), (&own, "a service's")] {
            let said = page.evaluate(&open_socket(&url, "['v5.channel.k8s.io']", BOUND)).await?;
            ensure!(said == "closed", "{whose} page at {prefix}: {said}");
        }
    }
    let asked = site.server.requests().into_iter().filter(|seen| seen.target.contains("exec")).count();
    ensure!(asked == 0, "the API server was asked {asked} times");
    Ok(())
}

#[tokio::test]
async fn a_services_websocket_is_for_its_own_pages() -> Result<()> {
    let site = Site::start().await?;
    let (browser, pages, echo) = (site.browser(&[]).await?, Pages::empty().await?, socket_echo().await?);
    let url = site.service("web", echo.port(), "/").replace("https:", "wss:");
    let open = open_socket(&url, "[]", BOUND);
    let own = browser.open(&site.service("web", pages.port(), "/")).await?;
    ensure!(own.evaluate(&open).await? == "open word", "{}", own.evaluate(&open).await?);
    let foreign = browser.open(&format!("http://{EVIL}:{}/", pages.port())).await?;
    let said = foreign.evaluate(&open).await?;
    ensure!(said == "closed", "{said}");
    ensure!(echo.accepted() == 1, "{} connections", echo.accepted());
    Ok(())
}

#[tokio::test]
async fn another_sites_page_reads_and_writes_nothing() -> Result<()> {
    let site = Site::start().await?;
    let (browser, pages) = (site.browser(&[]).await?, Pages::empty().await?);
    let page = browser.open(&format!("http://{EVIL}:{}/", pages.port())).await?;
    let service = site.service("web", pages.port(), "/asked");
    for (url, what) in [(&service, "a service"), (&site.url("https", "/clusters/one/api/v1/pods"), "a cluster's API")] {
        for how in
            ["{mode: 'no-cors', credentials: 'include'}", "{method: 'POST', mode: 'no-cors', credentials: 'include'}"]
        {
            page.evaluate(&format!("fetch('{url}', {how}).then(() => 'sent', () => 'failed')")).await?;
        }
        let submit = format!(
            "new Promise(done => {{
                const frame = document.createElement('iframe'); frame.name = 'frame'; frame.onload = () => done('sent');
                document.body.append(frame);
                const form = document.createElement('form'); form.method = 'post'; form.action = '{url}';
                form.target = 'frame'; document.body.append(form); form.submit(); setTimeout(() => done('late'), 3000);
            }})"
        );
        page.evaluate(&submit).await?;
        ensure!(pages.requests("/asked").await.is_empty(), "{what} was asked");
    }
    let asked = site.server.requests();
    ensure!(asked.iter().all(|seen| !seen.target.ends_with("/pods")), "{asked:?}");
    // The user follows a link.
    let open = browser.open(&service).await?;
    ensure!(open.text().await?.contains("page") && pages.requests("/asked").await.len() == 1);
    Ok(())
}

#[tokio::test]
async fn an_origin_is_refused_wherever_it_is_not_the_services_own() -> Result<()> {
    let site = Site::start().await?;
    let pages = Pages::empty().await?;
    let service = format!("/clusters/one/services/mon/web:{}/", pages.port());
    let ocm = format!("/one/api/v1/namespaces/mon/services/http:web:{}/proxy-service/", pages.port());
    let (own, evil) = (format!("https://{HUB_NAME}"), format!("https://{EVIL}"));
    let user = site.hub.credentials();
    let fetch = async |path: &str, fields: &[(&str, &str)]| -> Result<Answer> {
        let fetch =
            fields.iter().fold(Fetch::new(Method::GET, path), |fetch, (name, value)| fetch.header(*name, *value));
        fetch.tls(site.hub.addresses().api, HUB_NAME, user.mutual_tls()?).await
    };
    for path in [
        "/clusters/one/api/v1/namespaces/default/pods",
        "/one/api/v1/namespaces/default/pods",
        "/one/api/v1/namespaces/mon/services/web:80/proxy/",
        "/apis/cluster.open-cluster-management.io/v1/managedclusters",
        "/v1/tunnels",
        "/prometheus/targets",
        "/version",
    ] {
        for origin in [&own, &evil, "null"] {
            let answer = fetch(path, &[("Origin", origin)]).await?;
            ensure!(
                answer.status == StatusCode::FORBIDDEN,
                "{path} from {origin}: {} {}",
                answer.status,
                answer.text()
            );
        }
        let bearer = format!("Bearer {}", user.token()?);
        let answer = fetch(path, &[("Origin", &own), ("Authorization", &bearer)]).await?;
        ensure!(answer.status != StatusCode::FORBIDDEN, "{path} with a token: {}", answer.text());
    }
    for path in [&service, &ocm] {
        for (origin, status) in [(&own, 200), (&evil, 403), (&String::from("null"), 403), (&format!("{own}:8443"), 403)]
        {
            let answer = fetch(path, &[("Origin", origin)]).await?;
            ensure!(answer.status == status, "{path} from {origin}: {}", answer.text());
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_is_not_the_hubs_reaches_nothing() -> Result<()> {
    let site = Site::start_with(&["--api-name", "also.example"]).await?;
    let pages = Pages::empty().await?;
    let (api, user) = (site.hub.addresses().api, site.hub.credentials());
    let service = format!("/clusters/one/services/mon/web:{}/", pages.port());
    for path in [service.as_str(), "/version", "/v1/tunnels", "/clusters/one/api/v1/namespaces/default/pods"] {
        for (name, known) in [
            (EVIL, false),
            (HUB_NAME, true),
            ("also.example", true),
            ("localhost", true),
            (&api.ip().to_string(), true),
        ] {
            let curl = tests::tool::curl()?.args(["--insecure", "--cert"]).arg(user.certificate_file());
            let curl = curl.arg("--key").arg(user.key_file()).args(["--write-out", "%{http_code}"]);
            let curl = curl.args(["--connect-to", &format!("::{}:{}", api.ip(), api.port())]);
            for version in ["--http1.1", "--http2"] {
                let url = format!("https://{name}:{}{path}", api.port());
                let said = curl.clone().args([version, &url]).run(BOUND).await?.success()?;
                ensure!(said.ends_with("421") != known, "{name}{path} {version}: {said}");
                ensure!(known || said.contains("--api-name"), "{said}");
            }
        }
    }
    Ok(())
}
