//! A real Chromium without a window, with a home folder, certificates and policies of its own, driven by its DevTools protocol.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::{Credentials, Process, tool, wait_for};

/// How long a start, or one command, may take on a loaded machine.
const BOUND: Duration = Duration::from_secs(60);

/// What a scenario asks of it is all that it does.
const QUIET: [&str; 14] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-breakpad",
    "--disable-extensions",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Everything here is at loopback addresses; sites of the internet would be asked for leave to reach such.
    "--disable-features=LocalNetworkAccessChecks",
    "--remote-debugging-port=0",
    "about:blank",
];

/// Shows a server that asks for one the only certificate there is.
const POLICIES: &str = r#"{"AutoSelectCertificateForUrls": ["{\"pattern\":\"*\",\"filter\":{}}"]}"#;

/// A browser about to start.
#[derive(Debug, Default)]
pub struct BrowserBuilder {
    arguments: Vec<String>,
    names: Vec<String>,
}

/// A browser. It is killed with all its processes when dropped.
#[derive(Debug)]
pub struct Browser {
    _process: Process,
    devtools: Mutex<WebSocketStream<TcpStream>>,
    commands: AtomicU64,
    _folder: TempDir,
}

/// One of its tabs.
#[derive(Debug)]
pub struct Page<'a> {
    browser: &'a Browser,
    session: String,
}

impl BrowserBuilder {
    /// Adds arguments of Chromium, e.g. `["--proxy-server=127.0.0.1:8090"]`.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Resolves `name` to this address.
    #[must_use]
    pub fn name(mut self, name: &str, address: &str) -> Self {
        self.names.push(format!("MAP {name} {address}"));
        self
    }

    /// Starts it with a user's certificate, for servers that ask for one, and trust in the CA of the user's hub. Needs root: its
    /// policies are the machine's, which it has in a mount namespace of its own.
    pub async fn start(self, user: &Credentials) -> Result<Browser> {
        let folder = TempDir::new().context("no temporary folder for the browser")?;
        let (home, policies) = (folder.path().join("home"), folder.path().join("etc"));
        fs::create_dir_all(policies.join("policies/managed"))?;
        fs::write(policies.join("policies/managed/certificates.json"), POLICIES)?;
        keep_certificates(user, &home).await?;
        let within = "mount --bind \"$0\" /etc/chromium && exec \"$@\"";
        let chromium = tool::chromium()?.args(QUIET).args(self.arguments);
        let chromium = chromium.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        let chromium = chromium.arg(format!("--host-resolver-rules={}", self.names.join(",")));
        let process = chromium.within_namespaces(within, &policies).env("HOME", &home).spawn()?;
        let devtools = |line: &str| Some(line.strip_prefix("DevTools listening on ")?.to_owned());
        let url = process.stderr_line(BOUND, "the address of its DevTools", devtools).await?;
        let host = url.strip_prefix("ws://").and_then(|rest| rest.split('/').next()).context("no ws:// URL")?;
        let (devtools, _) = tokio_tungstenite::client_async(&url, TcpStream::connect(host).await?).await?;
        let (devtools, commands) = (Mutex::new(devtools), AtomicU64::new(0));
        Ok(Browser { _process: process, devtools, commands, _folder: folder })
    }
}

/// Puts the user's certificate, and the CA as one that is trusted, where Chromium looks for them.
async fn keep_certificates(user: &Credentials, home: &Path) -> Result<()> {
    let folder = home.join(".pki/nssdb");
    fs::create_dir_all(&folder)?;
    let database = format!("sql:{}", folder.display());
    let bundle = home.join("user.p12");
    let certutil = || Ok::<_, anyhow::Error>(tool::certutil()?.args(["-d", &database]));
    certutil()?.args(["-N", "--empty-password"]).run(BOUND).await?.success()?;
    let ca = certutil()?.args(["-A", "-n", "hub", "-t", "C,,", "-i"]).arg(user.authority_file());
    ca.run(BOUND).await?.success()?;
    let openssl = tool::openssl()?.args(["pkcs12", "-export", "-name", "user", "-passout", "pass:", "-in"]);
    let openssl = openssl.arg(user.certificate_file()).arg("-inkey").arg(user.key_file()).arg("-out").arg(&bundle);
    openssl.run(BOUND).await?.success()?;
    tool::pk12util()?.args(["-d", &database, "-W", "", "-i"]).arg(bundle).run(BOUND).await?.success()?;
    Ok(())
}

impl Browser {
    /// One with defaults, or what the builder adds.
    pub fn builder() -> BrowserBuilder {
        BrowserBuilder::default()
    }

    /// A new tab that shows this page, or why it cannot.
    pub async fn open(&self, url: &str) -> Result<Page<'_>> {
        let target = self.command("Target.createTarget", json!({ "url": "about:blank" }), None).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.command("Target.attachToTarget", attach, None).await?;
        let session = attached["sessionId"].as_str().context("no session")?.to_owned();
        let page = Page { browser: self, session };
        page.go(url).await?;
        Ok(page)
    }

    async fn command(&self, method: &str, parameters: Value, session: Option<&str>) -> Result<Value> {
        let id = self.commands.fetch_add(1, Ordering::Relaxed);
        let mut command = json!({ "id": id, "method": method, "params": parameters });
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        let mut devtools = self.devtools.lock().await;
        let exchange = async {
            devtools.send(Message::text(command.to_string())).await?;
            while let Some(message) = devtools.next().await {
                // Between the answers are events.
                let answer: Value = serde_json::from_str(message?.to_text()?)?;
                if answer["id"] == id {
                    ensure!(answer["error"].is_null(), "{}", answer["error"]);
                    return Ok(answer["result"].clone());
                }
            }
            bail!("the browser has ended")
        };
        let answered = timeout(BOUND, exchange).await;
        answered.with_context(|| format!("{method} was not answered within {BOUND:?}"))?.context(method.to_owned())
    }
}

impl Page<'_> {
    /// Goes elsewhere, and waits until that is loaded; an error that has no answer of a server is one here.
    pub async fn go(&self, url: &str) -> Result<()> {
        let gone = self.command("Page.navigate", json!({ "url": url })).await?;
        ensure!(gone["errorText"].is_null(), "{url}: {}", gone["errorText"]);
        wait_for(BOUND, "the page to be loaded", async || {
            let state = self.evaluate("document.readyState").await?;
            ensure!(state == "complete", "{state}");
            Ok(())
        })
        .await
    }

    /// The value of a JavaScript expression in the page, or what a promise comes to.
    pub async fn evaluate(&self, expression: &str) -> Result<Value> {
        let asked =
            json!({ "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true });
        let answer = self.command("Runtime.evaluate", asked).await?;
        let thrown = &answer["exceptionDetails"];
        ensure!(thrown.is_null(), "{expression}: {}", thrown["exception"]["description"]);
        Ok(answer["result"]["value"].clone())
    }

    /// The text that the page shows.
    pub async fn text(&self) -> Result<String> {
        let text = self.evaluate("document.body.innerText").await?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    async fn command(&self, method: &str, parameters: Value) -> Result<Value> {
        self.browser.command(method, parameters, Some(&self.session)).await
    }
}
