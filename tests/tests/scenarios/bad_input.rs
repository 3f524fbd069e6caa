//! What is no request: garbage, halves, floods and silence on every port are answered or dropped, and cost nothing for long.

mod api;
mod http;
mod http2;
mod quic;
mod silence;
mod socks5;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustls::ClientConfig;
use tests::client::{Connection, Entry};
use tests::raw_agent::{AgentCredentials, RawAgent};
use tests::{Client, Hub, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// How long anything may take on a loaded machine: some deadlines of the hub are 10 s.
const BOUND: Duration = Duration::from_secs(40);

/// A hub with one agent and short deadlines, and what it holds while nobody asks for anything.
struct Target {
    hub: Hub,
    agent: RawAgent,
    credentials: AgentCredentials,
    held: usize,
}

impl Target {
    async fn start() -> Result<Self> {
        let hub = Hub::builder().args(["--head-timeout", "1s", "--dial-timeout", "2s"]).start().await?;
        let credentials = AgentCredentials::joined(&hub, "a", "agent").await?;
        let agent = RawAgent::open(&hub, &credentials).await?;
        let mut target = Self { hub, agent, credentials, held: 0 };
        target.serves().await?;
        let process = target.hub.process();
        // Connections of the harness itself are closed by now, or about to be.
        let mut fewest = process.open_files()?;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            fewest = fewest.min(process.open_files()?);
        }
        target.held = fewest;
        Ok(target)
    }

    /// Every way into the clients' port.
    fn entries(&self) -> Result<[Entry; 3]> {
        let proxy = self.hub.addresses().proxy;
        let tls = self.hub.credentials().tls()?;
        Ok([Entry::Plain(proxy), Entry::Tls(proxy, tls), Entry::Unix(self.hub.socket())])
    }

    /// The TLS port of the API.
    fn api(&self) -> Result<Entry> {
        let tls: Arc<ClientConfig> = self.hub.credentials().tls()?;
        Ok(Entry::Tls(self.hub.addresses().api, tls))
    }

    fn metrics(&self) -> Entry {
        Entry::Plain(self.hub.addresses().metrics)
    }

    /// Demands that a connection is proxied.
    async fn serves(&self) -> Result<()> {
        let (mut client, mut agent) = self.agent.connect(&self.hub.client("a")?, "target:80").await?;
        client.write_all(b"ping").await?;
        let mut seen = [0; 4];
        timeout(BOUND, agent.read_exact(&mut seen)).await.context("nothing passes")??;
        ensure!(&seen == b"ping");
        Ok(())
    }

    /// Demands that nothing is held any more, nothing has panicked, and the hub still serves.
    async fn is_unharmed(&mut self) -> Result<()> {
        wait_for(BOUND, "the hub to let go", async || {
            let open = self.hub.process().open_files()?;
            ensure!(open <= self.held, "{open} open files, {} before", self.held);
            Ok(())
        })
        .await?;
        self.serves().await?;
        let stderr = self.hub.process().stderr();
        let panicked = stderr.iter().find(|line| line.contains("panicked"));
        ensure!(panicked.is_none(), "{panicked:?}");
        Ok(())
    }
}

/// Sends `bytes` and gives all that comes back until the hub ends the connection, one way or the other.
async fn answer_to(entry: &Entry, bytes: &[u8]) -> Result<Vec<u8>> {
    let connection = Client::new(entry.clone()).enter().await?;
    let (mut reader, mut writer) = tokio::io::split(connection);
    let mut answer = Vec::new();
    let exchange = async {
        tokio::join!(
            async {
                // The hub may have refused before it has everything.
                let _ = writer.write_all(bytes).await;
                let _ = writer.flush().await;
            },
            async {
                // A reset ends it as well; what was read before it stays read.
                let _ = reader.read_to_end(&mut answer).await;
            }
        )
    };
    timeout(BOUND, exchange).await.with_context(|| format!("{} was held", shown(bytes)))?;
    Ok(answer)
}

/// Waits until the hub ends the connection.
async fn ended(mut connection: Connection) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    // A reset is an end, too.
    let _ = timeout(BOUND, connection.read_to_end(&mut answer)).await.context("the connection is held")?;
    Ok(answer)
}

/// The start of some bytes, for messages.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).escape_debug().to_string()
}
