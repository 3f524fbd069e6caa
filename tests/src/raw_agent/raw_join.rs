//! One join, message by message.

use anyhow::{Context as _, Result, bail};
use certs::{HUB_SERVER_NAME, Pin, PrivateKey, pinned_tls};
use tokio::time::timeout;
use tunnel::{ALPN_JOIN, Connection, Issued, JoinAnswers, JoinReply, JoinRequest, Reason, Refusal};

use super::BOUND;
use crate::Hub;

/// A join that was asked for. Dropping it breaks it off.
#[derive(Debug)]
pub struct RawJoin(JoinAnswers);

/// A well-formed request.
pub fn join_request(token: &str, cluster: &str, agent: &str, key: &PrivateKey) -> Result<JoinRequest> {
    Ok(JoinRequest {
        token: token.to_owned(),
        cluster: cluster.to_owned(),
        agent: agent.to_owned(),
        csr: key.csr_der()?,
        version: "raw".to_owned(),
    })
}

impl RawJoin {
    /// Dials the hub by its pin and asks.
    pub async fn ask(hub: &Hub, request: &JoinRequest) -> Result<Self> {
        Ok(Self(JoinAnswers::ask(Self::silent(hub).await?, request, BOUND).await?))
    }

    /// Dials the hub by its pin and asks nothing.
    pub async fn silent(hub: &Hub) -> Result<Connection> {
        let pin: Pin = hub.addresses().pin.parse()?;
        let tls = pinned_tls(&pin, &[ALPN_JOIN]).config();
        let settings = tunnel::Settings::default();
        Ok(tunnel::connect(hub.addresses().tunnel, tls, HUB_SERVER_NAME, settings, BOUND).await?)
    }

    /// Asks, and demands that the hub refuses at once.
    pub async fn refused(hub: &Hub, request: &JoinRequest) -> Result<(Reason, String)> {
        Self::ask(hub, request).await?.refusal().await
    }

    /// The hub's next answer.
    pub async fn next(&mut self) -> Result<JoinReply> {
        Ok(timeout(BOUND, self.0.next()).await.context("the hub does not answer the join")??)
    }

    /// Demands that the join waits, and tells for which cluster.
    pub async fn pending(&mut self) -> Result<String> {
        let reply = self.next().await?;
        let JoinReply::Pending(pending) = reply else { bail!("not pending: {reply:?}") };
        Ok(pending.cluster)
    }

    /// Demands that the join is granted.
    pub async fn issued(&mut self) -> Result<Issued> {
        let reply = self.next().await?;
        let JoinReply::Issued(issued) = reply else { bail!("not issued: {reply:?}") };
        Ok(issued)
    }

    /// Demands that the join is refused.
    pub async fn refusal(&mut self) -> Result<(Reason, String)> {
        let reply = self.next().await?;
        let JoinReply::Refused(refusal) = reply else { bail!("not refused: {reply:?}") };
        Ok((Refusal::reason(&refusal), refusal.message))
    }

    /// Ends the conversation.
    pub async fn close(self) {
        self.0.close(BOUND).await;
    }
}
