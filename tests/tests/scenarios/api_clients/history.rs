//! What a hub remembers of its changes, and how it is made to forget.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::{Method, StatusCode};
use serde_json::json;
use tests::{Fetch, Hub};

/// A moment of a hub's history.
pub(super) struct History {
    revision: String,
}

/// Nearly the most that a Secret may hold. A hub remembers 64 MiB of changes, each with what was before: some 25 of these.
const LARGE: usize = 1_000_000;
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
/// More than enough changes.
const MOST: usize = 100;
const BOUND: Duration = Duration::from_secs(60);

impl History {
    /// This moment.
    pub(super) async fn of(hub: &Hub) -> Result<Self> {
        let list = hub.ask(Fetch::get(SECRETS)).await?.success()?.json()?;
        let revision = list["metadata"]["resourceVersion"].as_str().context("a list without a revision")?;
        Ok(Self { revision: revision.to_owned() })
    }

    /// Writes large Secrets until the hub has forgotten this moment, and all that came before these writes.
    pub(super) async fn forget(&self, hub: &Hub) -> Result<()> {
        tokio::time::timeout(BOUND, self.write_over(hub)).await.context("the hub forgets too slowly")?
    }

    async fn write_over(&self, hub: &Hub) -> Result<()> {
        let last = Self::of(hub).await?;
        self.write(hub, 0).await?;
        for change in 1..MOST {
            if last.is_forgotten(hub).await? {
                ensure!(self.is_forgotten(hub).await?, "the hub forgot what came later, and not what came first");
                return Ok(());
            }
            self.write(hub, change).await?;
        }
        anyhow::bail!("after {MOST} large changes the hub still remembers")
    }

    async fn write(&self, hub: &Hub, change: usize) -> Result<()> {
        let byte = u8::try_from(change % 256)?;
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": "large" },
            "data": { "bytes": STANDARD.encode(vec![byte; LARGE]) },
        });
        let request = match change {
            0 => Fetch::new(Method::POST, SECRETS),
            _ => Fetch::new(Method::PUT, format!("{SECRETS}/large")),
        };
        hub.ask(request.json(&secret)).await?.success().map(drop)
    }

    /// Whether a list of this moment is refused as too old.
    async fn is_forgotten(&self, hub: &Hub) -> Result<bool> {
        let path = format!("/api/v1/namespaces?resourceVersion={}&resourceVersionMatch=Exact", self.revision);
        let answer = hub.ask(Fetch::get(path)).await?;
        if answer.status == StatusCode::GONE {
            ensure!(answer.json()?["reason"] == "Expired", "{}", answer.text());
            return Ok(true);
        }
        answer.success().map(|_| false)
    }
}
