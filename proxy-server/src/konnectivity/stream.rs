//! One `Proxy` stream from its first packet to its end: a dial, a connection, a close.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use certs::ClusterName;
use hyper::body::Body;
use tokio_util::sync::CancellationToken;
use tunnel::{RelayEnd, ResetReason, Stream};

use crate::{
    caller::{Caller, CallerError},
    client::ANSWER_ALONE,
    connections::Cut,
    head::host_and_port,
    outcome::Outcome,
    proxy::{Ask, Proxied, Proxy},
    record::Record,
};

use super::{
    answers::{Answers, Code, Gone, Status},
    ends::{FromClient, ToClient},
    hearing::{Fault, Heard, Hearing},
    packet::{DialRequest, Packet},
    packets::PacketError,
};

/// How long the other side may take when one has ended: CLOSE_REQ must have its answer within ten seconds, and a client
/// may take [`Answers`] four more to be told.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One stream, about to be served.
#[derive(Debug)]
pub(crate) struct ProxyStream<B> {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) asker: Asker,
    pub(crate) record: Record,
    pub(crate) hearing: Hearing<B>,
    pub(crate) answers: Answers,
    /// The connection's number on this stream, never 0.
    pub(crate) connect_id: i64,
    /// How long the client may take to ask.
    pub(crate) head_timeout: Duration,
}

/// Who asks, and what was said beside the packets.
#[derive(Debug)]
pub(crate) struct Asker {
    pub(crate) caller: Result<Caller, CallerError>,
    pub(crate) proxy_user: Option<String>,
    pub(crate) listener: Option<ClusterName>,
}

/// Why a dial is not even tried.
#[derive(Debug, thiserror::Error)]
enum DialRequestError {
    #[error("the first packet did not arrive in time; send DIAL_REQ at once")]
    Late,
    #[error("only protocol tcp is carried, not {0:?}; dial with tcp")]
    Protocol(String),
}

/// How a connection ended.
enum End {
    Relay(RelayEnd),
    Cut(Cut),
    /// One side ended, and the other did not follow.
    Late,
}

impl<B: Body<Data = Bytes> + Unpin> ProxyStream<B> {
    /// Serves it to its end.
    pub(crate) async fn serve(mut self) {
        let asked = tokio::time::timeout(self.head_timeout, self.hearing.next()).await;
        match asked {
            Ok(Ok(Heard::Dial(request))) => self.dial(request).await,
            Ok(Ok(Heard::End | Heard::CancelDial | Heard::Data(_) | Heard::Close(_))) => {
                self.record.refuse(Outcome::NoDial);
                self.answers.end(Status::ok()).await;
            }
            Ok(Err(fault)) => {
                self.record.refuse(fault.outcome());
                refuse(self.answers, fault).await;
            }
            Err(_) => {
                self.record.refuse(Outcome::TimedOut);
                self.answers.end(Status::of(Code::DeadlineExceeded, &DialRequestError::Late)).await;
            }
        }
    }

    async fn dial(mut self, request: DialRequest) {
        let DialRequest { protocol, address, random } = request;
        if protocol != "tcp" {
            self.record.target(address);
            self.record.refuse(Outcome::NotSupported);
            let error = DialRequestError::Protocol(protocol.chars().take(16).collect());
            return conclude(self.answers, [Packet::not_dialled(random, error.to_string())]).await;
        }
        let (host, port) = host_and_port(&address).unwrap_or((&address, 0));
        let Asker { caller, proxy_user, listener } = self.asker;
        let ask = Ask { proxy_user, listener, host: host.to_owned(), port };
        let opened = tokio::select! {
            biased;
            opened = self.proxy.open(self.record, caller, ask) => opened,
            // Dropping the dial cancels it at the agent.
            heard = self.hearing.next() => return leave(self.answers, heard).await,
        };
        let (stream, proxied) = match opened {
            Ok(opened) => opened,
            Err(error) => return conclude(self.answers, [Packet::not_dialled(random, error.to_string())]).await,
        };
        self.hearing.opened(self.connect_id);
        if let Err(Gone) = self.answers.say(&Packet::dialled(random, self.connect_id)).await {
            return proxied.close(Outcome::ClientReset);
        }
        // Go's client drops bytes that arrive together with the answer. Either it speaks first, or it has a head start.
        let _ = tokio::time::timeout(ANSWER_ALONE, self.hearing.listen()).await;
        connection(proxied, stream, self.hearing, self.answers, self.connect_id).await;
    }
}

/// Relays a connection, and tells the client how it ended.
async fn connection<B: Body<Data = Bytes> + Unpin>(
    proxied: Proxied,
    stream: Stream,
    hearing: Hearing<B>,
    answers: Answers,
    connect_id: i64,
) {
    let closing = CancellationToken::new();
    let mut from_client = FromClient::new(hearing, &closing);
    let mut to_client = ToClient::new(answers, connect_id, &closing);
    let late = async {
        closing.cancelled().await;
        tokio::time::sleep(CLOSE_TIMEOUT).await;
    };
    let end = tokio::select! {
        end = tunnel::relay(stream, &mut from_client, &mut to_client, proxied.traffic()) => End::Relay(end),
        // Dropping the relay resets the target.
        cut = proxied.cut() => End::Cut(cut),
        () = late => End::Late,
    };
    let fault = from_client.fault();
    proxied.close(outcome(&end, fault));
    let (mut answers, closed) = to_client.into_answers();
    match (fault, sentence(&end)) {
        (Some(Fault::Packet(PacketError::Reset)), _) => {}
        (Some(fault), _) => {
            // A fault that has no packet of its own ends the connection, too.
            if fault.answers().is_empty() && answers.say(&Packet::closed(connect_id, fault.to_string())).await.is_err()
            {
                return;
            }
            refuse(answers, fault).await;
        }
        (None, Some(sentence)) if !closed => conclude(answers, [Packet::closed(connect_id, sentence)]).await,
        (None, _) => answers.end(Status::ok()).await,
    }
}

/// What a client is told of an end that is not the proper one.
fn sentence(end: &End) -> Option<String> {
    Some(match end {
        End::Relay(RelayEnd::Complete) => return None,
        End::Relay(RelayEnd::RemoteReset(ResetReason::Abandoned)) => {
            "the agent has given the connection up, as it does when it stops; dial again".into()
        }
        End::Relay(RelayEnd::RemoteReset(reason)) => format!("the target's connection broke off: {reason}"),
        End::Relay(RelayEnd::TunnelLost) => "the agent's tunnel was lost; dial again".into(),
        // The client's side fails by the client's leaving.
        End::Relay(RelayEnd::LocalReset | RelayEnd::LocalFailed(_)) => "the client is gone".into(),
        End::Cut(cut) => cut.to_string(),
        End::Late => "the target did not end in time after the close; its connection was reset".into(),
    })
}

fn outcome(end: &End, fault: Option<Fault>) -> Outcome {
    match (end, fault) {
        (_, Some(fault)) => fault.outcome(),
        (End::Relay(end), None) => (*end).into(),
        (End::Cut(_), None) => Outcome::Cut,
        (End::Late, None) => Outcome::CloseLate,
    }
}

/// The client has left, or said what it may not, before its dial was answered.
async fn leave(answers: Answers, heard: Result<Heard, Fault>) {
    match heard {
        Ok(Heard::Close(connect_id)) => conclude(answers, [Packet::closed(connect_id, String::new())]).await,
        Ok(Heard::CancelDial | Heard::End | Heard::Dial(_) | Heard::Data(_)) => answers.end(Status::ok()).await,
        Err(fault) => refuse(answers, fault).await,
    }
}

async fn refuse(mut answers: Answers, fault: Fault) {
    for packet in fault.answers() {
        if answers.say(&packet).await.is_err() {
            return;
        }
    }
    answers.end(fault.status()).await;
}

async fn conclude(mut answers: Answers, packets: impl IntoIterator<Item = Packet>) {
    for packet in packets {
        if answers.say(&packet).await.is_err() {
            return;
        }
    }
    answers.end(Status::ok()).await;
}
