//! Services by URL: what is left apart where all are of one origin, and what other sites can make of it.

use anyhow::{Context as _, Result, ensure};
use http_body_util::Full;
use hyper::Response;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::{EVIL, Pages, Site, html};

fn with(text: &str, fields: &[(&'static str, &'static str)]) -> Response<Full<Bytes>> {
    let mut response = html(text);
    for (name, value) in fields {
        response.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

#[tokio::test]
async fn a_cookie_comes_back_to_the_service_that_set_it_alone() -> Result<()> {
    let site = Site::start().await?;
    let web = Pages::start(|_| {
        let cookies =
            ["a=1; Path=/", "b=2", "__Host-c=3; Secure; Path=/", "d=4; Path=/; Domain=cluster-proxy.internal"];
        with("<p>set", &cookies.map(|cookie| ("set-cookie", cookie)))
    });
    let (web, other, browser) = (web.await?, Pages::empty().await?, site.browser(&[]).await?);
    let page = browser.open(&site.service("web", web.port(), "/deep/page")).await?;
    page.go(&site.service("web", web.port(), "/deep/again")).await?;
    page.go(&site.service("other", other.port(), "/")).await?;
    let back = web.requests("/deep/again").await;
    let cookies = back[0].headers().get("cookie").context("no cookie came back")?.to_str()?;
    let mut cookies: Vec<_> = cookies.split("; ").collect();
    cookies.sort_unstable();
    ensure!(cookies == ["__Host-c=3", "a=1", "b=2", "d=4"], "{cookies:?}");
    let elsewhere = other.requests("/").await;
    ensure!(elsewhere[0].headers().get("cookie").is_none(), "{elsewhere:?}");
    Ok(())
}

#[tokio::test]
async fn a_service_worker_serves_nothing_but_its_own_service() -> Result<()> {
    let site = Site::start().await?;
    let web = Pages::empty().await?;
    let scripts = Pages::start(|_| {
        let mut response = with("", &[("service-worker-allowed", "/")]);
        response.headers_mut().insert("content-type", HeaderValue::from_static("text/javascript"));
        response
    });
    let (scripts, browser) = (scripts.await?, site.browser(&[]).await?);
    let page = browser.open(&site.service("web", web.port(), "/")).await?;
    let register = |script: &str, scope: &str| {
        format!(
            "navigator.serviceWorker.register('{script}', {{scope: '{scope}'}}).then(() => 'there', error => error.name)"
        )
    };
    let below = format!("/clusters/one/services/mon/web:{}/", scripts.port());
    let worker = format!("{below}worker.js");
    for scope in ["/", "/clusters/one/services/mon/", "/clusters/one/services/mon/other:80/"] {
        let said = page.evaluate(&register(&worker, scope)).await?;
        ensure!(said == "SecurityError", "{scope}: {said}");
    }
    // In this form the service's first page is no folder, and its script would have that of all services of the namespace.
    let ocm = format!("/one/api/v1/namespaces/mon/services/http:web:{}/proxy-service", scripts.port());
    let said = page.evaluate(&register(&ocm, "/one/api/v1/namespaces/mon/services/")).await?;
    ensure!(said != "there", "{said}");
    let said = page.evaluate(&register(&worker, &below)).await?;
    ensure!(said == "there", "{said}");
    Ok(())
}

#[tokio::test]
async fn what_holds_for_the_whole_origin_is_no_services_to_say() -> Result<()> {
    let site = Site::start().await?;
    let web = Pages::start(|_| {
        with(
            "<p>page",
            &[
                ("clear-site-data", "\"cookies\", \"storage\""),
                ("strict-transport-security", "max-age=1"),
                ("access-control-allow-origin", "*"),
                ("refresh", "999; url=/later"),
                ("x-kept", "1"),
            ],
        )
    });
    let (web, browser) = (web.await?, site.browser(&[]).await?);
    let page = browser.open(&site.service("web", web.port(), "/")).await?;
    page.evaluate("localStorage.setItem('kept', 'yes')").await?;
    page.go(&site.service("web", web.port(), "/again")).await?;
    ensure!(page.evaluate("localStorage.getItem('kept')").await? == "yes");
    let seen = page.evaluate("fetch(location).then(answer => Object.fromEntries(answer.headers))").await?;
    for gone in ["clear-site-data", "strict-transport-security", "access-control-allow-origin"] {
        ensure!(seen[gone].is_null(), "{seen}");
    }
    ensure!(seen["x-kept"] == "1" && seen["x-content-type-options"] == "nosniff", "{seen}");
    let later = json!(format!("999; url=/clusters/one/services/mon/web:{}/later", web.port()));
    ensure!(seen["refresh"] == later, "{seen}");
    Ok(())
}

#[tokio::test]
async fn no_other_site_shows_a_service_in_a_frame() -> Result<()> {
    let site = Site::start().await?;
    let (web, evil, browser) = (Pages::empty().await?, Pages::empty().await?, site.browser(&[]).await?);
    let page = browser.open(&format!("http://{EVIL}:{}/", evil.port())).await?;
    let frame = |url: String| {
        format!(
            "new Promise(done => {{ const frame = document.createElement('iframe'); frame.src = '{url}';
             frame.onload = () => done('loaded'); document.body.append(frame); setTimeout(() => done('late'), 5000) }})"
        )
    };
    page.evaluate(&frame(site.service("web", web.port(), "/framed"))).await?;
    ensure!(web.requests("/framed").await.is_empty(), "the service was asked for its page in a frame");
    let own = browser.open(&site.service("web", web.port(), "/")).await?;
    ensure!(own.evaluate(&frame(site.service("web", web.port(), "/own"))).await? == "loaded");
    ensure!(web.requests("/own").await.len() == 1);
    Ok(())
}

#[tokio::test]
async fn a_service_is_told_the_hubs_address_as_its_own() -> Result<()> {
    let site = Site::start().await?;
    let web = Pages::start(|request| match request.uri().path() {
        "/old" => {
            let host = request.headers()["host"].to_str().unwrap_or_default();
            let mut response = html("");
            *response.status_mut() = hyper::StatusCode::FOUND;
            response.headers_mut().insert("location", HeaderValue::try_from(format!("http://{host}/new")).unwrap());
            response
        }
        _ => html("<p>page"),
    });
    let (web, browser) = (web.await?, site.browser(&[]).await?);
    let page = browser.open(&site.service("web", web.port(), "/old")).await?;
    ensure!(page.evaluate("location.href").await? == site.service("web", web.port(), "/new"));
    page.evaluate("fetch('posted', {method: 'POST'}).then(answer => answer.status)").await?;
    let posted = web.requests("/posted").await;
    let told = |name: &str| posted[0].headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ensure!(told("origin") == format!("https://{}", told("host")), "{posted:?}");
    ensure!(told("x-forwarded-host") == told("host") && told("x-forwarded-proto") == "https", "{posted:?}");
    Ok(())
}

#[tokio::test]
async fn a_setting_keeps_browsers_from_services() -> Result<()> {
    let site = Site::start_with(&["--service-urls", "no-browsers"]).await?;
    let (web, browser) = (Pages::empty().await?, site.browser(&[]).await?);
    let page = browser.open(&site.service("web", web.port(), "/page")).await?;
    ensure!(page.text().await?.contains("--service-urls"), "{}", page.text().await?);
    ensure!(web.requests("/page").await.is_empty());
    let path = format!("/clusters/one/services/mon/web:{}/page", web.port());
    let (hub, user) = (site.hub.addresses().api, site.hub.credentials());
    tests::Fetch::get(path).tls(hub, tests::HUB_NAME, user.mutual_tls()?).await?.success()?;
    Ok(())
}
