//! An HTTP/1.1 port for the hub's own pages: accepts, shakes hands where there is TLS, and serves small answers.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a client may take to shake hands, then to ask, and then to take its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long accepting pauses after an error (no more file descriptors): it would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The port.
pub(crate) struct HttpPort {
    pub(crate) listener: TcpListener,
    /// Where there is none, the port speaks plain HTTP.
    pub(crate) tls: Option<TlsAcceptor>,
    /// Clients at a time; one too many is closed.
    pub(crate) connections: usize,
    pub(crate) tasks: TaskTracker,
    /// Ends the port and everyone on it.
    pub(crate) end: CancellationToken,
}

impl HttpPort {
    /// Serves until the end. `answer` is given the client's certificate where it showed one that TLS has verified.
    pub(crate) async fn serve<F, R>(self, answer: F)
    where
        F: Fn(Request<Incoming>, Option<CertificateDer<'static>>) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let room = Arc::new(Semaphore::new(self.connections));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.end.cancelled() => return,
            };
            let Ok((tcp, _)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            let (answer, tls, end) = (answer.clone(), self.tls.clone(), self.end.clone());
            self.tasks.spawn(async move {
                let served = tokio::select! {
                    served = serve_one(tcp, tls, answer) => served,
                    () = end.cancelled() => Ok(()),
                };
                if let Err(error) = served {
                    tracing::debug!(%error, "a client broke off");
                }
                drop(permit);
            });
        }
    }
}

async fn serve_one<F, R>(tcp: TcpStream, tls: Option<TlsAcceptor>, answer: F) -> io::Result<()>
where
    F: Fn(Request<Incoming>, Option<CertificateDer<'static>>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    // A client that takes no answer for so long is gone. On these ports nobody reads slowly on purpose.
    socket2::SockRef::from(&tcp).set_tcp_user_timeout(Some(PATIENCE))?;
    let Some(tls) = tls else { return serve_requests(tcp, None, answer).await };
    let stream = tokio::time::timeout(PATIENCE, tls.accept(tcp)).await??;
    let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).cloned();
    serve_requests(stream, leaf.map(CertificateDer::into_owned), answer).await
}

async fn serve_requests<F, R>(
    io: impl AsyncRead + AsyncWrite + Unpin,
    certificate: Option<CertificateDer<'static>>,
    answer: F,
) -> io::Result<()>
where
    F: Fn(Request<Incoming>, Option<CertificateDer<'static>>) -> R,
    R: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(|request| {
        let answering = answer(request, certificate.clone());
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
    http.serve_connection(TokioIo::new(io), service).await.map_err(io::Error::other)
}
