//! One `Proxy` stream from its first packet to its end: a dial, a connection, a close.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use certs::ClusterName;
use hyper::body::Body;
use tokio_util::sync::CancellationToken;
use tunnel::{RelayEnd, ResetReason, Stream};

use crate::{
    frontend::client::ANSWER_ALONE,
    frontend::head::host_and_port,
    outcome::Outcome,
    proxy::caller::{Caller, CallerError},
    proxy::connections::Cut,
    proxy::record::Record,
    proxy::{OpenRequest, Proxied, Proxy},
};

use super::{
    ends::{FromClient, ToClient},
    packet::{DialRequest, Packet},
    packets::PacketError,
    protocol::Event,
    request_stream::{RequestError, RequestStream},
    responses::{Code, Gone, Responses, Status},
};

/// How long the other side may take when one has ended: CLOSE_REQ must have its answer within ten seconds, and a client
/// may take [`Responses`] four more to be told.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// One stream, about to be served.
#[derive(Debug)]
pub(crate) struct ProxyStream<B> {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) asker: RequestContext,
    pub(crate) record: Record,
    pub(crate) requests: RequestStream<B>,
    pub(crate) responses: Responses,
    /// The connection's number on this stream, never 0.
    pub(crate) connect_id: i64,
    /// How long the client may take to ask.
    pub(crate) head_timeout: Duration,
}

/// Who asks, and what was said beside the packets.
#[derive(Debug)]
pub(crate) struct RequestContext {
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
        let first = tokio::time::timeout(self.head_timeout, self.requests.next()).await;
        match first {
            Ok(Ok(Some(Event::Dial(request)))) => self.dial(request).await,
            Ok(Ok(None | Some(Event::CancelDial | Event::Data(_) | Event::Close(_)))) => {
                self.record.refuse(Outcome::NoDial);
                self.responses.end(Status::ok()).await;
            }
            Ok(Err(fault)) => {
                self.record.refuse(fault.outcome());
                refuse(self.responses, fault).await;
            }
            Err(_) => {
                self.record.refuse(Outcome::TimedOut);
                self.responses.end(Status::of(Code::DeadlineExceeded, &DialRequestError::Late)).await;
            }
        }
    }

    async fn dial(mut self, request: DialRequest) {
        let DialRequest { protocol, address, random } = request;
        if protocol != "tcp" {
            self.record.target(address);
            self.record.refuse(Outcome::NotSupported);
            let error = DialRequestError::Protocol(protocol.chars().take(16).collect());
            return conclude(self.responses, [Packet::not_dialled(random, error.to_string())]).await;
        }
        let (host, port) = host_and_port(&address).unwrap_or((&address, 0));
        let RequestContext { caller, proxy_user, listener } = self.asker;
        let request = OpenRequest { proxy_user, listener, host: host.to_owned(), port };
        let opened = tokio::select! {
            biased;
            opened = self.proxy.open_as(self.record, caller, request) => opened,
            // Dropping the dial cancels it at the agent.
            event = self.requests.next() => return leave(self.responses, event).await,
        };
        let (stream, proxied) = match opened {
            Ok(opened) => opened,
            Err(error) => return conclude(self.responses, [Packet::not_dialled(random, error.to_string())]).await,
        };
        self.requests.opened(self.connect_id);
        if let Err(Gone) = self.responses.send(&Packet::dialled(random, self.connect_id)).await {
            return proxied.close(Outcome::ClientReset);
        }
        // Go's client drops bytes that arrive together with the answer. Either it speaks first, or it has a head start.
        let _ = tokio::time::timeout(ANSWER_ALONE, self.requests.peek()).await;
        connection(proxied, stream, self.requests, self.responses, self.connect_id).await;
    }
}

/// Relays a connection, and tells the client how it ended.
async fn connection<B: Body<Data = Bytes> + Unpin>(
    proxied: Proxied,
    stream: Stream,
    requests: RequestStream<B>,
    responses: Responses,
    connect_id: i64,
) {
    let closing = CancellationToken::new();
    let mut from_client = FromClient::new(requests, &closing);
    let mut to_client = ToClient::new(responses, connect_id, &closing);
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
    let (mut responses, closed) = to_client.into_responses();
    match (fault, sentence(&end)) {
        (Some(RequestError::Packet(PacketError::Reset)), _) => {}
        (Some(fault), _) => {
            // A fault that has no packet of its own ends the connection, too.
            if fault.responses().is_empty()
                && responses.send(&Packet::closed(connect_id, fault.to_string())).await.is_err()
            {
                return;
            }
            refuse(responses, fault).await;
        }
        (None, Some(sentence)) if !closed => conclude(responses, [Packet::closed(connect_id, sentence)]).await,
        (None, _) => responses.end(Status::ok()).await,
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

fn outcome(end: &End, fault: Option<RequestError>) -> Outcome {
    match (end, fault) {
        (_, Some(fault)) => fault.outcome(),
        (End::Relay(end), None) => (*end).into(),
        (End::Cut(_), None) => Outcome::Cut,
        (End::Late, None) => Outcome::CloseLate,
    }
}

/// The client has left, or said what it may not, before its dial was answered.
async fn leave(responses: Responses, event: Result<Option<Event>, RequestError>) {
    match event {
        Ok(Some(Event::Close(connect_id))) => conclude(responses, [Packet::closed(connect_id, String::new())]).await,
        Ok(None | Some(Event::CancelDial | Event::Dial(_) | Event::Data(_))) => responses.end(Status::ok()).await,
        Err(fault) => refuse(responses, fault).await,
    }
}

async fn refuse(mut responses: Responses, fault: RequestError) {
    for packet in fault.responses() {
        if responses.send(&packet).await.is_err() {
            return;
        }
    }
    responses.end(fault.status()).await;
}

async fn conclude(mut responses: Responses, packets: impl IntoIterator<Item = Packet>) {
    for packet in packets {
        if responses.send(&packet).await.is_err() {
            return;
        }
    }
    responses.end(Status::ok()).await;
}
