//! The agent's end of a tunnel: the dials that the hub sends, and the control stream.

use std::{mem, net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    connection::{Connection, ConnectionLost, PathState},
    hub::{EstablishError, Greeting},
    liveness::{Liveness, LivenessCheck},
    socket::Offload,
    socket::mtu::Mtu,
    stream::Stream,
    stream::credit::TunnelMemory,
    stream::windows::Windows,
    transport::{AGENT_STREAMS, FIRST_AGENT_STREAMS},
    wire::code::{CloseReason, ResetReason},
    wire::control::{Control, ControlError},
    wire::message::{
        AgentMessage, Dial, DialOutcome, DialReply, Dialed, FromAgent, FromHub, Hello, HubMessage, Refusal, Welcome,
    },
    wire::{self, WireError},
};

/// The agent's handle of its tunnel. Clones are the same tunnel.
#[derive(Clone, Debug)]
pub struct AgentTunnel {
    pub(crate) connection: Connection,
    pub(crate) windows: Arc<Windows>,
}

/// The agent's end of the control stream.
#[derive(Debug)]
pub struct AgentControl(Control<FromHub, FromAgent>);

/// A stream whose [`Dial`] has not been read yet.
#[derive(Debug)]
pub struct PendingDial {
    stream: Stream,
    windows: Arc<Windows>,
}

/// A dial that waits for its answer. Dropping it resets the stream.
#[derive(Debug)]
pub struct DialRequest {
    /// What the hub asks for.
    pub dial: Dial,
    stream: Stream,
    windows: Arc<Windows>,
    /// What the hub grants first.
    window: u64,
    /// The hub knows breaks.
    breaks: bool,
}

/// Why a dial could not be read or answered.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("the hub did not say within the deadline what to dial")]
    TimedOut,
    #[error("the hub's dial was not understood, or it went away")]
    Wire(#[source] WireError),
}

impl AgentTunnel {
    /// Opens the control stream, says `hello` and waits for the `Welcome`, at most `limit`. The hub can make this end hold
    /// at most `memory`.
    pub async fn establish(
        connection: Connection,
        hello: Hello,
        memory: TunnelMemory,
        limit: Duration,
    ) -> Result<(Self, AgentControl, Welcome), EstablishError> {
        let deadline = Instant::now() + limit;
        let opened = tokio::time::timeout_at(deadline, connection.quic.open_bi()).await;
        let (send, receive) = match opened {
            Err(_) => return Err(EstablishError::TimedOut(Greeting::Welcome)),
            Ok(Err(error)) => return Err(EstablishError::Lost(error.into())),
            Ok(Ok(stream)) => stream,
        };
        let windows = Windows::new(connection.quic.clone(), memory);
        let mut control = AgentControl(Control::new(connection.quic.clone(), windows.clone(), send, receive));
        control.send(AgentMessage::Hello(hello)).map_err(EstablishError::Control)?;
        let first = tokio::time::timeout_at(deadline, control.receive()).await;
        match first.map_err(|_| EstablishError::TimedOut(Greeting::Welcome))?.map_err(EstablishError::Control)? {
            HubMessage::Welcome(welcome) => Ok((Self { connection, windows }, control, welcome)),
            HubMessage::Renewed(_) | HubMessage::Drain(_) | HubMessage::Roots(_) => {
                Err(EstablishError::NotGreeted(Greeting::Welcome))
            }
        }
    }

    /// The next dial. Read it in a task of its own: the hub may be slow to say what it wants.
    pub async fn accept(&self) -> Result<PendingDial, ConnectionLost> {
        let (send, receive) = self.connection.quic.accept_bi().await?;
        if send.id().index() == u64::from(FIRST_AGENT_STREAMS / 2) {
            self.connection.quic.set_max_concurrent_bi_streams(AGENT_STREAMS.into());
        }
        Ok(PendingDial { stream: Stream::new(send, receive), windows: self.windows.clone() })
    }

    /// The hub's address.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// What is known of the path to the hub.
    pub fn path(&self) -> PathState {
        self.connection.path()
    }

    /// See [`Connection::known_mtu`].
    pub fn known_mtu(&self) -> Option<Mtu> {
        self.connection.known_mtu()
    }

    /// What the kernel does for the tunnel's socket.
    pub fn offload(&self) -> Option<Offload> {
        self.connection.offload()
    }

    /// Whether the hub has streams open.
    pub fn is_in_use(&self) -> bool {
        self.windows.is_in_use()
    }

    /// Looks after the hub.
    pub fn check_liveness(&self, liveness: &mut Liveness, now: std::time::Instant) -> LivenessCheck {
        self.connection.look(liveness, self.is_in_use(), now)
    }

    /// Has the hub give a sign of life: what it is sent it acknowledges.
    pub fn nudge(&self) {
        self.connection.nudge();
        self.windows.nudge();
    }

    /// The same, whether or not quinn has asked itself.
    pub fn insist(&self) {
        self.connection.insist();
        self.windows.nudge();
    }

    /// Closes the tunnel, and waits at most `limit` for the hub to hear of it.
    pub async fn close(&self, reason: CloseReason, text: &str, limit: Duration) {
        self.connection.close(reason, text);
        self.connection.flush(limit).await;
    }

    /// Waits until the tunnel is gone.
    pub async fn closed(&self) -> ConnectionLost {
        self.connection.closed().await
    }
}

impl AgentControl {
    /// Has one message sent, behind those before it. An error where the tunnel is lost, or the hub reads nothing.
    pub fn send(&self, message: AgentMessage) -> Result<(), ControlError> {
        self.0.send(message)
    }

    /// The next message that this version knows. Safe to cancel.
    pub async fn receive(&mut self) -> Result<HubMessage, ControlError> {
        self.0.receive().await
    }
}

impl PendingDial {
    /// Reads what to dial, within `limit`.
    pub async fn read(mut self, limit: Duration) -> Result<DialRequest, AcceptError> {
        let (_, receive) = self.stream.quic();
        match tokio::time::timeout(limit, wire::receive::<Dial>(receive)).await {
            Ok(Ok(mut dial)) => {
                let (window, breaks) = (mem::take(&mut dial.window), mem::take(&mut dial.breaks));
                Ok(DialRequest { dial, stream: self.stream, windows: self.windows, window, breaks })
            }
            Ok(Err(error)) => {
                self.stream.reset(ResetReason::ProtocolError);
                Err(AcceptError::Wire(error))
            }
            Err(_) => {
                self.stream.reset(ResetReason::ProtocolError);
                Err(AcceptError::TimedOut)
            }
        }
    }
}

impl DialRequest {
    /// Resolves when the hub gives the dial up (its client left, or the tunnel is gone).
    pub fn cancelled(&self) -> impl Future<Output = ()> + Send + 'static {
        self.stream.send.broken()
    }

    /// Says that the target at `address` is connected; the target's bytes may follow.
    pub async fn accept(mut self, address: impl ToString) -> Result<Stream, AcceptError> {
        // Before the answer, after which the hub's grants may come.
        self.stream.begin(&self.windows, self.window, self.breaks);
        let dialed = Dialed { address: address.to_string(), window: self.windows.base(), breaks: true };
        self.answer(DialOutcome::Dialed(dialed)).await?;
        Ok(self.stream)
    }

    /// Says why not.
    pub async fn refuse(mut self, refusal: Refusal) -> Result<(), AcceptError> {
        self.answer(DialOutcome::Refused(refusal)).await?;
        // The hub stops reading once it has the answer: that is no failure.
        let _ = self.stream.send.complete().await;
        Ok(())
    }

    async fn answer(&mut self, outcome: DialOutcome) -> Result<(), AcceptError> {
        let (send, _) = self.stream.quic();
        wire::send(send, &DialReply { outcome: Some(outcome) }).await.map_err(AcceptError::Wire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Pair, SOON, pair_with};

    #[tokio::test]
    async fn a_tunnel_that_is_used_has_room_for_all_its_streams_at_once() {
        let Pair { hub, agent, .. } = pair_with(TunnelMemory::default()).await;
        let opening = async {
            let mut open = Vec::new();
            for _ in 0..AGENT_STREAMS {
                let (mut send, receive) = hub.connection.quic.open_bi().await.unwrap();
                send.write_all(&[0]).await.unwrap();
                open.push((send, receive));
            }
            open
        };
        let accepting = async {
            let mut pending = Vec::new();
            for _ in 0..AGENT_STREAMS {
                pending.push(agent.accept().await.unwrap());
            }
            pending
        };
        let both = async { tokio::join!(opening, accepting) };
        let (open, pending) = tokio::time::timeout(SOON, both).await.expect("all are open at once");
        assert_eq!((open.len(), pending.len()), (AGENT_STREAMS as usize, AGENT_STREAMS as usize));
    }
}
