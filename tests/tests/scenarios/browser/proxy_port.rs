//! The plain ports on loopback: pages in a browser of the hub's own machine, which may be set to use the proxy, and other users of
//! that machine.

use std::time::Duration;

use anyhow::{Result, ensure};
use tests::tool;

use super::{EVIL, Pages, Site, open_socket, socket_echo};

const BOUND: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_page_asks_nothing_of_the_plain_port() -> Result<()> {
    let site = Site::start().await?;
    let (web, evil) = (Pages::empty().await?, Pages::empty().await?);
    let proxy = site.hub.addresses().proxy;
    let browser = site.browser(&["--disable-popup-blocking"]).await?;
    let page = browser.open(&format!("http://{EVIL}:{}/", evil.port())).await?;
    let target = format!("web.mon.one.clusters.internal:{}", web.port());
    for url in [format!("http://{proxy}/"), format!("http://{proxy}/http://{target}/"), format!("https://{proxy}/")] {
        let fetch = format!("fetch('{url}', {{mode: 'no-cors'}}).then(answer => answer.type, () => 'failed')");
        let said = page.evaluate(&fetch).await?;
        ensure!(said == "opaque" || said == "failed", "{url}: {said}");
        let said = page.evaluate(&format!("fetch('{url}').then(() => 'read', () => 'failed')")).await?;
        ensure!(said == "failed", "{url}: {said}");
    }
    for url in [format!("ws://{proxy}/{target}"), format!("ws://one:x@{proxy}/")] {
        let said = page.evaluate(&open_socket(&url, "[]", BOUND)).await?;
        ensure!(said == "closed", "{url}: {said}");
    }
    // What the browser shows by itself is no more than how to use the port.
    let shown = browser.open(&format!("http://one:{}@{proxy}/", site.hub.credentials().token()?)).await?;
    ensure!(shown.text().await?.contains("only supports"), "{}", shown.text().await?);
    ensure!(web.service.accepted() == 0, "the service was dialled");
    Ok(())
}

#[tokio::test]
async fn a_browser_that_uses_the_plain_port_as_its_proxy_gets_nothing_without_a_token() -> Result<()> {
    let site = Site::start().await?;
    let (web, echo) = (Pages::empty().await?, socket_echo().await?);
    let proxy = format!("--proxy-server=http://{}", site.hub.addresses().proxy);
    // evil.example itself is asked without it.
    let arguments = [proxy.as_str(), &format!("--proxy-bypass-list={EVIL}")];
    let browser = site.browser(&arguments).await?;
    let evil = Pages::empty().await?;
    let page = browser.open(&format!("http://{EVIL}:{}/", evil.port())).await?;
    let name = "web.mon.one.clusters.internal";
    for url in [
        format!("http://{name}:{}/", web.port()),
        format!("http://one:x@{name}:{}/", web.port()),
        format!("https://{name}:{}/", web.port()),
    ] {
        let fetch = format!(
            "Promise.race([fetch('{url}', {{mode: 'no-cors', method: 'POST'}}).then(answer => answer.type, () => 'failed'),
             new Promise(done => setTimeout(() => done('late'), 5000))])"
        );
        page.evaluate(&fetch).await?;
    }
    let form = format!(
        "new Promise(done => {{
            const frame = document.createElement('iframe'); frame.name = 'frame'; document.body.append(frame);
            const form = document.createElement('form'); form.method = 'post'; form.action = 'http://{name}:{}/form';
            form.target = 'frame'; document.body.append(form); form.submit(); setTimeout(() => done('sent'), 2000);
        }})",
        web.port()
    );
    page.evaluate(&form).await?;
    let socket = open_socket(&format!("ws://{name}:{}/", echo.port()), "[]", Duration::from_secs(5));
    let said = page.evaluate(&socket).await?;
    ensure!(said != "open word", "{said}");
    ensure!(web.service.accepted() == 0 && echo.accepted() == 0, "a target was dialled");
    Ok(())
}

#[tokio::test]
async fn another_user_of_the_machine_needs_a_token() -> Result<()> {
    let site = Site::start().await?;
    let web = Pages::empty().await?;
    let curl = tool::curl()?.args(["--max-time", "10", "--write-out", "%{http_code}"]);
    let nobody = |arguments: &[&str]| curl.clone().args(arguments).as_nobody();
    let target = format!("web.mon.one.clusters.internal:{}", web.port());
    let proxy = format!("http://{}", site.hub.addresses().proxy);
    let socket = site.hub.socket().display().to_string();
    let plain = nobody(&["--proxy", &proxy, &format!("http://{target}/")]).run(BOUND).await?;
    ensure!(String::from_utf8_lossy(&plain.stdout).ends_with("407"), "{plain:?}");
    let connect = nobody(&["--proxy", &proxy, "--proxytunnel", &format!("http://{target}/")]).run(BOUND).await?;
    ensure!(!connect.status.success() && connect.stderr.contains("407"), "{connect:?}");
    let unix = nobody(&["--unix-socket", &socket, &format!("http://{target}/")]).run(BOUND).await?;
    ensure!(unix.status.code() == Some(7), "{unix:?}");
    ensure!(web.service.accepted() == 0, "the service was dialled");
    Ok(())
}

#[tokio::test]
async fn no_name_that_is_made_to_lead_here_reads_the_metrics() -> Result<()> {
    let site = Site::start().await?;
    let metrics = site.hub.addresses().metrics;
    let url = format!("http://{EVIL}:{}/metrics", metrics.port());
    let to = format!("::{}:{}", metrics.ip(), metrics.port());
    let curl = tool::curl()?.args(["--write-out", "%{http_code}", "--connect-to", &to]);
    let led = curl.clone().arg(&url).run(BOUND).await?.success()?;
    ensure!(led.ends_with("421") && !led.contains("proxy_server_"), "{led}");
    for name in ["localhost", "127.0.0.1", tests::HUB_NAME] {
        let own = curl.clone().arg(url.replace(EVIL, name)).run(BOUND).await?.success()?;
        ensure!(own.ends_with("200") && own.contains("proxy_server_"), "{name}: {own}");
    }
    Ok(())
}
