//! What stands between a store and its etcd, and cuts what it is told to: it speaks HTTP/2, and knows transactions by their path.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::rt::Executor;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::until;

/// Its tests need a second thread: opening a store blocks.
pub(super) struct Forwarder {
    port: u16,
    pub(super) faults: Arc<Faults>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
pub(super) struct Faults {
    /// So many transactions reach etcd, but not their answers: the connection, which has the watch as well, is cut instead.
    pub(super) lost_answers: AtomicUsize,
    /// So many transactions reach etcd, but not their answers: their streams are reset, and the watch goes on.
    pub(super) reset_answers: AtomicUsize,
    /// So many transactions reach etcd only after this time; their connections are cut at once.
    pub(super) late: AtomicUsize,
    /// Transactions that are late now.
    pub(super) on_their_way: TaskTracker,
    /// Transactions that one of these has befallen.
    pub(super) struck: AtomicUsize,
    /// Nothing comes through.
    pub(super) away: Mutex<bool>,
    /// Connections now.
    open: AtomicUsize,
}

/// The tasks of one connection.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<JoinSet<()>>>);

/// What comes instead of an answer.
#[derive(Debug, Error)]
#[error("there is no answer")]
struct Struck;

/// How late a late transaction is.
const LATE: Duration = Duration::from_millis(800);
const TRANSACTION: &str = "/etcdserverpb.KV/Txn";

impl Forwarder {
    pub(super) async fn to(etcd: SocketAddrV4) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let faults = Arc::new(Faults::default());
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&faults);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    shared.open.fetch_add(1, Ordering::SeqCst);
                    forward(client, etcd, &shared).await;
                    shared.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { port: own, faults, _tasks: tasks }
    }

    /// Cuts everything off; when this returns, nothing comes through any more.
    pub(super) async fn cut(&self) {
        *self.faults.away.lock() = true;
        until("the cut", || self.faults.open.load(Ordering::SeqCst) == 0).await;
        self.late_ones_have_come().await;
    }

    pub(super) async fn late_ones_have_come(&self) {
        until("that no transaction is late", || self.faults.on_their_way.is_empty()).await;
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Faults {
    fn strikes(&self, count: &AtomicUsize) -> bool {
        let strikes = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        self.struck.fetch_add(strikes.into(), Ordering::Relaxed);
        strikes
    }
}

async fn forward(client: TcpStream, etcd: SocketAddrV4, faults: &Arc<Faults>) {
    let away = async {
        while !*faults.away.lock() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let (tasks, cut) = (Tasks::default(), CancellationToken::new());
    let Ok(server) = TcpStream::connect(etcd).await else { return };
    let Ok((requests, to_etcd)) = handshake(tasks.clone(), TokioIo::new(server)).await else { return };
    let answers = service_fn(|request| {
        let (requests, faults, cut) = (requests.clone(), Arc::clone(faults), cut.clone());
        async move { answer(request, requests, etcd, &faults, &cut).await }
    });
    let from_client = Builder::new(tasks.clone()).serve_connection(TokioIo::new(client), answers);
    tokio::select! {
        biased;
        () = away => {}
        () = cut.cancelled() => {}
        _ = from_client => {}
        _ = to_etcd => {}
    }
    let mut left = std::mem::take(&mut *tasks.0.lock());
    left.shutdown().await;
}

async fn answer(
    request: Request<Incoming>,
    mut requests: SendRequest<Incoming>,
    etcd: SocketAddrV4,
    faults: &Faults,
    cut: &CancellationToken,
) -> Result<Response<Incoming>, Struck> {
    assert_eq!(request.headers()["hasleader"], "true");
    let transaction = request.uri().path() == TRANSACTION;
    if transaction && faults.strikes(&faults.late) {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, Full::new(body.collect().await.map_err(|_| Struck)?.to_bytes()));
        faults.on_their_way.spawn(deliver_late(request, etcd));
        cut.cancel();
        return Err(Struck);
    }
    let lost = transaction && faults.strikes(&faults.lost_answers);
    let reset = transaction && !lost && faults.strikes(&faults.reset_answers);
    let answer = requests.send_request(request).await.map_err(|_| Struck)?;
    if !lost && !reset {
        return Ok(answer);
    }
    // Now etcd has done it.
    carried_out(answer).await;
    if lost {
        cut.cancel();
    }
    Err(Struck)
}

async fn deliver_late(request: Request<Full<Bytes>>, etcd: SocketAddrV4) {
    sleep(LATE).await;
    let Ok(stream) = TcpStream::connect(etcd).await else { return };
    let tasks = Tasks::default();
    let (mut requests, connection) = handshake(tasks.clone(), TokioIo::new(stream)).await.unwrap();
    tokio::select! {
        _ = connection => {}
        answer = requests.send_request(request) => carried_out(answer.unwrap()).await,
    }
}

async fn carried_out(answer: Response<impl Body<Error: std::fmt::Debug>>) {
    answer.into_body().collect().await.map(drop).unwrap();
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.0.lock().spawn(task);
    }
}
