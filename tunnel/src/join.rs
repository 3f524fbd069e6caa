//! The join conversation: one request, then answers until the hub has decided.

use std::time::Duration;

use futures_util::StreamExt;

use crate::{
    connection::{Connection, ConnectionLost},
    stream::Stream,
    wire::code::CloseReason,
    wire::message::{FromJoin, JoinReply, JoinRequest},
    wire::{self, Frames, WireError},
};

/// The hub's end of a join.
#[derive(Debug)]
pub struct JoinSession {
    connection: Connection,
    stream: Stream,
}

/// The agent's end of a join: the answers to its request.
#[derive(Debug)]
pub struct JoinAnswers {
    connection: Connection,
    /// Dropped, it would say that there are no more answers to be heard.
    _send: quinn::SendStream,
    answers: Frames,
}

/// Why a join broke off without an answer.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error("the peer was silent for too long")]
    TimedOut,
    #[error("the connection was lost")]
    Lost(#[source] ConnectionLost),
    #[error("the peer broke the protocol")]
    Protocol(#[source] WireError),
}

impl JoinSession {
    /// Waits for the agent's request, at most `limit`.
    pub async fn accept(connection: Connection, limit: Duration) -> Result<(Self, JoinRequest), JoinError> {
        let request = async {
            let (send, receive) = connection.quic.accept_bi().await.map_err(|error| JoinError::Lost(error.into()))?;
            let mut stream = Stream::new(send, receive);
            let (_, receive) = stream.quic();
            let request = wire::receive(receive).await.map_err(wire_error)?;
            Ok((stream, request))
        };
        let (stream, request) = tokio::time::timeout(limit, request).await.map_err(|_| JoinError::TimedOut)??;
        Ok((Self { connection, stream }, request))
    }

    /// Says something and goes on waiting.
    pub async fn answer(&mut self, reply: JoinReply) -> Result<(), JoinError> {
        let (send, _) = self.stream.quic();
        wire::send(send, &FromJoin { reply: Some(reply) }).await.map_err(wire_error)
    }

    /// Gives the last answer, and waits at most `limit` until the agent has it.
    pub async fn conclude(mut self, reply: JoinReply, limit: Duration) -> Result<(), JoinError> {
        self.answer(reply).await?;
        // The agent closes the connection once it has the answer.
        if tokio::time::timeout(limit, self.connection.closed()).await.is_err() {
            self.connection.close(CloseReason::DeadlineExceeded, "the join is decided");
        }
        Ok(())
    }

    /// Resolves when the agent has gone.
    pub async fn gone(&self) -> ConnectionLost {
        self.connection.closed().await
    }
}

impl JoinAnswers {
    /// Sends `request` on a connection that was agreed to be a join, within `limit`.
    pub async fn ask(connection: Connection, request: &JoinRequest, limit: Duration) -> Result<Self, JoinError> {
        let asked = async {
            let (mut send, receive) = connection.quic.open_bi().await.map_err(|error| JoinError::Lost(error.into()))?;
            wire::send(&mut send, request).await.map_err(wire_error)?;
            Ok((send, wire::frames(receive)))
        };
        let (send, answers) = tokio::time::timeout(limit, asked).await.map_err(|_| JoinError::TimedOut)??;
        Ok(Self { connection, _send: send, answers })
    }

    /// The hub's next answer that this version knows. Safe to cancel; bound it: an administrator may take days.
    pub async fn next(&mut self) -> Result<JoinReply, JoinError> {
        loop {
            let answer = wire::decode(self.answers.next().await, &self.connection.quic);
            if let FromJoin { reply: Some(reply) } = answer.map_err(wire_error)? {
                return Ok(reply);
            }
        }
    }

    /// Ends the conversation.
    pub async fn close(self, limit: Duration) {
        self.connection.close(CloseReason::Done, "");
        self.connection.flush(limit).await;
    }
}

fn wire_error(error: WireError) -> JoinError {
    match error {
        WireError::Lost(loss) => JoinError::Lost(loss),
        WireError::TooLong | WireError::Malformed(_) | WireError::Empty | WireError::Ended | WireError::Reset => {
            JoinError::Protocol(error)
        }
    }
}
