//! The hub's end of a tunnel: opening streams, and the control stream.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    connection::{Connection, ConnectionLost, Origin},
    liveness::{Liveness, LivenessCheck},
    socket::reset::Resettable,
    stream::Stream,
    stream::credit::TunnelMemory,
    stream::windows::Windows,
    transport::KEEP_ALIVE,
    wire::code::{CloseReason, ResetReason},
    wire::control::{Control, ControlError},
    wire::message::{
        AgentMessage, Dial, DialOutcome, DialReply, Dialed, FromAgent, FromHub, Hello, HubMessage, Refusal,
    },
    wire::{self, WireError},
};

/// The hub's handle of one agent's tunnel. Clones are the same tunnel.
#[derive(Clone, Debug)]
pub struct HubTunnel {
    pub(crate) connection: Connection,
    pub(crate) windows: Arc<Windows>,
}

/// The hub's end of the control stream.
#[derive(Debug)]
pub struct HubControl(Control<FromAgent, FromHub>);

/// Why a connection became no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum EstablishError {
    #[error("the peer said no {0:?} within its deadline")]
    TimedOut(Greeting),
    #[error("the peer's first message on the control stream was no {0:?}")]
    NotGreeted(Greeting),
    #[error("the control stream failed")]
    Control(#[source] ControlError),
    #[error("the connection was lost")]
    Lost(#[source] ConnectionLost),
}

/// What an end says first on the control stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The agent.
    Hello,
    /// The hub.
    Welcome,
}

/// Why a dial brought no stream.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The agent answered no.
    #[error("the agent refused the dial: {}", .0.message)]
    Refused(Refusal),
    /// The agent has all the streams open that it allows.
    #[error("the agent allows no more streams")]
    NoMoreStreams,
    /// The agent did not answer before the deadline.
    #[error("the agent did not answer in time")]
    TimedOut,
    /// The agent has given no sign of life since it was asked.
    #[error("the agent gives no sign of life")]
    Silent,
    /// The tunnel was lost before the agent answered.
    #[error("the tunnel was lost before the agent answered")]
    Lost(#[source] ConnectionLost),
    /// The agent answered something that is no answer.
    #[error("the agent broke the protocol")]
    Protocol(#[source] WireError),
}

/// Between two looks whether an agent that is to dial gives signs of life.
const SIGN_LOOK: Duration = Duration::from_millis(250);

/// An agent that lives acknowledges what it is asked within a round trip, unless its address is another one since: that is not
/// known before its keep-alive.
pub const SIGN_OF_LIFE: Duration = KEEP_ALIVE.saturating_add(Duration::from_secs(1));

impl HubTunnel {
    /// Waits for the control stream and its `Hello`, at most `limit`. The agent can make this end hold at most `memory`.
    pub async fn establish(
        connection: Connection,
        memory: TunnelMemory,
        limit: Duration,
    ) -> Result<(Self, HubControl, Hello), EstablishError> {
        let deadline = Instant::now() + limit;
        let accepted = tokio::time::timeout_at(deadline, connection.quic.accept_bi()).await;
        let (send, receive) = match accepted {
            Err(_) => return Err(EstablishError::TimedOut(Greeting::Hello)),
            Ok(Err(error)) => return Err(EstablishError::Lost(error.into())),
            Ok(Ok(stream)) => stream,
        };
        let windows = Windows::new(connection.quic.clone(), memory);
        let mut control = HubControl(Control::new(connection.quic.clone(), windows.clone(), send, receive));
        let first = tokio::time::timeout_at(deadline, control.receive()).await;
        match first.map_err(|_| EstablishError::TimedOut(Greeting::Hello))?.map_err(EstablishError::Control)? {
            AgentMessage::Hello(hello) => Ok((Self { connection, windows }, control, hello)),
            AgentMessage::Renew(_) | AgentMessage::Drain(_) | AgentMessage::Exports(_) | AgentMessage::Trusts(_) => {
                Err(EstablishError::NotGreeted(Greeting::Hello))
            }
        }
    }

    /// Opens a stream and has the agent dial, until it has given no sign of life for `patience` and four round trips. Dropping the
    /// future cancels the dial at the agent.
    pub async fn open(
        &self,
        dial: &Dial,
        deadline: Instant,
        patience: Duration,
    ) -> Result<(Stream, Dialed), DialError> {
        tokio::select! {
            dialled = self.ask(dial, deadline) => dialled,
            () = self.silent(patience) => Err(DialError::Silent),
        }
    }

    /// Resolves when the agent has been asked for signs of life for a while, and nothing was heard of it. What counts are looks,
    /// not time: while this process stands still it hears nobody.
    async fn silent(&self, patience: Duration) {
        let mut looks = tokio::time::interval(SIGN_LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut heard, mut missed) = (self.received_frames(), 0);
        loop {
            looks.tick().await;
            let now = self.received_frames();
            missed = if now == heard { missed + 1 } else { 0 };
            heard = now;
            if missed * SIGN_LOOK > patience.max((4 * self.rtt()).min(SIGN_OF_LIFE)) {
                return;
            }
            if missed > 1 {
                self.nudge();
            }
        }
    }

    async fn ask(&self, dial: &Dial, deadline: Instant) -> Result<(Stream, Dialed), DialError> {
        let opened = tokio::time::timeout_at(deadline, self.connection.quic.open_bi()).await;
        let (send, receive) = match opened {
            Err(_) => return Err(DialError::NoMoreStreams),
            Ok(Err(error)) => return Err(DialError::Lost(error.into())),
            Ok(Ok(stream)) => stream,
        };
        let mut stream = Undialled(Some(Stream::new(send, receive)));
        let dial = Dial { window: self.windows.base(), breaks: true, ..dial.clone() };
        let answered = tokio::time::timeout_at(deadline, stream.ask(&dial)).await;
        match answered.map_err(|_| DialError::TimedOut)?.map_err(dial_error)?.outcome {
            Some(DialOutcome::Dialed(dialed)) => {
                let mut stream = stream.dialled();
                stream.begin(&self.windows, dialed.window, dialed.breaks);
                Ok((stream, dialed))
            }
            Some(DialOutcome::Refused(refusal)) => Err(DialError::Refused(refusal)),
            None => Err(DialError::Protocol(WireError::Empty)),
        }
    }

    /// The agent's address as seen here.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// What a later process needs to reset this tunnel; `None` for one that this process has dialled.
    pub fn resettable(&self) -> Option<Resettable> {
        match self.connection.origin {
            Origin::Dialled { .. } => None,
            Origin::Accepted { id, .. } => Some(Resettable { agent: self.remote_address(), id }),
        }
    }

    /// Smoothed round-trip time.
    pub fn rtt(&self) -> Duration {
        self.connection.rtt()
    }

    /// The largest IP packet that the path was found to carry, in bytes.
    pub fn path_mtu(&self) -> u16 {
        self.connection.path_mtu()
    }

    /// See [`Connection::received_frames`].
    pub fn received_frames(&self) -> u64 {
        self.connection.received_frames()
    }

    /// Looks after the agent, which is in use or not.
    pub fn check_liveness(&self, liveness: &mut Liveness, in_use: bool, now: std::time::Instant) -> LivenessCheck {
        self.connection.look(liveness, in_use, now)
    }

    /// Has the agent give a sign of life: what it is sent it acknowledges.
    pub fn nudge(&self) {
        self.connection.nudge();
        self.windows.nudge();
    }

    /// Begins anew with the path, which may carry less than it did.
    pub fn begin_anew(&self) {
        self.connection.begin_anew();
    }

    /// As [`Self::nudge`], whether or not quinn has asked itself.
    pub fn insist(&self) {
        self.connection.insist();
        self.windows.nudge();
    }

    /// Closes the tunnel at once; its streams are lost.
    pub fn close(&self, reason: CloseReason, text: &str) {
        self.connection.close(reason, text);
    }

    /// Waits until the tunnel is gone.
    pub async fn closed(&self) -> ConnectionLost {
        self.connection.closed().await
    }
}

impl HubControl {
    /// Has one message sent, behind those before it. An error where the tunnel is lost, or the agent reads nothing.
    pub fn send(&self, message: HubMessage) -> Result<(), ControlError> {
        self.0.send(message)
    }

    /// The next message that this version knows. Safe to cancel.
    pub async fn receive(&mut self) -> Result<AgentMessage, ControlError> {
        self.0.receive().await
    }
}

/// A stream whose dial has no answer yet: dropped, it tells the agent to give up.
struct Undialled(Option<Stream>);

impl Undialled {
    async fn ask(&mut self, dial: &Dial) -> Result<DialReply, WireError> {
        let (send, receive) = self.0.as_mut().expect("present until dialled").quic();
        wire::send(send, dial).await?;
        wire::receive(receive).await
    }

    fn dialled(mut self) -> Stream {
        self.0.take().expect("present until dialled")
    }
}

impl Drop for Undialled {
    fn drop(&mut self) {
        if let Some(stream) = self.0.take() {
            stream.reset(ResetReason::Cancelled);
        }
    }
}

fn dial_error(error: WireError) -> DialError {
    match error {
        WireError::Lost(loss) => DialError::Lost(loss),
        WireError::TooLong | WireError::Malformed(_) | WireError::Empty | WireError::Ended | WireError::Reset => {
            DialError::Protocol(error)
        }
    }
}
