//! One HTTP exchange on a stream of a tunnel: a request, its answer, and what an upgrade makes of the two connections.

use std::{pin::Pin, time::Duration};

use http::{Request, Response, StatusCode};
use hyper::{
    body::{Body, Incoming},
    client::conn::{http1, http2},
    upgrade::{OnUpgrade, Parts},
};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;
use tunnel::{Delivery, Metered, RelayEnd, Stream, hop, relay_upgraded};

use crate::{api::http_port::Tracked, outcome::Outcome, proxy::Proxied};

/// A stream on which nothing was asked yet.
#[derive(Debug)]
pub(crate) enum Exchange<B> {
    Http1 {
        sender: http1::SendRequest<B>,
        upgraded: oneshot::Sender<(Upgradable, OnUpgrade)>,
    },
    /// With prior knowledge (RFC 9113 section 3.3): gRPC's trailers are no matter of HTTP/1.1.
    Http2(http2::SendRequest<B>),
}

/// A client's connection that an upgrade joins to the target's.
#[derive(Debug)]
pub(crate) struct Upgradable {
    pub(crate) client: OnUpgrade,
    /// What is written to it; nothing where a close throws nothing away.
    pub(crate) delivery: Option<Delivery>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    #[error("the target broke off the HTTP exchange ({0}); look into its log")]
    Broken(hyper::Error),
    #[error("the target did not answer the request; look into its log")]
    Silent,
}

impl<B> Exchange<B>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + Unpin + 'static,
{
    /// Speaks HTTP to the target, in a task of `tasks` that ends with the exchange.
    pub(crate) async fn start(stream: Stream, proxied: Proxied, tasks: &TaskTracker) -> Result<Self, ExchangeError> {
        let metered = Metered { stream, traffic: proxied.traffic().clone() };
        let (sender, connection) =
            http1::handshake::<_, B>(TokioIo::new(metered)).await.map_err(ExchangeError::Broken)?;
        let (upgraded, pair) = oneshot::channel();
        tasks.spawn(async move {
            let outcome = tokio::select! {
                outcome = drive(connection.with_upgrades(), pair) => outcome,
                _ = proxied.cut() => Outcome::Cut,
            };
            proxied.close(outcome);
        });
        Ok(Self::Http1 { sender, upgraded })
    }

    /// As [`Self::start`], for a target that speaks HTTP/2 in clear.
    pub(crate) async fn begin_http2(
        stream: Stream,
        proxied: Proxied,
        tasks: &TaskTracker,
    ) -> Result<Self, ExchangeError> {
        let metered = Metered { stream, traffic: proxied.traffic().clone() };
        let handshake = http2::handshake(Tracked(tasks.clone()), TokioIo::new(metered)).await;
        let (sender, connection) = handshake.map_err(ExchangeError::Broken)?;
        tasks.spawn(async move {
            let outcome = tokio::select! {
                ended = connection => if ended.is_ok() { Outcome::Complete } else { Outcome::TargetReset },
                _ = proxied.cut() => Outcome::Cut,
            };
            proxied.close(outcome);
        });
        Ok(Self::Http2(sender))
    }

    /// Sends the request; the answer's head must come within `limit`, if there is one.
    pub(crate) async fn send(
        self,
        request: Request<B>,
        client: Option<Upgradable>,
        limit: Option<Duration>,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let (responding, upgraded): (Pin<Box<dyn Future<Output = _> + Send>>, _) = match self {
            Self::Http1 { mut sender, upgraded } => (Box::pin(sender.send_request(request)), Some(upgraded)),
            Self::Http2(mut sender) => (Box::pin(sender.send_request(request)), None),
        };
        let responded: hyper::Result<Response<Incoming>> = match limit {
            Some(limit) => tokio::time::timeout(limit, responding).await.map_err(|_| ExchangeError::Silent)?,
            None => responding.await,
        };
        let mut response = responded.map_err(ExchangeError::Broken)?;
        let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if let Some((client, upgraded)) = client.zip(upgraded).filter(|_| switching) {
            // The driver is gone only when the connection is: then both upgrades fail by themselves.
            let _ = upgraded.send((client, hyper::upgrade::on(&mut response)));
        }
        hop::strip(response.headers_mut(), switching);
        Ok(response)
    }
}

/// Moves the target's connection on, through an upgrade if there is one; says how it ended.
async fn drive(
    connection: impl Future<Output = hyper::Result<()>>,
    pair: oneshot::Receiver<(Upgradable, OnUpgrade)>,
) -> Outcome {
    if connection.await.is_err() {
        return Outcome::TargetReset;
    }
    let Ok((Upgradable { client, delivery }, target)) = pair.await else { return Outcome::Complete };
    let (Ok(client), Ok(target)) = tokio::join!(client, target) else { return Outcome::TargetReset };
    let Ok(Parts { io, read_buf, .. }) = target.downcast::<TokioIo<Metered>>() else { return Outcome::TargetReset };
    let (Metered { stream, traffic }, mut client) = (io.into_inner(), TokioIo::new(client));
    let end = relay_upgraded(stream, &read_buf, &mut client, &traffic).await;
    if let Some(delivery) = delivery.filter(|_| end != RelayEnd::Complete) {
        delivery.done().await;
    }
    end.into()
}
